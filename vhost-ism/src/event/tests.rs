use super::*;
use crate::abi::EV_MESSAGE;
use vhost_daemon::trace::Tracer;
use zerocopy::FromBytes;

/// A ring with a given number of posted buffers, and the events delivered.
#[derive(Clone, Default)]
struct Fake(Arc<Mutex<FakeState>>);

#[derive(Default)]
struct FakeState {
    posted: VecDeque<usize>,
    sent: Vec<Vec<u8>>,
    signals: usize,
    awaited: bool,
}

impl EventRing for Fake {
    fn send(&mut self, event: &mut dyn FnMut(usize) -> Vec<u8>) -> Sent {
        let mut state = self.0.lock();
        let Some(capacity) = state.posted.pop_front() else {
            return Sent::None;
        };
        let event = event(capacity);
        assert!(event.len() <= capacity);
        state.sent.push(event.clone());
        match event.is_empty() {
            true => Sent::Short(vec![capacity as u8]),
            false => Sent::Filled,
        }
    }
    fn signal(&mut self) -> bool {
        self.0.lock().signals += 1;
        true
    }
    fn await_buffers(&mut self) -> bool {
        self.0.lock().awaited = true;
        false
    }
}

fn sink(posted: &[usize]) -> (Arc<EventSink>, Fake) {
    let fake = Fake::default();
    fake.0.lock().posted.extend(posted);
    let sink = Arc::new(EventSink::new(Arc::new(GuestStats::new(
        "test".into(),
        Tracer::default(),
    ))));
    sink.open(Box::new(fake.clone()));
    (sink, fake)
}

fn chunks(event: &[u8]) -> Vec<u32> {
    let (head, rest) = DoorbellsEvent::read_from_prefix(event).unwrap();
    assert_eq!(head.ev_type.get(), EV_DOORBELLS);
    assert_eq!(rest.len(), head.count.get() as usize * 4);
    rest.chunks(4)
        .map(|c| u32::from_le_bytes(c.try_into().unwrap()))
        .collect()
}

#[test]
fn rings_coalesce_while_no_buffer_is_posted() {
    let (sink, fake) = sink(&[]);
    for _ in 0..10 {
        sink.ring(&[7, 3], 0);
    }
    assert!(fake.0.lock().awaited, "the driver is asked to kick for new buffers");
    fake.0.lock().posted.push_back(256);
    sink.flush();
    let state = fake.0.lock();
    assert_eq!(state.sent.len(), 1);
    assert_eq!(chunks(&state.sent[0]), [3, 7]);
    assert_eq!(state.signals, 1);
}

#[test]
fn more_rings_than_fit_take_more_buffers() {
    let (sink, fake) = sink(&[64; 8]);
    let rung: Vec<u32> = (0..30).collect();
    sink.ring(&rung, 0);
    let state = fake.0.lock();
    let got: Vec<u32> = state.sent.iter().flat_map(|e| chunks(e)).collect();
    assert_eq!(got, rung);
    assert_eq!(state.sent.len(), 3);
    assert_eq!(state.signals, 1, "one interrupt for all of them");
}

#[test]
fn a_short_buffer_loses_nothing() {
    let (sink, fake) = sink(&[8, 256]);
    sink.expect_departure();
    sink.peer_gone(Gid([9; 16]));
    let state = fake.0.lock();
    assert_eq!(state.sent.len(), 2);
    assert!(state.sent[0].is_empty());
    let event = PeerGoneEvent::read_from_bytes(&state.sent[1]).unwrap();
    assert_eq!(event.gid, Gid([9; 16]));
    assert_eq!(sink.stats.findings().count(Finding::ShortEventBuffer), 1);
}

#[test]
fn messages_wait_up_to_a_bound() {
    let (sink, fake) = sink(&[]);
    let message = MessageEvent {
        ev_type: EV_MESSAGE.into(),
        gid: Gid([1; 16]),
        code: 5.into(),
        reserved: 0.into(),
        info: 6.into(),
    };
    for _ in 0..MAX_MESSAGES {
        sink.message(message).unwrap();
    }
    assert_eq!(sink.message(message), Err(Full));
    fake.0.lock().posted.extend([256; 2 * MAX_MESSAGES]);
    sink.message(message).unwrap();
    assert_eq!(fake.0.lock().sent.len(), MAX_MESSAGES + 1);
}

#[test]
fn a_closed_sink_drops_what_comes() {
    let (sink, fake) = sink(&[256]);
    sink.close();
    sink.ring(&[1], 0);
    sink.peer_gone(Gid([1; 16]));
    assert!(fake.0.lock().sent.is_empty());
}

#[test]
fn what_comes_while_the_device_is_stopped_waits() {
    let (sink, fake) = sink(&[256; 4]);
    sink.park();
    sink.ring(&[5], 0);
    sink.expect_departure();
    sink.peer_gone(Gid([1; 16]));
    assert!(fake.0.lock().sent.is_empty());
    sink.open(Box::new(fake.clone()));
    let sent = fake.0.lock().sent.clone();
    assert_eq!(sent.len(), 2);
    assert_eq!(chunks(&sent[1]), [5]);
}

fn message(sender: u8, code: u32) -> MessageEvent {
    MessageEvent {
        ev_type: EV_MESSAGE.into(),
        gid: Gid([sender; 16]),
        code: code.into(),
        reserved: 0.into(),
        info: 6.into(),
    }
}

fn codes(fake: &Fake) -> Vec<u32> {
    let sent = std::mem::take(&mut fake.0.lock().sent);
    let code = |event: &Vec<u8>| MessageEvent::read_from_bytes(event).unwrap().code.get();
    sent.iter().map(code).collect()
}

#[test]
fn one_sender_does_not_fill_the_queue_of_another() {
    let (sink, fake) = sink(&[]);
    for code in 0..MAX_MESSAGES as u32 {
        sink.message(message(1, code)).unwrap();
    }
    assert_eq!(sink.message(message(1, 99)), Err(Full));
    for code in 0..MAX_MESSAGES as u32 {
        sink.message(message(2, 100 + code)).unwrap();
    }
    assert_eq!(sink.message(message(2, 99)), Err(Full));
    fake.0.lock().posted.extend([256; MAX_MESSAGES + 1]);
    sink.flush();
    let expected: Vec<u32> = (0..MAX_MESSAGES as u32).chain([100]).collect();
    assert_eq!(codes(&fake), expected, "in the order of arrival");
    assert_eq!(sink.message(message(2, 164)), Ok(()), "of its own places one is free");
    assert_eq!(sink.message(message(2, 165)), Err(Full));
    assert_eq!(sink.message(message(1, 64)), Ok(()));
}

/// A sender that resets its device over and over has as many places as one that does not.
#[test]
fn messages_of_senders_that_are_gone_have_a_bound() {
    let (sink, fake) = sink(&[]);
    sink.message(message(200, 1000)).unwrap();
    for sender in 1..=5u8 {
        for code in 0..MAX_MESSAGES as u32 {
            sink.message(message(sender, u32::from(sender) * 100 + code)).unwrap();
        }
        sink.sender_gone(Gid([sender; 16]));
    }
    assert_eq!(sink.pending.lock().messages.len(), MAX_MESSAGES + 1);
    fake.0.lock().posted.extend([256; 2 * MAX_MESSAGES]);
    sink.flush();
    let expected: Vec<u32> = [1000].into_iter().chain(500..500 + MAX_MESSAGES as u32).collect();
    assert_eq!(codes(&fake), expected, "the latest, and those of the sender that lives");
    assert_eq!(sink.pending.lock().waiting.len(), 0);
}

#[test]
fn a_place_for_a_departure_is_free_when_it_is_delivered() {
    let (sink, fake) = sink(&[]);
    for number in 0..3 {
        sink.expect_departure();
        sink.peer_gone(Gid([number; 16]));
    }
    assert_eq!(sink.departures(), 3);
    fake.0.lock().posted.extend([8, 256, 256]);
    sink.flush();
    assert_eq!(sink.departures(), 1, "a short buffer frees none");
    fake.0.lock().posted.push_back(256);
    sink.flush();
    assert_eq!(sink.departures(), 0);
}
