//! The device as a guest's driver sees it, without a machine. See `common`.

#[path = "../common/mod.rs"]
mod common;

mod boot;
mod commands;
mod crowd;
mod delivery;
mod frames;
mod fuzzing;
mod lan;
mod life;
mod mistakes;
mod offloads;
mod port;
mod queues;
mod receive;
mod registers;
mod send;
mod syndromes;
