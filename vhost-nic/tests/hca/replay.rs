//! Records of commands and Ethernet, and their replay.

use std::sync::Arc;
use std::time::Duration;

use mlx5_prm::wqe::EthernetSegment;
use mlx5_test_driver::fuzz::commands;
use mlx5_test_driver::hca::Hca;
use mlx5_test_driver::netdev::{Netdev, Options};
use mlx5_test_driver::sq::Request;
use vhost_nic::net::Switch;
use vhost_nic::record::Turns;

use crate::frames::Packet;
use crate::lan::shut;
use crate::receive::packet;
use crate::recorded::{Recording, equal, recorded_machine};

#[test]
fn frames_with_offloads_are_replayed() {
    let (switch, turns) = (Switch::new(), Arc::<Turns>::default());
    let [(mut a, of_a), (mut b, of_b)] = [1, 2].map(|number| {
        let (machine, recording) = recorded_machine(&switch, number, &turns, |_| {});
        let hca = Arc::new(Hca::boot(&Arc::new(machine)));
        (Netdev::open(&hca, &Options::default()), recording)
    });
    const FRAMES: u64 = 20;
    for length in 0..FRAMES {
        let kind = Packet {
            length: 40 * length as usize,
            ..packet(&a, &b)
        };
        let sent = kind.build();
        let checksums = EthernetSegment::L3_CSUM | EthernetSegment::L4_CSUM;
        a.send_with(
            &sent,
            Request {
                checksums,
                ..Request::default()
            },
        );
        assert_eq!(b.receive().frame[..sent.len()], sent);
    }
    shut(a);
    shut(b);
    let [a, b] = [of_a, of_b].map(|recording| equal(&recording.finish()));
    assert_eq!((a.frames_out, b.frames_in), (FRAMES, FRAMES));
    assert_eq!((a.frames_in, b.frames_out), (0, 0));
}

#[test]
fn random_commands_are_replayed() {
    for seed in 0..20 {
        let mut random = fastrand::Rng::with_seed(seed);
        let input: Vec<u8> = (0..4000).map(|_| random.u8(..)).collect();
        let (machine, recording) = recorded_machine(&Switch::new(), 1, &Arc::default(), |config| {
            config.blue_flame = (seed % 2 == 0).then_some(Duration::from_millis(1));
        });
        let tally = commands::run(machine, &input);
        let report = equal(&Recording::finish(recording));
        assert!(report.commands >= tally.made as u64, "{report}");
    }
}
