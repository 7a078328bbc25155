//! Records of commands and Ethernet, and their replay.

use std::sync::Arc;
use std::time::Duration;

use mlx5_prm::queue_entry::EventType;
use mlx5_prm::wqe::EthernetSegment;
use mlx5_test_driver::command::CommandError;
use mlx5_test_driver::cqe_session::MiniFormat;
use mlx5_test_driver::domain::{alloc_pd, dealloc_pd};
use mlx5_test_driver::fuzz::{commands, iterations};
use mlx5_test_driver::hca::Hca;
use mlx5_test_driver::netdev::{Netdev, Options};
use mlx5_test_driver::sq::Request;
use mlx5_test_driver::wait::eventually;
use vhost_daemon::fault::{Faults, Plan};
use vhost_daemon::record::Turns;
use vhost_daemon::record::{Begun, OrderError};
use vhost_nic::net::Switch;
use vhost_nic::pci::Identity;
use vhost_nic::record::{Entry, Event, Order, Reader, Recorder, Setup};

use crate::cqe_compression::{self, Wire};
use crate::frames::Packet;
use crate::lan::shut;
use crate::nic::{VECTORS, config};
use crate::receive::packet;
use crate::recorded::{Recording, behind, equal, faulty_recorded_machine, recorded_machine};

/// Offset in the initialization segment.
const HEALTH_SYNDROME: u64 = 0x23c;

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
fn compressed_completions_are_replayed_title_last() {
    let switch = Switch::new();
    let (machine, recording) = recorded_machine(&switch, 1, &Arc::default(), |_| {});
    let options = cqe_compression::options(MiniFormat::Checksum);
    let mut b = Netdev::open(&Arc::new(Hca::boot(&Arc::new(machine))), &options);
    let wire = Wire::at(&switch);
    let bursts = [20, 2, 3, 70];
    for count in bursts {
        let frames = cqe_compression::flow(&b, count);
        wire.send(&frames);
        for frame in &frames {
            assert_eq!(b.receive().frame, *frame);
        }
    }
    assert_eq!(b.channels[0].receive_cq.compressed().sessions, 4);
    let (pages, _) = b.channels[0].receive_cq.addresses();
    shut(b);
    let record = recording.finish();
    let report = equal(&record);
    assert_eq!(report.counts.frames_in, bursts.iter().sum::<usize>() as u64);

    let (mut reader, mut writes) = (Reader::new(&record[..]).unwrap(), Vec::new());
    loop {
        match reader.next_event().unwrap() {
            Event::End => break,
            Event::MemoryWrite { address, data, .. } if address & !0xfff == pages[0] => {
                writes.push((address - pages[0], data.len()));
            }
            _ => {}
        }
    }
    // Of the first session: three arrays, then the title, whose owner bit is in the last word.
    let session = [(64, 64), (8 * 64, 64), (16 * 64, 64), (0, 60), (60, 4)];
    assert_eq!(writes[..5], session);
    // Two completions are not worth a session.
    assert_eq!(
        writes[5..9],
        [20, 21].map(|slot| [(64 * slot, 60), (64 * slot + 60, 4)]).concat()
    );
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

#[test]
fn faults_of_commands_events_interrupts_and_registers_are_replayed() {
    let faults = Faults::new(vec!["nic1".to_owned()]).unwrap();
    let (machine, recording, doors) = faulty_recorded_machine(&Switch::new(), 1, &Arc::default(), &faults);
    let machine = Arc::new(machine);
    let hca = Hca::boot(&machine);
    let apply = |plan: &str| {
        faults.apply(Plan::from_toml(plan).unwrap()).unwrap();
        doors.now();
    };
    apply("[[fault]]\nkind = \"command_refused\"\nopcode = \"ALLOC_PD\"\ncount = 1\nstatus = 0xf\nsyndrome = 0x123456");
    assert_eq!(alloc_pd(&hca), Err(CommandError::Refused(0xf, 0x12_3456)));
    apply("[[fault]]\nkind = \"command_late\"\nopcode = \"ALLOC_PD\"\ncount = 1\ndelay = \"20ms\"");
    let late = alloc_pd(&hca).unwrap();
    apply("[[fault]]\nkind = \"reserved_bits\"\nopcode = \"ALLOC_PD\"");
    let random = alloc_pd(&hca).unwrap();
    apply("");
    for pd in [late, random] {
        dealloc_pd(&hca, pd).unwrap();
    }

    let flap = "[[fault]]\nkind = \"link_flap\"\non = \"now\"\ndown = \"1ms\"\n";
    let port_change = EventType::PortChange as u8;
    let of_port = |kind: &str| format!("{flap}[[fault]]\nkind = \"eqe_{kind}\"\nevent_type = {port_change}\ncount = 1");
    for (plan, sub_types) in [
        (of_port("lost"), &[4][..]),
        (of_port("duplicate"), &[1, 1, 4]),
        (of_port("late\"\ndelay = \"20ms"), &[4, 1]),
    ] {
        apply(&plan);
        for sub_type in sub_types {
            assert_eq!(hca.wait_event(EventType::PortChange).sub_type, *sub_type);
        }
    }
    let event = "[[fault]]\nkind = \"async_event\"\non = \"now\"\nevent = \"path_migrated\"\n";
    for kind in ["lost\"", "late\"\ndelay = \"5ms\"", "spurious\""] {
        apply(&format!("{event}[[fault]]\ncount = 1\nkind = \"interrupt_{kind}"));
        hca.wait_event(EventType::PathMigrated);
    }
    apply("[[fault]]\nkind = \"bar_dead\"\ncount = 1\n[[fault]]\nkind = \"health\"\nsyndrome = 8");
    assert_eq!(machine.read(0), u32::MAX);
    assert_eq!(machine.read(HEALTH_SYNDROME), 0x0008_0000);
    apply("[[fault]]\nkind = \"function_reset\"\non = \"register\"\ncount = 1");
    machine.read(0);
    eventually("all objects are gone", || machine.device().objects().is_empty());
    apply("");
    eventually("the BAR is not decoded", || machine.read(0) == u32::MAX);

    let record = recording.finish();
    equal(&record);
    let mut reader = Reader::new(&record[..]).unwrap();
    let mut struck = Vec::new();
    loop {
        match reader.next_event().unwrap() {
            Event::End => break,
            Event::Strike { fault, .. } => struck.push(fault.split('"').nth(3).unwrap().to_owned()),
            _ => {}
        }
    }
    let expected = [
        "command_refused",
        "command_late",
        "reserved_bits",
        "eqe_lost",
        "eqe_duplicate",
        "eqe_late",
        "bar_dead",
        "health",
    ];
    assert_eq!(struck, expected);
}

#[test]
fn a_record_on_demand_begins_with_a_nic_without_state() {
    let setup = Setup::new(&config(1), Identity::default(), VECTORS);
    let recorder = Recorder::on_demand(Arc::default(), &setup);
    let machine = Arc::new(behind(&recorder, &Switch::new(), config(1)));
    let file = tempfile::tempfile().unwrap();
    let order = || -> Result<Order, OrderError> {
        Ok(Order {
            file: file.try_clone().unwrap(),
            setup: setup.clone(),
            restore: Box::new(|| ()),
        })
    };
    // A driver that leaves objects behind, and changes what a reset leaves.
    let hca = Hca::boot(&machine);
    let left = alloc_pd(&hca).unwrap();
    let begin = || recorder.begin(order, || panic!("the NIC is in use"));
    assert_eq!(begin(), Ok(Begun::Later));
    assert_eq!(begin(), Err(OrderError::Ordered));
    alloc_pd(&hca).unwrap();
    machine.device().power_cycle();
    assert_eq!(begin(), Err(OrderError::Recorded));
    // The next VMM.
    machine.device().connect(Arc::clone(&machine.interrupts));
    machine.enable();
    let hca = Hca::boot(&machine);
    assert_eq!(alloc_pd(&hca), Ok(left), "numbers begin anew");
    hca.machine.device().reset();
    let recording = Recording { recorder, file };
    let record = recording.finish();
    let report = equal(&record);
    assert!(report.counts.commands > 10, "{report}");
    let first = Reader::new(&record[..]).unwrap().next_event().unwrap();
    assert_eq!(first, Event::Enter(Entry::PowerCycle));
}
