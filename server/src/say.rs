//! What the command line says: lines on standard output and standard error, whoever reads them or not.
//!
//! A reader that has gone ends the command quietly, as it ends `cat`. Anything else that keeps standard output from
//! being written ends it with an error. Nothing here panics.

use std::fmt::Arguments;
use std::io::{ErrorKind, Write};

use crate::exit;

/// Writes to standard output and flushes; ends the process where that cannot be done.
pub fn output(text: Arguments<'_>) {
    let mut out = std::io::stdout().lock();
    match out.write_fmt(text).and_then(|()| out.flush()) {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::BrokenPipe => std::process::exit(exit::OK),
        Err(error) => {
            complaint(format_args!("stockline: standard output cannot be written: {error}\n"));
            std::process::exit(exit::FAILED);
        }
    }
}

/// Writes to standard error, if that can be done.
pub fn complaint(text: Arguments<'_>) {
    // There is nobody left to hear of it.
    let _ = std::io::stderr().lock().write_fmt(text);
}

/// A line on standard output.
#[macro_export]
macro_rules! out {
    ($($text:tt)*) => { $crate::say::output(format_args!("{}\n", format_args!($($text)*))) };
}

/// A line on standard error.
#[macro_export]
macro_rules! err {
    ($($text:tt)*) => { $crate::say::complaint(format_args!("{}\n", format_args!($($text)*))) };
}
