//! Actions: what the device does to the guest without a request.

use std::sync::Arc;
use std::time::Duration;

use log::info;
use mlx5_prm::queue_entry::EventType;

use super::kind::{AsyncEvent, Occasion};
use super::{Doors, NicFault};
use crate::hca::Hca;
use crate::hca::entry_door::EventEntry;
use crate::nic::Nic;

/// Function of the page request events: the physical function itself.
const OWN_FUNCTION: u16 = 0;
/// `MLX5_PORT_CHANGE_SUBTYPE_*` (device.h).
const SUBTYPE_LID: u8 = 6;
const SUBTYPE_GUID: u8 = 8;
const SUBTYPE_CLIENT_REREGISTER: u8 = 9;

impl AsyncEvent {
    fn event_type(self) -> EventType {
        match self {
            Self::PathMigrated => EventType::PathMigrated,
            Self::PathMigrationFailed => EventType::PathMigrationFailed,
            Self::CommunicationEstablished => EventType::CommunicationEstablished,
            Self::SendQueueDrained => EventType::SendQueueDrained,
            Self::WqCatastrophicError => EventType::WqCatastrophicError,
            Self::WqInvalidRequestError => EventType::WqInvalidRequestError,
            Self::WqAccessError => EventType::WqAccessError,
            Self::SrqCatastrophicError => EventType::SrqCatastrophicError,
            Self::SrqRqLimit => EventType::SrqRqLimit,
            Self::LidChange | Self::GuidChange | Self::ClientReregister => EventType::PortChange,
        }
    }

    fn sub_type(self) -> u8 {
        match self {
            Self::LidChange => SUBTYPE_LID,
            Self::GuidChange => SUBTYPE_GUID,
            Self::ClientReregister => SUBTYPE_CLIENT_REREGISTER,
            _ => 0,
        }
    }
}

impl Doors {
    /// Takes the actions that an occasion is one for. They follow on another thread: here, locks may be held.
    pub(super) fn act(&self, occasion: Occasion, object: u32) {
        let select = |fault: &NicFault| {
            let on = match fault {
                NicFault::QpError { on, .. }
                | NicFault::AsyncEvent { on, .. }
                | NicFault::LinkFlap { on, .. }
                | NicFault::FunctionReset { on }
                | NicFault::PageRequestStorm { on, .. } => *on,
                _ => return None,
            };
            (on == occasion).then(|| fault.clone())
        };
        self.0.faults.strike_each(object, select, |_, fault, _| {
            self.record(occasion.door(), object);
            let doors = self.clone();
            self.0.faults.after(Duration::ZERO, move || doors.take(&fault));
        });
    }

    pub(super) fn take(&self, fault: &NicFault) {
        info!("{}: fault: {fault:?}", self.0.faults.guest());
        if let NicFault::FunctionReset { .. } = fault {
            // The function is entered like this by its attachment as well.
            let function = self.0.target.get().and_then(|target| target.function.upgrade());
            if let Some(function) = function {
                function.reset();
            }
            return;
        }
        self.0.faults.act(fault, || self.act_on_nic(fault));
    }

    /// Takes the action of a fault on the NIC, in an entry.
    pub(crate) fn act_on_nic(&self, fault: &NicFault) {
        match fault {
            NicFault::QpError { qp, .. } => self.with_nic(|hca| fail(hca, *qp)),
            NicFault::AsyncEvent { event, number, .. } => self.with_nic(|hca| announce(hca, *event, *number)),
            NicFault::LinkFlap { down, .. } => {
                self.with_nic(|hca| hca.port.set_cable(false));
                let doors = self.clone();
                self.0
                    .faults
                    .after_inside(down.0, move || doors.with_nic(|hca| hca.port.set_cable(true)));
            }
            NicFault::PageRequestStorm { pages, requests, .. } => {
                for _ in 0..*requests {
                    self.with_nic(|hca| request_pages(hca, *pages));
                }
            }
            NicFault::Health { syndrome, .. } => {
                if let Some(nic) = self.nic() {
                    nic.fail_firmware(*syndrome);
                }
            }
            _ => {}
        }
    }

    fn nic(&self) -> Option<Arc<Nic>> {
        self.0.target.get().and_then(|target| target.nic.upgrade())
    }

    /// Moves a queue pair to the error state, on another thread.
    pub(super) fn fail_qp(&self, number: u32) {
        let doors = self.clone();
        self.0
            .faults
            .after_inside(Duration::ZERO, move || doors.with_nic(|hca| fail(hca, number)));
    }

    /// Calls `act` with the objects of the NIC, unless it is gone.
    pub(super) fn with_nic(&self, act: impl FnOnce(&Hca)) {
        if let Some(nic) = self.nic() {
            nic.with_objects(act);
        }
    }
}

fn fail(hca: &Hca, number: u32) {
    if let Some(qp) = hca.queue_pair(number)
        && qp.fail(&hca.vport.read())
    {
        hca.scheduler.schedule(number);
    }
}

fn announce(hca: &Hca, event: AsyncEvent, number: u32) {
    let mut data = [0; 28];
    if event.event_type() == EventType::PortChange {
        // The port number is in bits 7:4 of data[8] (core/events.c).
        data[8] = 1 << 4;
    } else {
        data[24..].copy_from_slice(&number.to_be_bytes());
    }
    post(hca, event.event_type(), event.sub_type(), &data);
}

/// `struct mlx5_eqe_page_req`: function, and number of pages.
fn request_pages(hca: &Hca, pages: u16) {
    let mut data = [0; 28];
    data[2..4].copy_from_slice(&OWN_FUNCTION.to_be_bytes());
    data[4..8].copy_from_slice(&u32::from(pages).to_be_bytes());
    post(hca, EventType::PageRequest, 0, &data);
}

fn post(hca: &Hca, event_type: EventType, sub_type: u8, data: &[u8]) {
    for eq in hca.eqs.listeners(event_type) {
        eq.post_past_door(&EventEntry {
            event_type,
            sub_type,
            data,
        });
    }
}
