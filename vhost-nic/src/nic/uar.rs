//! Registers of a UAR: doorbells of send queues, and those that arm completion and event queues
//! (`include/linux/mlx5/doorbell.h`, `core/lib/eq.h`). All are write-only.
//!
//! The contexts of queues name the page of their doorbells (`uar_page`), and drivers map a page to one program. A
//! doorbell in another page is a stray one: a program could post WQEs to queues of others, or acknowledge their events.

use std::ops::Range;
use std::sync::Arc;

use super::bar::{Strays, uar_offset};
use super::doorbell_check;
use vhost_daemon::Counter;

use crate::hca::blue_flame::{self, Doorbell, Half, Slot, Written};
use crate::hca::nic_event::NicEvent;
use crate::hca::nic_finding::{Object, queue};
use crate::hca::scheduler::Task;
use crate::hca::{Hca, Queue};

/// Offsets within the page.
const CQ_ARM: u64 = 0x20;
const EQ_ARM: u64 = 0x40;
const EQ_UPDATE: u64 = 0x48;
const BLUE_FLAME: Range<u64> = 0x800..0x1000;
/// In the command word of a CQ's arm doorbell: arm for solicited completions only.
const SOLICITED_ONLY: u32 = 1 << 24;

/// The UARs of a function.
#[derive(Debug)]
pub(super) struct Uars {
    hca: Arc<Hca>,
    strays: Arc<Strays>,
    doorbells: Counter,
}

impl Uars {
    pub(super) fn new(hca: Arc<Hca>, strays: Arc<Strays>) -> Self {
        Self {
            hca,
            strays,
            doorbells: Counter::default(),
        }
    }

    /// Number of writes to doorbell registers.
    pub(super) fn doorbells(&self) -> u64 {
        self.doorbells.get()
    }

    /// Takes a write of `data` at `offset` of a page.
    pub(super) fn write(&self, page: u32, offset: u64, data: &[u8]) {
        self.doorbells.increment();
        if self.hca.uars.get(page).is_none() {
            let text = format_args!("doorbell in UAR {page}, which is not allocated");
            return self.strays.doorbell(Object::new("uar", page.into()), data, text);
        }
        let word = |bytes: &[u8]| bytes.first_chunk().map_or(0, |word| u32::from_be_bytes(*word));
        match (offset, data.len()) {
            (CQ_ARM, 8) => {
                let (arm, number) = (word(data), word(&data[4..]) & 0xff_ffff);
                match self.hca.cqs.get(number).filter(|cq| cq.uar == page) {
                    Some(cq) => {
                        self.hca
                            .tracer
                            .record(NicEvent::ArmCq, number, || [arm & 0xff_ffff, 0, 0, 0]);
                        cq.arm(arm, arm & SOLICITED_ONLY != 0);
                    }
                    None => {
                        let object = Object::new("cq", number.into());
                        self.strays
                            .doorbell(object, data, format_args!("no CQ {number:#x} to arm in UAR {page}"));
                    }
                }
            }
            (EQ_ARM | EQ_UPDATE, 4) => {
                let value = word(data);
                let eq = self.hca.eqs.table.get(value >> 24);
                match eq.filter(|eq| eq.context.uar_page() == page) {
                    Some(eq) => {
                        let arm = offset == EQ_ARM;
                        let arguments = || [value & 0xff_ffff, arm.into(), 0, 0];
                        self.hca.tracer.record(NicEvent::UpdateEq, value >> 24, arguments);
                        eq.update(value, arm);
                    }
                    None => {
                        let object = Object::new("eq", (value >> 24).into());
                        let text = format_args!("no EQ {} to arm in UAR {page}", value >> 24);
                        self.strays.doorbell(object, data, text);
                    }
                }
            }
            (register, length) if BLUE_FLAME.contains(&register) && length > 0 && length.is_multiple_of(8) => {
                self.write_blue_flame(page, (register - BLUE_FLAME.start) as usize, data);
            }
            _ => self.strays.write(uar_offset(page, offset), data),
        }
    }

    /// Takes a doorbell of a send queue, or a part of a WQE.
    fn write_blue_flame(&self, page: u32, offset: usize, data: &[u8]) {
        let half = Half {
            page,
            index: (offset / blue_flame::BUFFER) as u8,
        };
        let offset = offset % blue_flame::BUFFER;
        if !self.hca.blue_flame.enabled() {
            // Writes at other offsets belong to a WQE that is in memory as well.
            if let (0, Some(head)) = (offset, data.first_chunk::<8>()) {
                let Doorbell { number, end } = Doorbell::from(*head);
                self.doorbell(page, number, |queue, slot| {
                    slot.announce(end);
                    doorbell_check::check(&self.hca, queue, *head);
                });
            }
            return;
        }
        let (cut_off, written) = self.hca.blue_flame.write(half, offset, data);
        if let Some(Doorbell { number, end }) = cut_off {
            self.doorbell(page, number, |_, slot| slot.ring(end));
        }
        match written {
            Written::Part => {}
            Written::Begun { until } => self.hca.scheduler.schedule_at(until, Task::Register(half)),
            Written::Doorbell(Doorbell { number, end }) => self.doorbell(page, number, |_, slot| slot.ring(end)),
            Written::Complete { number, wqe } => {
                let arguments = || [wqe.index.into(), wqe.bytes.len() as u32, 0, 0];
                self.hca.tracer.record(NicEvent::BlueFlame, number, arguments);
                self.ring(page, number, |_, slot| slot.put(wqe));
            }
        }
    }

    /// Takes a plain doorbell.
    fn doorbell(&self, page: u32, number: u32, update: impl FnOnce(&Queue, &Slot)) {
        self.hca.tracer.record(NicEvent::Doorbell, number, Default::default);
        self.ring(page, number, update);
    }

    /// Records a doorbell with `update`, then schedules the queue.
    fn ring(&self, page: u32, number: u32, update: impl FnOnce(&Queue, &Slot)) {
        let found = self.hca.queues.get(number);
        match found.as_deref().and_then(|queue| Some((queue, queue.slot(page)?))) {
            Some((queue, slot)) => {
                update(queue, slot);
                self.hca.scheduler.schedule(number);
            }
            None => {
                let text = format_args!("no queue {number:#x} to send from in UAR {page}");
                self.strays.doorbell(queue(number), &number.to_be_bytes(), text);
            }
        }
    }
}
