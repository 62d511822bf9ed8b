//! libFuzzer around one target, named by `STOCKLINE_FUZZ`; tests/long builds and runs it.

#![no_main]

use std::sync::OnceLock;

use stockline_tests::fuzz::{Target, target};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    static TARGET: OnceLock<Target> = OnceLock::new();
    let target = TARGET.get_or_init(|| {
        let name = std::env::var("STOCKLINE_FUZZ").expect("STOCKLINE_FUZZ names a target");
        target(&name).unwrap_or_else(|| panic!("{name} is no target"))
    });
    target(data);
});
