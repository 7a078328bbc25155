//! Interrupts as the client configures them: an eventfd per MSI-X vector (linux/vfio.h, VFIO_DEVICE_SET_IRQS).

use std::os::fd::OwnedFd;
use std::sync::Arc;

use parking_lot::Mutex;
use rustix::io::Errno;
use vhost_daemon::ForeignEventFd;

use super::wire::{
    IRQ_MSIX, NUM_IRQS, SET_IRQS_BOOL, SET_IRQS_EVENTFD, SET_IRQS_MASK, SET_IRQS_NONE, SET_IRQS_TRIGGER,
    SET_IRQS_UNMASK, SetIrqs,
};
use crate::function::PciFunction;
use crate::msix::{Delivery, InterruptLines, MsixMessage};

/// Eventfds of one client. A vector without one stays pending in the function: to enable one vector more, a client may
/// remove all eventfds and set all of them again.
pub struct EventFds(Box<[Mutex<Line>]>);

#[derive(Default)]
struct Line {
    eventfd: Option<ForeignEventFd>,
    masked: bool,
}

impl EventFds {
    /// Creates `vectors` lines without eventfds.
    pub fn new(vectors: u16) -> Arc<Self> {
        Arc::new(Self((0..vectors).map(|_| Mutex::default()).collect()))
    }

    /// Executes SET_IRQS; `data` are the bytes that follow it.
    pub fn set(
        &self,
        function: &PciFunction,
        request: &SetIrqs,
        data: &[u8],
        fds: &mut Vec<OwnedFd>,
    ) -> Result<(), Errno> {
        if request.index.get() >= NUM_IRQS {
            return Err(Errno::INVAL);
        }
        if request.index.get() != IRQ_MSIX {
            // INTx, MSI and the notifications of VFIO are never raised: there is nothing to store.
            return Ok(());
        }
        let (start, count) = (request.start.get() as usize, request.count.get() as usize);
        let end = start.checked_add(count).ok_or(Errno::INVAL)?;
        let lines = self.0.get(start..end).ok_or(Errno::INVAL)?;
        // No truncation: the range lies within the function's vectors.
        let (first, number) = (start as u16, count as u16);
        let flags = request.flags.get();
        match (
            flags & (SET_IRQS_NONE | SET_IRQS_BOOL | SET_IRQS_EVENTFD),
            flags & (SET_IRQS_MASK | SET_IRQS_UNMASK | SET_IRQS_TRIGGER),
        ) {
            (SET_IRQS_NONE, SET_IRQS_TRIGGER) if start == 0 && count == 0 => {
                for line in &self.0 {
                    line.lock().eventfd = None;
                }
            }
            (SET_IRQS_EVENTFD, SET_IRQS_TRIGGER) if fds.len() == count => {
                let eventfds: Result<Vec<_>, _> = fds.drain(..).map(ForeignEventFd::new).collect();
                for (line, eventfd) in lines.iter().zip(eventfds.map_err(|_| Errno::INVAL)?) {
                    line.lock().eventfd = Some(eventfd);
                }
                function.retry_interrupts(first, number);
            }
            (SET_IRQS_EVENTFD, SET_IRQS_TRIGGER) if fds.is_empty() => {
                for line in lines {
                    line.lock().eventfd = None;
                }
            }
            (what @ (SET_IRQS_NONE | SET_IRQS_BOOL), action) => {
                let chosen = |at: usize| what == SET_IRQS_NONE || data[at] != 0;
                if what == SET_IRQS_BOOL && data.len() < count {
                    return Err(Errno::INVAL);
                }
                for (at, line) in lines.iter().enumerate().filter(|(at, _)| chosen(*at)) {
                    let vector = first + at as u16;
                    match action {
                        SET_IRQS_TRIGGER => function.raise_interrupt(vector),
                        SET_IRQS_MASK => line.lock().masked = true,
                        SET_IRQS_UNMASK => {
                            line.lock().masked = false;
                            function.retry_interrupts(vector, 1);
                        }
                        _ => return Err(Errno::INVAL),
                    }
                }
            }
            _ => return Err(Errno::INVAL),
        }
        Ok(())
    }
}

impl InterruptLines for EventFds {
    fn deliver(&self, vector: u16, _message: MsixMessage) -> Delivery {
        let Some(line) = self.0.get(usize::from(vector)) else {
            return Delivery::NotNow;
        };
        let line = line.lock();
        match &line.eventfd {
            Some(eventfd) if !line.masked && eventfd.signal().is_ok() => Delivery::Done,
            _ => Delivery::NotNow,
        }
    }
}
