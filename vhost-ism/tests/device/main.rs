//! The device as a guest sees it, through vhost-user, without a machine. See `common`.

#[path = "../common/mod.rs"]
mod common;

mod areas;
mod attack;
mod capacity;
mod chaos;
mod config;
mod dmbs;
mod doorbells;
mod events;
mod faults;
mod findings;
mod fuzzing;
mod grants;
mod holders;
mod isolation;
mod life;
mod moves;
mod pause;
mod regions;
mod replay;
mod requests;
mod rings;
mod trace;
mod vmm;
