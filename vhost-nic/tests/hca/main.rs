//! The device as a guest's driver sees it, without a machine. See `common`.

#[path = "../common/mod.rs"]
mod common;

mod boot;
