//! Two guests of a daemon, one after the other on each of its sockets, exchange frames over vfio-user:
//!
//! `exchange A.sock B.sock`, the sockets of guests with the default MAC addresses of the first two

use std::env;
use std::path::PathBuf;

use mlx5_test_driver::vfio_user::boot;

const FIRST_MAC: [u8; 6] = [0x52, 0x54, 0, 0, 0xc5, 1];
const SECOND_MAC: [u8; 6] = [0x52, 0x54, 0, 0, 0xc5, 2];
const VMS: u8 = 3;

fn main() {
    let sockets: Vec<PathBuf> = env::args_os().skip(1).map(PathBuf::from).collect();
    let [a, b] = &sockets[..] else {
        panic!("usage: exchange A.sock B.sock");
    };
    for vm in 0..VMS {
        let (mut first, mut second) = (boot(a, FIRST_MAC), boot(b, SECOND_MAC));
        first.send_to(&mut second, vm);
        second.send_to(&mut first, vm);
        first.shut_down();
        second.shut_down();
    }
    println!("{VMS} guests on each socket, {} frames compared", 2 * VMS);
}
