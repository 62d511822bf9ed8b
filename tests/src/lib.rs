//! Nothing is here: the tests are in `all.rs`, which is also their index.
