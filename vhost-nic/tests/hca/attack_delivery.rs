//! Deliveries that a receiver draws out, and what their senders have to do with it.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak, mpsc};
use std::thread;
use std::time::Duration;

use mlx5_prm::opcode::Opcode;
use mlx5_prm::queue_entry::Syndrome;
use mlx5_prm::wq::{DestroySqIn, DestroySqOut, ModifySqIn, ModifySqOut};
use mlx5_test_driver::cq::error_of;
use mlx5_test_driver::hca::Hca;
use mlx5_test_driver::netdev::{Netdev, Options};
use mlx5_test_driver::sq::{Request, state};
use mlx5_test_driver::wait::eventually;
use parking_lot::Mutex;
use vhost_nic::net::{Frame, Port, Switch, SwitchPort};

use crate::frames::plain;
use crate::inspect::Inspect;
use crate::lan::{guest, shut};

/// Time after which a command counts as one that waits for the delivery.
const HUNG: Duration = Duration::from_secs(10);

type Act = Box<dyn FnOnce() + Send>;

/// A receiver that does something before it has a frame.
struct Receiver {
    _port: SwitchPort,
    act: Mutex<Option<Act>>,
    frames: Mutex<Vec<Vec<u8>>>,
}

impl Receiver {
    fn new(switch: &Arc<Switch>) -> Arc<Self> {
        Arc::new_cyclic(|own: &Weak<Self>| Self {
            _port: switch.attach("receiver", own.clone()),
            act: Mutex::default(),
            frames: Mutex::default(),
        })
    }
}

impl Port for Receiver {
    fn receive(&self, frame: Frame<'_>) {
        let act = self.act.lock().take();
        act.into_iter().for_each(|act| act());
        self.frames.lock().push(frame.to_bytes().unwrap().into_owned());
    }
}

/// A guest whose first of two frames is under way to a receiver.
struct UnderWay {
    guest: Netdev,
    receiver: Arc<Receiver>,
    frames: [Vec<u8>; 2],
}

/// Posts two frames at once; when the first is under way, `command` is executed on another thread and must return
/// before the frame arrives.
fn under_way(command: impl FnOnce(&Hca, u32) + Send + 'static) -> UnderWay {
    let switch = Switch::new();
    let receiver = Receiver::new(&switch);
    let mut guest = guest(&switch, 1, &Options::default());
    let (hca, number) = (guest.hca.clone(), guest.channels[0].sq.number);
    let (outcome, result) = mpsc::channel();
    *receiver.act.lock() = Some(Box::new(move || {
        let (returned, wait) = mpsc::channel();
        thread::spawn(move || {
            command(&hca, number);
            drop(hca);
            let _ = returned.send(());
        });
        let _ = outcome.send(wait.recv_timeout(HUNG).is_ok());
    }));
    let frames = [1, 2].map(|last| plain(guest.hca.machine.mac, [2, 0, 0, 0, 0, last], 100));
    let places = frames.each_ref().map(|frame| guest.place(frame));
    let sq = &mut guest.channels[0].sq;
    let mut last = [0; 8];
    for place in &places {
        let wqe = sq.wqe(&Request {
            data: &[(place.address(), 100)],
            ..Request::default()
        });
        last = *wqe.first_chunk().unwrap();
        sq.put(&wqe);
    }
    sq.ring(last);
    assert!(result.recv().unwrap(), "the command waits for the receiver");
    UnderWay {
        guest,
        receiver,
        frames,
    }
}

fn modify(hca: &Hca, number: u32, from: u8, to: u8) {
    let mut input = ModifySqIn::default();
    input.set_sqn(number);
    input.set_sq_state(from);
    input.ctx_mut().set_state(to);
    hca.commands.call::<_, ModifySqOut>(Opcode::MODIFY_SQ, &input).unwrap();
}

#[test]
fn a_send_queue_is_reset_while_its_frame_is_delivered() {
    let UnderWay {
        mut guest,
        receiver,
        frames,
    } = under_way(|hca, number| modify(hca, number, state::READY, state::RESET));
    eventually("the frame under way", || receiver.frames.lock().len() == 1);
    guest.channels[0].sq.forget();
    modify(&guest.hca, guest.channels[0].sq.number, state::RESET, state::READY);
    let next = plain(guest.hca.machine.mac, [2, 0, 0, 0, 0, 3], 200);
    let cqe = guest.send_with(&next, Request::default());
    assert_eq!(cqe.wqe_counter.get(), 0, "the first WQE after the reset");
    assert_eq!(*receiver.frames.lock(), [frames[0].clone(), next]);
    assert!(guest.channels[0].send_cq.poll().is_none());
    shut(guest);
}

#[test]
fn a_send_queue_moves_to_the_error_state_while_its_frame_is_delivered() {
    let UnderWay {
        mut guest,
        receiver,
        frames,
    } = under_way(|hca, number| modify(hca, number, state::READY, state::ERROR));
    let cq = &mut guest.channels[0].send_cq;
    let sent = cq.wait();
    assert_eq!((error_of(&sent), sent.wqe_counter.get()), (None, 0));
    let flushed = cq.wait();
    assert_eq!(
        error_of(&flushed).map(|(syndrome, _)| syndrome),
        Some(Syndrome::WrFlush as u8)
    );
    cq.release();
    assert_eq!(*receiver.frames.lock(), frames[..1]);
    shut(guest);
}

#[test]
fn a_send_queue_is_destroyed_while_its_frame_is_delivered() {
    let UnderWay {
        mut guest,
        receiver,
        frames,
    } = under_way(|hca, number| {
        let mut input = DestroySqIn::default();
        input.set_sqn(number);
        hca.commands
            .call::<_, DestroySqOut>(Opcode::DESTROY_SQ, &input)
            .unwrap();
    });
    let machine = guest.hca.machine.clone();
    // Waits for the sender's thread.
    machine.device().reset();
    assert_eq!(*receiver.frames.lock(), frames[..1]);
    assert!(guest.channels[0].send_cq.poll().is_none());
    assert_eq!(machine.nic().snapshot().guest_errors, BTreeMap::new());
}
