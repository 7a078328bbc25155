use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use proptest::prelude::*;

use super::*;

/// Lines that record what they send, while they are open.
#[derive(Default)]
struct Recorder {
    closed: AtomicBool,
    sent: Mutex<Vec<(u16, MsixMessage)>>,
}

impl InterruptLines for Recorder {
    fn deliver(&self, vector: u16, message: MsixMessage) -> Delivery {
        if self.closed.load(Ordering::SeqCst) {
            return Delivery::NotNow;
        }
        self.sent.lock().push((vector, message));
        Delivery::Done
    }
}

impl Recorder {
    fn sent(&self) -> Vec<u16> {
        self.sent.lock().iter().map(|(vector, _)| *vector).collect()
    }
}

fn connected(vectors: u16, masking: Masking) -> (Msix, Arc<Recorder>) {
    let (msix, recorder) = (Msix::new(vectors), Arc::new(Recorder::default()));
    msix.connect(Some((recorder.clone(), masking)));
    (msix, recorder)
}

fn pba(msix: &Msix) -> Vec<u8> {
    let mut bits = vec![0xee; msix.pba_size() as usize];
    msix.read_pba(0, &mut bits);
    bits
}

/// A table entry as a driver writes it.
fn entry(address: u64, data: u32, masked: bool) -> Vec<u8> {
    [
        &address.to_le_bytes()[..],
        &data.to_le_bytes(),
        &u32::from(masked).to_le_bytes(),
    ]
    .concat()
}

#[test]
fn an_unmasked_vector_sends_the_message_of_its_table_entry() {
    let (msix, recorder) = connected(4, Masking::Function);
    msix.set_control(true, false);
    msix.write_table(2 * 16, &entry(0xfee0_1000, 0x4022, false));
    msix.raise(2);
    let message = MsixMessage {
        address: 0xfee0_1000,
        data: 0x4022,
    };
    assert_eq!(*recorder.sent.lock(), [(2, message)]);
    assert_eq!(pba(&msix), [0; 8]);
}

#[test]
fn a_masked_vector_waits_for_its_mask_bit() {
    let (msix, recorder) = connected(4, Masking::Function);
    msix.set_control(true, false);
    msix.raise(1);
    msix.raise(1);
    assert_eq!(pba(&msix), [0b10, 0, 0, 0, 0, 0, 0, 0]);
    assert!(recorder.sent().is_empty());
    // Only the Vector Control register.
    msix.write_table(16 + 12, &[0, 0, 0, 0]);
    assert_eq!(recorder.sent(), [1]);
    assert_eq!(pba(&msix), [0; 8]);
    let stats = msix.stats();
    assert_eq!((stats.raised, stats.sent, stats.pending), (2, 1, 0));
}

#[test]
fn function_mask_and_enable_hold_every_vector_back() {
    let (msix, recorder) = connected(3, Masking::Function);
    for vector in 0..3 {
        msix.write_table(16 * vector + 12, &[0]);
    }
    msix.raise(0);
    msix.set_control(true, true);
    msix.raise(2);
    assert!(recorder.sent().is_empty());
    assert_eq!(pba(&msix)[0], 0b101);
    msix.set_control(true, false);
    assert_eq!(recorder.sent(), [0, 2]);
    msix.set_control(false, false);
    msix.raise(1);
    assert_eq!(pba(&msix)[0], 0b010);
}

#[test]
fn an_attachment_that_masks_is_asked_whatever_the_table_says() {
    let (msix, recorder) = connected(2, Masking::Attachment);
    msix.raise(1);
    assert_eq!(recorder.sent(), [1]);
    recorder.closed.store(true, Ordering::SeqCst);
    msix.raise(0);
    msix.raise(1);
    assert_eq!(pba(&msix)[0], 0b11);
    recorder.closed.store(false, Ordering::SeqCst);
    msix.retry(1, 1);
    assert_eq!(recorder.sent(), [1, 1]);
    msix.retry(0, 2);
    assert_eq!(recorder.sent(), [1, 1, 0]);
}

#[test]
fn what_was_raised_without_lines_is_sent_when_they_come() {
    let msix = Msix::new(2);
    msix.raise(1);
    let recorder = Arc::new(Recorder::default());
    msix.connect(Some((recorder.clone(), Masking::Attachment)));
    assert_eq!(recorder.sent(), [1]);
    msix.connect(None);
    msix.raise(0);
    assert_eq!(recorder.sent(), [1]);
    assert_eq!(Arc::strong_count(&recorder), 1);
}

#[test]
fn a_reset_masks_every_vector_and_forgets_what_is_pending() {
    let (msix, recorder) = connected(2, Masking::Function);
    msix.write_table(0, &entry(0x1234_5678_9abc_def0, 7, false));
    msix.set_control(true, false);
    msix.raise(1);
    msix.reset();
    let mut table = [0xee; 32];
    msix.read_table(0, &mut table);
    assert_eq!(table[..], [entry(0, 0, true), entry(0, 0, true)].concat());
    msix.set_control(true, false);
    msix.write_table(28, &[0]);
    assert!(recorder.sent().is_empty());
}

#[test]
fn vectors_that_do_not_exist_are_ignored() {
    let (msix, recorder) = connected(2, Masking::Attachment);
    msix.raise(2);
    msix.raise(u16::MAX);
    msix.retry(1, u16::MAX);
    msix.retry(u16::MAX, u16::MAX);
    assert!(recorder.sent().is_empty());
    assert_eq!(Msix::new(0).vectors(), 1);
    assert_eq!(Msix::new(u16::MAX).vectors(), MAX_VECTORS);
}

#[test]
fn each_vector_has_its_pending_bit() {
    let msix = Msix::new(70);
    for vector in [0, 7, 8, 63, 64, 69] {
        msix.raise(vector);
    }
    assert_eq!(pba(&msix), [0x81, 0x01, 0, 0, 0, 0, 0, 0x80, 0x21, 0, 0, 0, 0, 0, 0, 0]);
}

proptest! {
    /// Writes of any width and at any offset leave in the table what a plain array with read-only bits would have.
    #[test]
    fn the_table_keeps_what_is_written_in_any_width(
        writes in proptest::collection::vec((0_usize..64, proptest::collection::vec(any::<u8>(), 0..40)), 0..20),
    ) {
        let msix = Msix::new(4);
        let mut model = [entry(0, 0, true), entry(0, 0, true), entry(0, 0, true), entry(0, 0, true)].concat();
        for (offset, data) in writes {
            let data = &data[..data.len().min(64 - offset)];
            msix.write_table(offset as u64, data);
            for (at, byte) in (offset..).zip(data) {
                model[at] = match at % 16 {
                    12 => byte & 1,
                    13.. => 0,
                    _ => *byte,
                };
            }
            let mut table = [0xee; 64];
            msix.read_table(0, &mut table);
            prop_assert_eq!(&table[..], &model[..]);
            let mut part = vec![0xee; data.len()];
            msix.read_table(offset as u64, &mut part);
            prop_assert_eq!(&part[..], &model[offset..offset + data.len()]);
        }
    }
}

/// Lines that count, and are open intermittently.
#[derive(Default)]
struct Gate {
    open: AtomicBool,
    sent: AtomicU64,
}

impl InterruptLines for Gate {
    fn deliver(&self, _vector: u16, _message: MsixMessage) -> Delivery {
        if self.open.load(Ordering::SeqCst) {
            self.sent.fetch_add(1, Ordering::SeqCst);
            Delivery::Done
        } else {
            Delivery::NotNow
        }
    }
}

#[test]
fn no_interrupt_is_lost_between_raising_and_opening() {
    let (msix, gate) = (Arc::new(Msix::new(1)), Arc::new(Gate::default()));
    msix.connect(Some((gate.clone(), Masking::Attachment)));
    for _ in 0..2000 {
        gate.open.store(false, Ordering::SeqCst);
        let before = gate.sent.load(Ordering::SeqCst);
        let raiser = thread::spawn({
            let msix = msix.clone();
            move || msix.raise(0)
        });
        gate.open.store(true, Ordering::SeqCst);
        msix.retry(0, 1);
        raiser.join().unwrap();
        assert_eq!(gate.sent.load(Ordering::SeqCst), before + 1);
        assert_eq!(pba(&msix)[0], 0);
    }
}
