//! `in-guest`: the caller's command in guests.

mod commands;
mod devices;
mod failures;
mod fixture;
mod kernels;
mod packages;
mod recipes;
