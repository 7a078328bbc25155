//! Faults of completions and events.

use mlx5_prm::queue_entry::{Cqe, CqeOpcode, ErrorCqe};

use super::kind::Door;
use super::{Doors, NicFault, Occasion};
use crate::hca::entry_door::{CqeFate, EntryDoor, EventEntry, Posting};

impl EntryDoor for Doors {
    fn cqe(&self, cq: u32, about: u32, lower: &[u8], cqe: &mut Cqe) -> CqeFate {
        if !self.armed(Door::Completion) {
            return CqeFate::Written;
        }
        self.act(Occasion::Cqe, cq);
        let concerns = |queue: &Option<u32>| queue.is_none_or(|queue| queue == about);
        let select = |fault: &NicFault| match fault {
            NicFault::CqeLost { queue } | NicFault::CqeLate { queue, .. } | NicFault::CqeError { queue, .. } => {
                concerns(queue).then(|| fault.clone())
            }
            NicFault::CqOverrun => Some(fault.clone()),
            _ => None,
        };
        match self.strike(Door::Completion, cq, select) {
            Some((NicFault::CqeLost { .. }, _)) => CqeFate::Withheld,
            Some((NicFault::CqeLate { delay, .. }, _)) => {
                let (doors, lower, cqe) = (self.clone(), lower.to_vec(), *cqe);
                self.0.faults.after_inside(delay.0, move || {
                    doors.with_nic(|hca| {
                        if let Some(cq) = hca.cqs.get(cq) {
                            // A queue that the CQ has failed finds out with its next completion.
                            let _ = cq.post_past_door(&lower, cqe);
                        }
                    });
                });
                CqeFate::Withheld
            }
            Some((
                NicFault::CqeError {
                    syndrome,
                    vendor_syndrome,
                    ..
                },
                _,
            )) => {
                *cqe = error_cqe(cqe, about, syndrome, vendor_syndrome);
                // A queue pair; the others go to the error state with the lock that they hold.
                self.fail_qp(about);
                CqeFate::Failed
            }
            Some((NicFault::CqOverrun, _)) => CqeFate::Overrun,
            _ => CqeFate::Written,
        }
    }

    fn eqe(&self, eq: u32, event: &EventEntry<'_>) -> Posting {
        if !self.armed(Door::Event) {
            return Posting::Once;
        }
        let event_type = event.event_type as u8;
        let select = |fault: &NicFault| match fault {
            NicFault::EqeLost { event_type: wanted }
            | NicFault::EqeLate { event_type: wanted, .. }
            | NicFault::EqeDuplicate { event_type: wanted } => {
                wanted.is_none_or(|wanted| wanted == event_type).then(|| fault.clone())
            }
            _ => None,
        };
        match self.strike(Door::Event, eq, select) {
            Some((NicFault::EqeLost { .. }, _)) => Posting::Never,
            Some((NicFault::EqeDuplicate { .. }, _)) => Posting::Twice,
            Some((NicFault::EqeLate { delay, .. }, _)) => {
                let (doors, data) = (self.clone(), event.data.to_vec());
                let (event_type, sub_type) = (event.event_type, event.sub_type);
                self.0.faults.after_inside(delay.0, move || {
                    doors.with_nic(|hca| {
                        if let Some(eq) = hca.eqs.table.get(eq) {
                            eq.post_past_door(&EventEntry {
                                event_type,
                                sub_type,
                                data: &data,
                            });
                        }
                    });
                });
                Posting::Never
            }
            _ => Posting::Once,
        }
    }
}

/// Returns the error CQE of a queue in place of `cqe`.
fn error_cqe(cqe: &Cqe, queue: u32, syndrome: u8, vendor_syndrome: u8) -> Cqe {
    let opcode = match cqe.op_own >> 4 {
        opcode if opcode == CqeOpcode::Request as u8 || opcode == CqeOpcode::RequestError as u8 => {
            CqeOpcode::RequestError
        }
        _ => CqeOpcode::ResponderError,
    };
    let mut error = ErrorCqe::default();
    error.syndrome = syndrome;
    error.vendor_error_syndrome = vendor_syndrome;
    error.op_own = (opcode as u8) << 4;
    let mut error = Cqe::from(error);
    error.srqn_uidx = cqe.srqn_uidx;
    // Not the flow tag of a received frame.
    error.sop_drop_qpn.set(cqe.sop_drop_qpn.get() & 0xff00_0000 | queue);
    error.wqe_counter = cqe.wqe_counter;
    error
}
