//! The availability ledger of Stockline.
//!
//! This crate knows what stock is, who claims it, in which order commands take effect and how that order
//! is kept on disk. It does not know the clock, randomness, threads, async or the network: time arrives as
//! an argument, bytes arrive as slices. Only `journal/file.rs`,
//! `snapshot.rs`, `letters.rs`, `outbox.rs` and `audit_trail.rs` name redb.
//!
//! The flow of one command, and where to read it:
//!
//! 1. [`wire`]: bytes of a frame become a [`command::Frame`].
//! 2. [`sequencer`]: idempotency, static checks, LSN and time; frames become a [`batch::Batch`].
//! 3. [`shard`]: each shard applies its part through [`ledger`]; parts of one command agree by votes.
//! 4. [`commit`]: the outputs of all shards are merged ([`merge`]) into one record, which the [`journal`] makes
//!    durable; then changed cells are published ([`view`]), `durable` rises, and only then do replies leave.
//! 5. [`checkpoint`]: journal records are folded into the snapshot; [`recovery`] reads both back.

pub mod admission;
pub mod audit_trail;
pub mod backup;
pub mod batch;
pub mod bucket;
pub mod catalogue;
pub mod chain;
pub mod checkpoint;
pub mod command;
pub mod commit;
pub mod cover;
pub mod drill;
pub mod event;
pub mod feed;
mod format2;
pub mod id;
pub mod journal;
pub mod label;
pub mod later;
pub mod ledger;
pub mod letters;
pub mod limit;
pub mod merge;
pub mod outbox;
pub mod outcome;
pub mod plan;
pub mod record;
pub mod recovery;
pub mod self_audit;
pub mod sequencer;
pub mod shard;
pub mod snapshot;
mod sync;
pub mod verify;
pub mod view;
mod vote;
pub mod wire;
