//! A NIC: the device behind the BAR, with its firmware, its objects and its data path.

use std::collections::BTreeMap;
use std::mem::offset_of;
use std::sync::{Arc, Weak};
use std::time::Duration;

use log::info;
use mlx5_prm::init_segment::InitSegment;
use parking_lot::Mutex;
use serde::Serialize;
use thiserror::Error;
use zerocopy::IntoBytes;

use crate::dma::PurposeStats;
use crate::engine::Engine;
use crate::engine::worker::Worker;
use crate::firmware::{Capabilities, Firmware, LOG_CMDQ_SIZE, LOG_CMDQ_STRIDE, UnknownCapability};
use crate::hca::blue_flame::{self, Doorbell, Half, Slot, Written};
use crate::hca::guest_error::GuestError;
use crate::hca::scheduler::Task;
use crate::hca::vport::Mac;
use crate::hca::{FIRST_UAR, Hca, Queue};
use crate::net::{Burst, Frame, Port, PortStats, Switch};
use crate::pci::{BAR_SIZE, Device, FunctionParts};

/// Log2 of the bytes of a UAR.
const UAR_SHIFT: u32 = 12;
/// The revision of the command interface (`CMD_IF_REV`, core/cmd.c), and the firmware's own: 16.35.4030.
const CMD_IF_REVISION: u32 = 5;
const FIRMWARE_MAJOR: u32 = 16;
const FIRMWARE_MINOR: u32 = 35;
const FIRMWARE_SUBMINOR: u32 = 4030;
/// State of the interface that the driver sets when it goes in a hurry (`MLX5_INITIAL_SEG_NIC_INTERFACE_DISABLED`, device.h).
const INTERFACE_DISABLED: u32 = 1;
/// How often the health counter moves: faster than the driver looks (`MLX5_HEALTH_POLL_INTERVAL`, 2 s).
const HEALTH_TICK_NS: u64 = 100_000_000;

/// Registers of a UAR (`include/linux/mlx5/doorbell.h`, `core/lib/eq.h`).
mod uar {
    pub(super) const CQ_ARM: u64 = 0x20;
    pub(super) const EQ_ARM: u64 = 0x40;
    pub(super) const EQ_UPDATE: u64 = 0x48;
    pub(super) const BLUE_FLAME: std::ops::Range<u64> = 0x800..0x1000;
}

/// What a NIC is to be like.
#[derive(Debug, Clone)]
pub struct NicConfig {
    /// What it is called in logs.
    pub name: String,
    /// Its permanent address.
    pub mac: Mac,
    /// A number no other NIC of the daemon has.
    pub vhca_id: u16,
    /// If WQEs are taken from doorbell registers, too (`bf`): how long the rest of one may take to come.
    pub blue_flame: Option<Duration>,
    /// How long a queue is looked after when nothing more is posted to it, in case something is.
    pub hot: Duration,
    /// Capabilities it does without.
    pub zeroed_capabilities: Vec<String>,
}

/// Why there is no NIC.
#[derive(Debug, Error)]
pub enum NicError {
    /// A capability that is to be taken away, but is not there.
    #[error(transparent)]
    Capability(#[from] UnknownCapability),
    /// No thread.
    #[error("The NIC's thread cannot be started: {0}")]
    Thread(#[from] std::io::Error),
}

/// A NIC.
#[derive(Debug)]
pub struct Nic {
    name: String,
    hca: Arc<Hca>,
    firmware: Arc<Firmware>,
    engine: Arc<Engine>,
    _worker: Worker,
    registers: Mutex<Registers>,
}

/// What the driver wrote into the initialization segment.
#[derive(Debug, Default, Clone, Copy)]
struct Registers {
    queue_high: u32,
    queue_low: u32,
    interface: u32,
}

/// A NIC at one moment.
#[derive(Debug, Clone, Serialize)]
pub struct NicSnapshot {
    /// What it is called.
    pub name: String,
    /// Its address.
    pub mac: String,
    /// Whether the guest's driver has started it.
    pub started: bool,
    /// Whether its link is up.
    pub link_up: bool,
    /// Objects the guest has, by kind.
    pub objects: BTreeMap<&'static str, usize>,
    /// Pages of memory the guest's driver gave.
    pub pages: usize,
    /// Accesses to guest memory.
    pub dma: Vec<PurposeStats>,
    /// What the guest did wrong.
    pub guest_errors: BTreeMap<&'static str, u64>,
    /// WQEs that came through doorbell registers and were carried out from there.
    pub blue_flame_wqes: u64,
    /// What went through its port.
    pub port: PortSnapshot,
    /// Completions of all its queues.
    pub completions: CompletionSnapshot,
    /// What its port of the switch saw.
    pub wire: Option<PortStats>,
}

/// How many completions a NIC has written, by where the data of their messages went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct CompletionSnapshot {
    /// To memory, or there were none.
    pub plain: u64,
    /// Into the completion itself, 32 bytes at most.
    pub inline_32: u64,
    /// Into the lower half of a completion of 128 bytes, 64 bytes at most.
    pub inline_64: u64,
}

/// What a NIC's port counted.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct PortSnapshot {
    /// Frames from the wire.
    pub received: u64,
    /// Bytes of them.
    pub received_bytes: u64,
    /// Frames to the wire.
    pub sent: u64,
    /// Bytes of them.
    pub sent_bytes: u64,
    /// Frames from the function to itself.
    pub loopback: u64,
    /// Frames from the wire that no flow table entry wanted.
    pub unmatched: u64,
    /// Frames from the wire while the port was down, or too long for it.
    pub refused: u64,
    /// Frames without a receive WQE.
    pub out_of_buffer: u64,
    /// Frames for receive queues that are not ready.
    pub not_ready: u64,
    /// Frames that could not be sent.
    pub send_errors: u64,
}

impl Nic {
    /// A NIC on the memory and the interrupts of a function.
    pub fn new(config: &NicConfig, parts: &FunctionParts) -> Result<Arc<Self>, NicError> {
        let capabilities = Capabilities::new(config.vhca_id, config.blue_flame.is_some(), &config.zeroed_capabilities)?;
        let uars = (BAR_SIZE >> UAR_SHIFT) as u32 - FIRST_UAR;
        let hca = Arc::new(Hca::new(parts.dma.clone(), parts.msix.clone(), config.mac, uars));
        let firmware = Arc::new(Firmware::new(hca.clone(), capabilities));
        let engine = Arc::new(Engine::new(hca.clone(), firmware.clone()));
        let hot = if let Some(patience) = config.blue_flame {
            hca.blue_flame.enable(patience);
            Duration::ZERO
        } else {
            config.hot
        };
        let worker = Worker::start(&config.name, &engine, hot)?;
        Ok(Arc::new(Self {
            name: config.name.clone(),
            hca,
            firmware,
            engine,
            _worker: worker,
            registers: Mutex::default(),
        }))
    }

    /// Connects the NIC to a switch.
    pub fn connect(self: &Arc<Self>, switch: &Arc<Switch>) {
        let port: Weak<dyn Port> = Arc::downgrade(&(self.clone() as Arc<dyn Port>));
        self.engine.connect(switch.attach(&self.name, port));
    }

    /// Plugs the cable in or out.
    pub fn set_cable(&self, plugged: bool) {
        self.firmware.set_cable(plugged);
    }

    /// The NIC at this moment.
    pub fn snapshot(&self) -> NicSnapshot {
        use std::sync::atomic::Ordering::Relaxed;
        let counters = &self.hca.port_counters;
        let ((received, received_bytes), (sent, sent_bytes)) = (counters.received.total(), counters.sent.total());
        NicSnapshot {
            name: self.name.clone(),
            mac: self
                .hca
                .vport
                .read()
                .permanent
                .map(|byte| format!("{byte:02x}"))
                .join(":"),
            started: self.firmware.initialized(),
            link_up: self.firmware.link_up(),
            objects: self.hca.object_counts(),
            pages: self.firmware.pages_held(),
            dma: self.hca.dma.stats().snapshot(),
            guest_errors: self.hca.guest_errors.snapshot().into_iter().collect(),
            blue_flame_wqes: self.hca.blue_flame.carried_out(),
            port: PortSnapshot {
                received,
                received_bytes,
                sent,
                sent_bytes,
                loopback: counters.loopback.get().0,
                unmatched: counters.unmatched.load(Relaxed),
                refused: counters.refused.load(Relaxed),
                out_of_buffer: counters.out_of_buffer.load(Relaxed),
                not_ready: counters.not_ready.load(Relaxed),
                send_errors: counters.send_errors.load(Relaxed),
            },
            completions: CompletionSnapshot {
                plain: self.hca.completion_counters.plain.load(Relaxed),
                inline_32: self.hca.completion_counters.inline_32.load(Relaxed),
                inline_64: self.hca.completion_counters.inline_64.load(Relaxed),
            },
            wire: self.engine.wire().map(crate::net::SwitchPort::stats),
        }
    }

    fn init_segment(&self) -> InitSegment {
        let registers = *self.registers.lock();
        let nanoseconds = self.hca.clock.now();
        let mut segment = InitSegment::default();
        segment.fw_rev.set(FIRMWARE_MINOR << 16 | FIRMWARE_MAJOR);
        segment.cmdif_rev_fw_sub.set(CMD_IF_REVISION << 16 | FIRMWARE_SUBMINOR);
        segment.cmdq_addr_h.set(registers.queue_high);
        let sizes = u32::from(LOG_CMDQ_SIZE << 4 | LOG_CMDQ_STRIDE);
        segment
            .cmdq_addr_l_sz
            .set(registers.queue_low | registers.interface << 8 | sizes);
        segment.internal_timer_h.set((nanoseconds >> 32) as u32);
        segment.internal_timer_l.set(nanoseconds as u32);
        segment
            .health_counter
            .set((nanoseconds / HEALTH_TICK_NS) as u32 & 0xff_ffff);
        segment
    }

    /// A write to the initialization segment, word by word.
    fn write_init_segment(&self, offset: u64, data: &[u8]) {
        const QUEUE_HIGH: u64 = offset_of!(InitSegment, cmdq_addr_h) as u64;
        const QUEUE_LOW: u64 = offset_of!(InitSegment, cmdq_addr_l_sz) as u64;
        const DOORBELL: u64 = offset_of!(InitSegment, cmd_dbell) as u64;
        let (words, rest) = data.as_chunks::<4>();
        if !offset.is_multiple_of(4) || !rest.is_empty() {
            return self.stray(offset, data.len());
        }
        for (at, word) in (offset..).step_by(4).zip(words) {
            let value = u32::from_be_bytes(*word);
            match at {
                QUEUE_HIGH => self.registers.lock().queue_high = value,
                QUEUE_LOW => {
                    let mut registers = self.registers.lock();
                    registers.queue_low = value & !0xfff;
                    registers.interface = value >> 8 & 0x7;
                    if registers.interface == INTERFACE_DISABLED {
                        drop(registers);
                        info!("{}: the guest's driver switched the interface off", self.name);
                        self.stop();
                    }
                }
                DOORBELL => {
                    let registers = *self.registers.lock();
                    let queue = u64::from(registers.queue_high) << 32 | u64::from(registers.queue_low);
                    self.firmware.run(queue, value);
                }
                _ => self.stray(at, 4),
            }
        }
    }

    fn write_uar(&self, page: u32, offset: u64, data: &[u8]) {
        if self.hca.uars.get(page).is_none() {
            return self.stray_doorbell(format_args!("UAR {page} is not allocated."));
        }
        let word = |bytes: &[u8]| bytes.first_chunk().map_or(0, |word| u32::from_be_bytes(*word));
        match (offset, data.len()) {
            (uar::CQ_ARM, 8) => {
                let (arm, number) = (word(data), word(&data[4..]) & 0xff_ffff);
                match self.hca.cqs.get(number) {
                    Some(cq) => cq.arm(arm, arm & 1 << 24 != 0),
                    None => self.stray_doorbell(format_args!("There is no completion queue {number:#x} to arm.")),
                }
            }
            (uar::EQ_ARM | uar::EQ_UPDATE, 4) => {
                let value = word(data);
                match self.hca.eqs.table.get(value >> 24) {
                    Some(eq) => eq.update(value, offset == uar::EQ_ARM),
                    None => self.stray_doorbell(format_args!("There is no event queue {} to arm.", value >> 24)),
                }
            }
            (register, length) if uar::BLUE_FLAME.contains(&register) && length > 0 && length.is_multiple_of(8) => {
                self.write_blue_flame(page, (register - uar::BLUE_FLAME.start) as usize, data);
            }
            _ => self.stray((u64::from(page) << UAR_SHIFT) + offset, data.len()),
        }
    }

    /// A doorbell of a send queue, or a part of a WQE.
    fn write_blue_flame(&self, page: u32, offset: usize, data: &[u8]) {
        let half = Half {
            page,
            index: (offset / blue_flame::BUFFER) as u8,
        };
        let offset = offset % blue_flame::BUFFER;
        if !self.hca.blue_flame.enabled() {
            // What is not at the start belongs to a WQE that is in memory as well.
            if let (0, Some([_, _, _, _, a, b, c, _])) = (offset, data.first_chunk::<8>()) {
                self.ring(u32::from_be_bytes([0, *a, *b, *c]), |_| {});
            }
            return;
        }
        let (cut_off, written) = self.hca.blue_flame.write(half, offset, data);
        if let Some(Doorbell { number, end }) = cut_off {
            self.ring(number, |slot| slot.ring(end));
        }
        match written {
            Written::Part => {}
            Written::Begun { until } => self.hca.scheduler.schedule_at(until, Task::Register(half)),
            Written::Doorbell(Doorbell { number, end }) => self.ring(number, |slot| slot.ring(end)),
            Written::Complete { number, wqe } => self.ring(number, |slot| slot.put(wqe)),
        }
    }

    /// Has a queue looked after, which `tell` tells before why.
    fn ring(&self, number: u32, tell: impl FnOnce(&Slot)) {
        let queue = self.hca.queues.get(number);
        match queue.as_deref().and_then(Queue::blue_flame) {
            Some(slot) => {
                tell(slot);
                self.hca.scheduler.schedule(number);
            }
            None => self.stray_doorbell(format_args!("There is no queue {number:#x} to send from.")),
        }
    }

    fn stray(&self, offset: u64, length: usize) {
        let what = format_args!(
            "{}: {length} bytes at {offset:#x} of the BAR are no register.",
            self.name
        );
        self.hca.guest_errors.report(GuestError::StrayAccess, what);
    }

    fn stray_doorbell(&self, what: std::fmt::Arguments<'_>) {
        self.hca
            .guest_errors
            .report(GuestError::StrayDoorbell, format_args!("{}: {what}", self.name));
    }

    /// Ends all that is under way, and forgets what the guest has set up.
    fn stop(&self) {
        self.firmware.halt();
        self.engine.quiesce(|| {
            self.firmware.reset();
            self.hca.clear();
        });
    }
}

impl Device for Nic {
    fn read(&self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        let segment = self.init_segment();
        let bytes = segment.as_bytes();
        let range = usize::try_from(offset)
            .ok()
            .and_then(|from| Some(from..from.checked_add(data.len())?));
        match range.and_then(|range| bytes.get(range)) {
            Some(bytes) => data.copy_from_slice(bytes),
            // UARs are for writing.
            None if offset >> UAR_SHIFT >= FIRST_UAR.into() => {}
            None => self.stray(offset, data.len()),
        }
    }

    fn write(&self, offset: u64, data: &[u8]) {
        match offset >> UAR_SHIFT {
            page @ ..BAR_PAGES if page >= FIRST_UAR.into() => {
                self.write_uar(page as u32, offset & ((1 << UAR_SHIFT) - 1), data);
            }
            _ => self.write_init_segment(offset, data),
        }
    }

    fn reset(&self) {
        self.stop();
        *self.registers.lock() = Registers::default();
    }
}

/// UAR-sized pages of the BAR.
const BAR_PAGES: u64 = BAR_SIZE >> UAR_SHIFT;

impl Port for Nic {
    fn receive(&self, frame: Frame<'_>) {
        self.engine.receive(&Burst::new(&[frame]));
    }

    fn receive_burst(&self, burst: &Burst<'_>) {
        self.engine.receive(burst);
    }

    fn cable_changed(&self, plugged: bool) {
        self.set_cable(plugged);
    }
}
