//! RDMA between two guests as their drivers see it, without machines, over a wire that can lose packets. See `common`.

#[path = "../common/mod.rs"]
mod common;

mod blue_flame;
mod counters;
mod errors;
mod fuzzing;
mod hot;
mod inline;
mod loss;
mod mappings;
mod operations;
mod pair;
mod programs;
mod services;
mod super_packets;
mod timestamps;
mod turns;
mod wire;
mod xrc;
