//! The `vhost-nic` daemon.

fn main() {}
