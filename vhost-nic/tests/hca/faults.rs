//! Faults of a plan, as the core of a driver sees them: events, interrupts, BAR 0, and completions of queues.

use std::sync::Arc;
use std::time::Duration;

use mlx5_prm::access_reg::{AccessRegisterIn, AccessRegisterOut};
use mlx5_prm::opcode::Opcode;
use mlx5_prm::queue_entry::{EventType, Syndrome};
use mlx5_prm::wqe::WqeOpcode;
use mlx5_test_driver::cq::error_of;
use mlx5_test_driver::domain::alloc_pd;
use mlx5_test_driver::hca::{ASYNC_VECTOR, Hca};
use mlx5_test_driver::machine::Machine;
use mlx5_test_driver::netdev::{Netdev, Options};
use mlx5_test_driver::sq::state;
use mlx5_test_driver::wait::eventually;
use vhost_daemon::fault::{Faults, Plan};
use vhost_nic::fault::{Doors, NicFault};
use vhost_nic::net::Switch;
use zerocopy::IntoBytes;

use crate::faulty::faulty_machine;
use crate::frames::plain;
use crate::inspect::Inspect;
use crate::lan::{self, shut};

/// Offsets in the initialization segment.
const HEALTH_SYNDROME: u64 = 0x23c;
const HEALTH_SEVERITY: u64 = 0x238;
const HEALTH_COUNTER: u64 = 0x1010;
const CMD_EXEC_TO: u64 = 0xff8;
const CMD_Q_INIT_TO: u64 = 0xffc;
/// Register of the default timeouts.
const DTOR: u16 = 0xc00e;

/// A guest whose doors take faults.
pub struct Faulty {
    pub machine: Arc<Machine>,
    doors: Doors,
    faults: Arc<Faults<NicFault>>,
}

impl Faulty {
    pub fn new() -> Self {
        Self::at(&Switch::new())
    }

    pub fn at(switch: &Arc<Switch>) -> Self {
        let faults = Faults::new(vec!["nic1".to_owned()]).unwrap();
        let (machine, doors) = faulty_machine(switch, 1, &faults);
        Self {
            machine: Arc::new(machine),
            doors,
            faults,
        }
    }

    pub fn apply(&self, plan: &str) {
        self.faults.apply(Plan::from_toml(plan).unwrap()).unwrap();
        self.doors.now();
    }

    pub fn strikes(&self) -> u64 {
        self.faults.report().iter().map(|rule| rule.strikes).sum()
    }
}

#[test]
fn asynchronous_events_without_a_cause() {
    let faulty = Faulty::new();
    let hca = Hca::boot(&faulty.machine);
    for (event, event_type) in [
        ("path_migrated", EventType::PathMigrated),
        ("wq_catastrophic_error", EventType::WqCatastrophicError),
        ("srq_catastrophic_error", EventType::SrqCatastrophicError),
    ] {
        faulty.apply(&format!(
            "[[fault]]\nkind = \"async_event\"\non = \"now\"\nevent = \"{event}\"\nnumber = 0x1234"
        ));
        let eqe = hca.wait_event(event_type);
        assert_eq!((eqe.sub_type, &eqe.data[24..]), (0, &0x1234_u32.to_be_bytes()[..]));
    }
    faulty.apply("[[fault]]\nkind = \"async_event\"\non = \"now\"\nevent = \"lid_change\"");
    let eqe = hca.wait_event(EventType::PortChange);
    assert_eq!((eqe.sub_type, eqe.data[8]), (6, 1 << 4));
    hca.shutdown();
}

#[test]
fn events_are_lost_late_and_repeated() {
    let faulty = Faulty::new();
    let hca = Hca::boot(&faulty.machine);
    let flap = "[[fault]]\nkind = \"link_flap\"\non = \"now\"\ndown = \"1ms\"\n";
    let port_change = EventType::PortChange as u8;
    let sub_types = |number| -> Vec<u8> {
        (0..number)
            .map(|_| hca.wait_event(EventType::PortChange).sub_type)
            .collect()
    };

    let fault = format!("[[fault]]\nkind = \"eqe_lost\"\nevent_type = {port_change}\ncount = 1");
    faulty.apply(&format!("{flap}{fault}"));
    assert_eq!(sub_types(1), [4], "the first was lost");

    let fault = format!("[[fault]]\nkind = \"eqe_duplicate\"\nevent_type = {port_change}\ncount = 1");
    faulty.apply(&format!("{flap}{fault}"));
    assert_eq!(sub_types(3), [1, 1, 4]);

    let fault = format!("[[fault]]\nkind = \"eqe_late\"\nevent_type = {port_change}\ncount = 1\ndelay = \"50ms\"");
    faulty.apply(&format!("{flap}{fault}"));
    assert_eq!(sub_types(2), [4, 1]);
    hca.shutdown();
}

#[test]
fn interrupts_are_lost_late_and_spurious() {
    let faulty = Faulty::new();
    let hca = Hca::boot(&faulty.machine);
    let interrupts = &faulty.machine.interrupts;
    let event = "[[fault]]\nkind = \"async_event\"\non = \"now\"\nevent = \"path_migrated\"\n";
    let seen = || interrupts.count(ASYNC_VECTOR);

    let before = seen();
    faulty.apply(&format!("{event}[[fault]]\nkind = \"interrupt_lost\"\ncount = 1"));
    hca.wait_event(EventType::PathMigrated);
    assert_eq!(seen(), before);

    faulty.apply(&format!(
        "{event}[[fault]]\nkind = \"interrupt_late\"\ncount = 1\ndelay = \"20ms\""
    ));
    hca.wait_event(EventType::PathMigrated);
    assert!(interrupts.wait(ASYNC_VECTOR, before, Duration::from_secs(10)));

    let before = seen();
    faulty.apply(&format!("{event}[[fault]]\nkind = \"interrupt_spurious\"\ncount = 1"));
    hca.wait_event(EventType::PathMigrated);
    eventually("the second interrupt", || seen() == before + 2);
    hca.shutdown();
}

#[test]
fn a_dead_bar_reads_all_ones_and_takes_no_writes() {
    let faulty = Faulty::new();
    let hca = Hca::boot(&faulty.machine);
    faulty.apply("[[fault]]\nkind = \"bar_dead\"");
    assert_eq!(faulty.machine.read(0), u32::MAX);
    assert_eq!(faulty.machine.read(HEALTH_COUNTER), u32::MAX);
    let command = hca.commands.prepare(&[0; 16], 16);
    hca.commands.post(7, &command);
    hca.commands.ring(1 << 7);
    assert_eq!(hca.commands.entry(7).status_own & 1, 1, "the doorbell was lost");
    faulty.apply("");
    assert_ne!(faulty.machine.read(0), u32::MAX);
    hca.shutdown();
}

#[test]
fn the_health_buffer_reports_any_syndrome() {
    let faulty = Faulty::new();
    assert_eq!(faulty.machine.read(HEALTH_SYNDROME), 0);
    faulty.apply("[[fault]]\nkind = \"health\"\nsyndrome = 0x8\nfatal = true");
    // irisc_index, synd, ext_synd.
    assert_eq!(faulty.machine.read(HEALTH_SYNDROME), 0x0008_0000);
    assert_eq!(faulty.machine.read(HEALTH_SEVERITY), 1 << 31);
    faulty.apply("[[fault]]\nkind = \"health_stuck\"");
    let counters = [0, 1].map(|_| {
        std::thread::sleep(Duration::from_millis(150));
        faulty.machine.read(HEALTH_COUNTER)
    });
    assert_eq!(counters[0], counters[1]);
    faulty.apply("");
    eventually("the counter advances", || {
        faulty.machine.read(HEALTH_COUNTER) != counters[0]
    });
}

#[test]
fn firmware_that_has_reported_a_fatal_error_has_nothing_until_it_is_set_up() {
    let switch = Switch::new();
    let faulty = Faulty::at(&switch);
    let mut guest = Netdev::open(&Arc::new(Hca::boot(&faulty.machine)), &Options::default());
    let mut peer = lan::guest(&switch, 2, &Options::default());
    let frame = plain(peer.hca.machine.mac, guest.hca.machine.mac, 100);
    peer.send(&frame);
    assert_eq!(guest.receive().frame, frame);
    faulty.apply("[[fault]]\nkind = \"health\"\nsyndrome = 0x8\nfatal = true");
    let nothing_left = |machine: &Machine| {
        let device = machine.device();
        device.objects().is_empty() && device.firmware_pages() == 0
    };
    assert!(!nothing_left(&faulty.machine), "the driver does not know yet");
    assert_eq!(faulty.machine.read(HEALTH_SEVERITY), 1 << 31);
    eventually("the end of the firmware", || nothing_left(&faulty.machine));
    // A driver may take its time until it knows what it has read.
    peer.send(&frame);
    guest.channels[0].sq.nop();
    let channel = &mut guest.channels[0];
    assert!(channel.receive_cq.poll().is_none() && channel.send_cq.poll().is_none());
    faulty.apply("");
    assert_eq!(faulty.machine.read(HEALTH_SYNDROME), 0x0008_0000);
    // The driver drops everything without commands, and begins anew.
    drop(guest);
    let mut guest = Netdev::open(&Arc::new(Hca::boot(&faulty.machine)), &Options::default());
    assert_eq!(faulty.machine.read(HEALTH_SYNDROME), 0);
    peer.send(&frame);
    assert_eq!(guest.receive().frame, frame);
    shut(guest);
    shut(peer);
    let found = faulty.machine.nic().snapshot().guest_errors;
    assert!(found.is_empty(), "{found:?}");
}

#[test]
fn the_time_limit_of_commands_is_that_of_the_plan() {
    let faulty = Faulty::new();
    let limits = || [CMD_EXEC_TO, CMD_Q_INIT_TO].map(|offset| faulty.machine.read(offset));
    assert_eq!(limits(), [0; 2], "the driver's own");
    for (limit, milliseconds) in [("5s", 5000), ("1500us", 1), ("2h", 0xf_ffff)] {
        faulty.apply(&format!("[[fault]]\nkind = \"command_timeout\"\nlimit = \"{limit}\""));
        assert_eq!(limits(), [milliseconds; 2], "{limit}");
        assert_eq!(faulty.strikes(), 2);
    }
    // A driver that finds them reads all others as well; those are 0, its own.
    let hca = Hca::boot(&faulty.machine);
    let mut input = AccessRegisterIn::default();
    input.set_register_id(DTOR);
    let (_, timeouts): (AccessRegisterOut, _) = hca
        .commands
        .call_with(Opcode::ACCESS_REG, 1, &input, &[0; 0x3c], 0x3c)
        .unwrap();
    assert_eq!(timeouts, [0; 0x3c]);
    hca.shutdown();
    faulty.apply("");
    assert_eq!(limits(), [0; 2]);
}

#[test]
fn the_function_is_reset_with_the_driver_unaware() {
    let faulty = Faulty::new();
    let hca = Hca::boot(&faulty.machine);
    alloc_pd(&hca).unwrap();
    faulty.apply("[[fault]]\nkind = \"function_reset\"\non = \"register\"\ncount = 1");
    faulty.machine.read(0);
    eventually("all objects are gone", || hca.machine.device().objects().is_empty());
    // Memory decoding is off, as after power-on.
    eventually("the BAR is not decoded", || faulty.machine.read(0) == u32::MAX);
}

#[test]
fn firmware_requests_pages_again_and_again() {
    let faulty = Faulty::new();
    let hca = Hca::boot(&faulty.machine);
    faulty.apply("[[fault]]\nkind = \"page_request_storm\"\non = \"now\"\npages = 3\nrequests = 5");
    for _ in 0..5 {
        let eqe = hca.wait_page_event();
        assert_eq!(eqe.data[..8], [0, 0, 0, 0, 0, 0, 0, 3]);
    }
    hca.shutdown();
}

/// An error CQE for one queue, which leaves others alone.
fn error_cqe(queue: u32) -> String {
    format!("[[fault]]\nkind = \"cqe_error\"\nsyndrome = 0x22\nvendor_syndrome = 0x68\ncount = 1\nqueue = {queue}")
}

#[test]
fn an_error_cqe_of_a_receive_queue_is_followed_by_its_error_state_until_the_driver_recovers_it() {
    let switch = Switch::new();
    let faulty = Faulty::at(&switch);
    let mut guest = Netdev::open(&Arc::new(Hca::boot(&faulty.machine)), &Options::default());
    let mut peer = lan::guest(&switch, 2, &Options::default());
    let frame = plain(peer.hca.machine.mac, guest.hca.machine.mac, 100);
    let number = guest.channels[0].rq.number;
    faulty.apply(&error_cqe(number));
    peer.send(&frame);
    let channel = &mut guest.channels[0];
    let cqe = channel.receive_cq.wait();
    channel.receive_cq.release();
    assert_eq!(error_of(&cqe), Some((Syndrome::RemoteAborted as u8, 0)));
    assert_eq!(cqe.sop_drop_qpn.get(), number);
    // The state when the driver looks for the first time, as it does before it recovers the queue.
    assert_eq!(channel.rq.query(&guest.hca).unwrap().state(), state::ERROR);
    peer.send(&frame);
    assert!(channel.receive_cq.poll().is_none(), "an RQ in error receives nothing");
    channel.rq.modify(&guest.hca, state::ERROR, state::RESET).unwrap();
    channel.rq.forget();
    channel.rq.modify(&guest.hca, state::RESET, state::READY).unwrap();
    channel.rq.fill();
    peer.send(&frame);
    assert_eq!(guest.receive().frame, frame);
    shut(guest);
    shut(peer);
}

#[test]
fn an_error_cqe_of_a_send_queue_is_followed_by_its_error_state_until_the_driver_recovers_it() {
    let faulty = Faulty::new();
    let mut guest = Netdev::open(&Arc::new(Hca::boot(&faulty.machine)), &Options::default());
    let channel = &mut guest.channels[0];
    faulty.apply(&error_cqe(channel.sq.number));
    let failed = channel.sq.nop();
    let cqe = channel.send_cq.wait();
    assert_eq!(error_of(&cqe), Some((Syndrome::RemoteAborted as u8, failed)));
    assert_eq!(channel.sq.query(&guest.hca).unwrap().state(), state::ERROR);
    // The driver recovers the queue when it is empty.
    let flushed = channel.sq.nop();
    assert_eq!(
        error_of(&channel.send_cq.wait()),
        Some((Syndrome::WrFlush as u8, flushed))
    );
    channel.sq.modify(&guest.hca, state::ERROR, state::RESET).unwrap();
    channel.sq.forget();
    channel.sq.modify(&guest.hca, state::RESET, state::READY).unwrap();
    let sent = channel.sq.nop();
    let cqe = channel.send_cq.wait();
    assert_eq!((error_of(&cqe), cqe.wqe_counter.get()), (None, sent));
    channel.send_cq.release();
    shut(guest);
}

#[test]
fn the_flush_of_a_send_queue_goes_on_behind_a_wqe_that_could_not_be_read() {
    // The first access is the fetch, all others those of the flush.
    for failures in [1, 4] {
        let faulty = Faulty::new();
        let mut guest = Netdev::open(&Arc::new(Hca::boot(&faulty.machine)), &Options::default());
        let channel = &mut guest.channels[0];
        faulty.apply(&format!(
            "[[fault]]\nkind = \"dma_failed\"\npurpose = \"send_wqe\"\ncount = {failures}"
        ));
        let mut last = Vec::new();
        let counters = [(); 3].map(|()| {
            let control = channel.sq.control(WqeOpcode::Nop as u8, 11 * 16, false);
            last = control.as_bytes().to_vec();
            last.resize(11 * 16, 0);
            channel.sq.put(&last)
        });
        assert_eq!(counters, [0, 3, 6], "each takes three basic blocks");
        channel.sq.ring(*last.first_chunk().unwrap());
        let errors = counters.map(|_| error_of(&channel.send_cq.wait()).unwrap());
        let [unread, flushed] = [Syndrome::LocalProtection, Syndrome::WrFlush].map(|syndrome| syndrome as u8);
        assert_eq!(errors, [(unread, 0), (flushed, 3), (flushed, 6)]);
        let late = channel.sq.nop();
        assert_eq!(error_of(&channel.send_cq.wait()), Some((flushed, late)));
        assert!(channel.send_cq.poll().is_none(), "more completions than entries");
        assert_eq!(faulty.strikes(), failures);
        let hca = Arc::clone(&guest.hca);
        guest.close();
        Arc::into_inner(hca).unwrap().shutdown();
    }
}

#[test]
fn a_completion_queue_ends_when_it_seems_full_and_its_doorbell_record_cannot_be_read() {
    let faulty = Faulty::new();
    let options = Options {
        log_cq: 2,
        ..Options::default()
    };
    let mut guest = Netdev::open(&Arc::new(Hca::boot(&faulty.machine)), &options);
    let channel = &mut guest.channels[0];
    for _ in 0..4 {
        channel.sq.nop();
        channel.send_cq.wait();
    }
    // The record says that there is room.
    channel.send_cq.release();
    // Behind the record of the send queue.
    faulty.apply("[[fault]]\nkind = \"dma_failed\"\npurpose = \"doorbell_record\"\nskip = 1\ncount = 1");
    channel.sq.nop();
    let number = channel.send_cq.number;
    let event = guest.hca.wait_event(EventType::CqError);
    assert_eq!(event.data[..4], number.to_be_bytes());
    assert_eq!(event.data[11], 2, "access violation");
    let channel = &mut guest.channels[0];
    assert_eq!(channel.send_cq.query(&guest.hca).unwrap().status(), 0xa);
    let number = channel.sq.number;
    channel.sq.nop();
    let event = guest.hca.wait_event(EventType::WqCatastrophicError);
    assert_eq!((event.data[20], &event.data[24..]), (2, &number.to_be_bytes()[..]));
    let channel = &mut guest.channels[0];
    assert!(channel.send_cq.poll().is_none(), "a CQ in error takes no completions");
    let guest_errors = faulty.machine.nic().snapshot().guest_errors;
    assert_eq!(
        guest_errors.get("unreadable_doorbell_record"),
        Some(&1),
        "{guest_errors:?}"
    );
    assert_eq!(guest_errors.get("cq_overrun"), None);
    let hca = Arc::clone(&guest.hca);
    guest.close();
    Arc::into_inner(hca).unwrap().shutdown();
}
