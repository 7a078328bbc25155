//! Records of commands and Ethernet, and their replay.

use std::sync::Arc;
use std::time::Duration;

use mlx5_prm::wqe::EthernetSegment;
use mlx5_test_driver::fuzz::{commands, iterations};
use mlx5_test_driver::hca::Hca;
use mlx5_test_driver::netdev::{Netdev, Options};
use mlx5_test_driver::sq::Request;
use vhost_daemon::record::Turns;
use vhost_nic::net::Switch;
use vhost_nic::record::Recorder;

use crate::frames::Packet;
use crate::lan::shut;
use crate::nic::config;
use crate::receive::packet;
use crate::recorded::{behind, equal, recorded_machine};

#[test]
fn frames_with_offloads_are_replayed() {
    let (switch, turns) = (Switch::new(), Arc::<Turns>::default());
    let open = |machine| Netdev::open(&Arc::new(Hca::boot(&Arc::new(machine))), &Options::default());
    let (sender, of_sender) = recorded_machine(&switch, 1, &turns, |_| {});
    let (receiver, of_receiver) = recorded_machine(&switch, 2, &turns, |_| {});
    let (mut a, mut b) = (open(sender), open(receiver));
    // A third guest, that is not recorded, sends and receives as well.
    let mut other = open(behind(&Recorder::turns_only(turns.clone(), "nic3"), &switch, config(3)));
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
        let sent = packet(&other, &b).build();
        other.send(&sent);
        assert_eq!(b.receive().frame[..sent.len()], sent);
        let sent = packet(&b, &other).build();
        b.send(&sent);
        assert_eq!(other.receive().frame[..sent.len()], sent);
    }
    [a, b, other].into_iter().for_each(shut);
    let [a, b] = [of_sender, of_receiver].map(|recording| equal(&recording.finish()));
    assert_eq!((b.counts.frames_in, b.counts.frames_out), (2 * FRAMES, FRAMES));
    // The first frame between the other two is flooded.
    assert_eq!((a.counts.frames_in, a.counts.frames_out), (1, FRAMES));
}

#[test]
fn random_commands_are_replayed() {
    for seed in 0..iterations(200) {
        let mut random = fastrand::Rng::with_seed(seed);
        let input: Vec<u8> = (0..4000).map(|_| random.u8(..)).collect();
        let (machine, recording) = recorded_machine(&Switch::new(), 1, &Arc::default(), |config| {
            config.blue_flame = (seed % 2 == 0).then_some(Duration::from_millis(1));
        });
        let tally = commands::run(machine, &input);
        let report = equal(&recording.finish());
        assert!(report.counts.commands >= tally.made as u64, "{report}");
    }
}
