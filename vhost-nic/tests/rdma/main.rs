//! RDMA between two guests as their drivers see it, without machines, over a wire that can lose packets. See `common`.

#[path = "../common/mod.rs"]
mod common;

mod blue_flame;
mod errors;
mod hot;
mod inline;
mod loss;
mod operations;
mod pair;
mod programs;
mod services;
mod wire;
