//! The Stockline server as a library: the binary `stockline` and the tests start it from here.
//!
//! [`engine`] runs the core in threads and is the only reader of the clock; [`quic`] and [`http`] are its
//! faces, [`availability`] is what both tell of a sku; [`data`] is the data directory; [`command`] holds what the command line can do.

pub mod availability;
pub mod command;
pub mod config;
pub mod control;
pub mod data;
pub mod engine;
pub mod exit;
pub mod http;
pub mod principal;
pub mod quic;
