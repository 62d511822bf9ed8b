//! The Stockline server as a library: the binary `stockline` and the tests start it from here.
//!
//! [`engine`] runs the core in threads and is the only reader of the clock; [`quic`] and [`http`] are its
//! faces. Both use [`access`], who may do what, [`availability`], what is told of a sku, and [`follow`], what
//! happened since. [`data`] is the data directory; [`command`] holds what the command line can do.

pub mod access;
pub mod availability;
pub mod budget;
pub mod command;
pub mod config;
pub mod control;
pub mod damage;
pub mod data;
pub mod engine;
pub mod event_row;
pub mod exit;
pub mod follow;
pub mod history;
pub mod http;
pub mod jwt;
pub mod log;
pub mod metrics;
pub mod names;
pub mod outgoing;
pub mod principal;
pub mod quic;
pub mod say;
pub mod source;
pub mod trace;
pub mod zone;
