//! `stockline`: one binary to run the server and to talk to one.

use clap::{Parser, Subcommand};
use mimalloc::MiMalloc;
use stockline_server::command::{
    allocation, backup, define, explain, follow, import, query, restore, serve, token, verify,
};
use stockline_server::{damage, err, exit, log};

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// How many of this can I promise, here, to this channel, now?
#[derive(Parser)]
#[command(name = "stockline", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the server
    Serve(serve::Options),
    /// Ask what a channel can be promised
    Query(query::Options),
    /// Say what a reservation would be told, and why
    Explain(explain::Options),
    /// Tell what happens to reservations and availability, from a cursor on
    Follow(follow::Options),
    /// Send stock events from a file: JSON lines or CSV
    Import(import::Options),
    /// Check a data directory that no server is using
    Verify(verify::Options),
    /// Copy a data directory while its server goes on
    Backup(backup::Options),
    /// Make a data directory from a backup, perhaps as of an earlier LSN
    Restore(restore::Options),
    /// Create or replace a node, group, channel, zone, data of a sku or a rule
    Define(define::Options),
    /// Keep units for one channel
    Allocation(allocation::Options),
    /// Make a token for a channel, a warehouse or an administrator and print its profile
    Token(token::Options),
}

fn main() {
    // Whatever panics, the process ends with the documented code: nobody waits for a dead thread.
    std::panic::set_hook(Box::new(|panic| {
        let code = match damage::file() {
            Some(file) => {
                err!("stockline: {file} is damaged: {panic}");
                exit::DATA
            }
            None => {
                err!("stockline: a broken invariant ends it: {panic}");
                exit::BROKEN
            }
        };
        log::flush();
        std::process::exit(code);
    }));
    let code = match Arguments::parse().command {
        Command::Serve(options) => serve::run(options),
        Command::Query(options) => query::run(&options),
        Command::Explain(options) => explain::run(&options),
        Command::Follow(options) => follow::run(&options),
        Command::Import(options) => import::run(&options),
        Command::Verify(options) => verify::run(&options),
        Command::Backup(options) => backup::run(&options),
        Command::Restore(options) => restore::run(&options),
        Command::Define(options) => define::run(&options),
        Command::Allocation(options) => allocation::run(&options),
        Command::Token(options) => token::run(&options),
    };
    std::process::exit(code);
}
