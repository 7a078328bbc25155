//! Driver load and unload.

use std::sync::Arc;

use mlx5_test_driver::hca::Hca;
use mlx5_test_driver::netdev::{Netdev, Options};
use vhost_nic::net::Switch;

use crate::inspect::Inspect;
use crate::nic::machine;

#[test]
fn an_adapter_boots_and_leaves_nothing_behind() {
    let machine = Arc::new(machine(&Switch::new(), 1));
    for _ in 0..3 {
        let hca = Hca::boot(&machine);
        assert_eq!(machine.nic().snapshot().objects.get("eq"), Some(&3));
        hca.shutdown();
    }
    assert_eq!(machine.memory.used(), 0, "the driver has its memory back");
}

#[test]
fn an_interface_comes_up_and_leaves_nothing_behind() {
    let machine = Arc::new(machine(&Switch::new(), 1));
    for channels in [1, 4] {
        let hca = Arc::new(Hca::boot(&machine));
        let netdev = Netdev::open(
            &hca,
            &Options {
                channels,
                ..Options::default()
            },
        );
        assert!(netdev.link_up());
        netdev.close();
        Arc::into_inner(hca).unwrap().shutdown();
    }
    assert_eq!(machine.nic().snapshot().guest_errors, Default::default());
    assert_eq!(machine.memory.used(), 0, "the driver has its memory back");
}
