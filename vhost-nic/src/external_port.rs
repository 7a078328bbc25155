//! Ports of the switch whose peers are outside the daemon: guests of other devices, other daemons, the host.
//!
//! A port is a [`Medium`] with a thread of its own. What the peer sends is checked, and delivered into the receivers on
//! that thread, as the thread of a NIC does. What is sent to the peer is serialized on the sender's thread, which then
//! leaves it in a bounded queue: it never waits for the peer. A peer that is gone is a link that is down.

mod arrival;
mod datagram;
mod departure;
mod entrance;
mod join;
mod length_prefix;
mod link_watch;
mod medium;
mod outlet;
mod packet;
mod port_thread;
mod receive_buffer;
mod stream;
mod tap_device;
mod vhost_user_net;
mod vnet_header;
mod vxlan;
mod vxlan_header;

use std::fmt;
use std::io;
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use serde::Serialize;
use vhost_daemon::Server;
use vhost_daemon::sandbox::{ThreadKind, confine};

use crate::net::{Burst, Frame, Port, Switch};

pub use arrival::{Arrived, admit};
pub use datagram::DatagramMedium;
use departure::Departure;
use entrance::Entrance;
pub use join::{Joiner, Offloads, Outgoing};
pub use length_prefix::{LengthPrefixed, MAX_LENGTH, OversizedFrame};
pub use medium::{DropReason, Incoming, Medium};
pub use packet::{PacketError, PacketMedium};
pub use stream::StreamMedium;
pub use tap_device::{TapError, TapMedium, TapPlan};
pub use vhost_user_net::MAX_QUEUE_PAIRS;
use vhost_user_net::VhostUserNet;
pub use vnet_header::{VnetError, VnetHeader};
pub use vxlan::{VXLAN_PORT, VxlanError, VxlanMedium, VxlanPlan};
pub use vxlan_header::{VNI_LIMIT, VxlanHeader, decapsulate};

vhost_daemon::counters! {
    /// Frames that a port dropped.
    pub struct ExternalPortDrops -> ExternalPortDropStats {
        /// To the peer, while the queue to it was full.
        queue_full,
        /// To the peer, with a payload that was no longer in the sender's memory.
        unreadable,
        /// To the peer, in the queue when it disconnected.
        disconnected,
        /// To the peer, longer than the way to it carries.
        too_long,
        /// To the peer, which the host refused to send: the peer is absent, or its interface down.
        refused,
        /// From the peer, with a length of zero or beyond the limit, or a virtio-net header that makes no sense.
        malformed,
        /// From the peer, RoCE packets with a wrong ICRC.
        bad_icrc,
        /// From another address than the peer's.
        other_source,
        /// From the peer, VXLAN without the flag of a valid VNI.
        no_vni,
        /// From the peer, VXLAN with reserved bits that are set.
        reserved_bits,
        /// From the peer, VXLAN with another VNI.
        other_vni,
    }
}

impl ExternalPortDrops {
    /// Counter of a reason to drop what the peer sent.
    fn of(&self, reason: DropReason) -> &vhost_daemon::Counter {
        match reason {
            DropReason::Malformed => &self.malformed,
            DropReason::OtherSource => &self.other_source,
            DropReason::NoVni => &self.no_vni,
            DropReason::ReservedBits => &self.reserved_bits,
            DropReason::OtherVni => &self.other_vni,
        }
    }
}

/// State that the threads of senders share with that of the port.
#[derive(Debug)]
struct Shared {
    name: String,
    drops: ExternalPortDrops,
    departure: Departure,
    connected: AtomicBool,
    connections: vhost_daemon::Counter,
    stop: AtomicBool,
}

/// The port at the switch.
impl Port for Shared {
    fn receive(&self, frame: Frame<'_>) {
        self.receive_burst(&Burst::new(&[frame]));
    }

    fn receive_burst(&self, burst: &Burst<'_>) {
        burst.each(|frame| match frame.to_bytes() {
            None => drop(self.drops.unreadable.increment()),
            Some(bytes) => {
                if !self.departure.push(bytes) {
                    self.drops.queue_full.increment();
                }
            }
        });
        self.departure.wake_if_asleep();
    }
}

/// Snapshot of an [`ExternalPort`].
#[derive(Debug, Clone, Serialize)]
pub struct ExternalPortStats {
    /// Name of the port.
    pub name: String,
    /// Kind of the medium.
    pub medium: &'static str,
    /// Whether there is a peer.
    pub connected: bool,
    /// Number of connections so far.
    pub connections: u64,
    /// Frames in the queue to the peer.
    pub queued_frames: u64,
    /// Bytes in the queue to the peer.
    pub queued_bytes: u64,
    /// Dropped frames.
    pub dropped: ExternalPortDropStats,
}

/// Threads that move the frames of a port.
enum Mover {
    /// The thread of a medium.
    Medium(Option<JoinHandle<()>>),
    /// The threads of a socket for front-ends of vhost-user-net.
    VhostUser(Server),
}

/// A port whose peer is outside the daemon. Dropping it detaches it from the switch.
pub struct ExternalPort {
    shared: Arc<Shared>,
    kind: &'static str,
    mover: Mover,
}

impl fmt::Debug for ExternalPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shared.name)
    }
}

impl ExternalPort {
    /// Attaches a port to the switch and starts its thread. At most `queue_bytes` of frames wait for the peer.
    pub fn start(switch: &Arc<Switch>, name: &str, medium: Box<dyn Medium>, queue_bytes: usize) -> io::Result<Self> {
        let entrance = attach(switch, name, medium.is_connected(), queue_bytes)?;
        let (shared, kind) = (entrance.shared().clone(), medium.kind());
        let thread = thread::Builder::new().name(format!("port {name}")).spawn(move || {
            confine(ThreadKind::Port);
            port_thread::run(&entrance, medium);
        })?;
        Ok(Self {
            shared,
            kind,
            mover: Mover::Medium(Some(thread)),
        })
    }

    /// Attaches a port to the switch that is the back-end of front-ends of vhost-user-net, one after the other. Each
    /// has `pairs` pairs of queues, and may share `max_memory` bytes. At most `queue_bytes` of frames wait for it.
    pub fn serve_vhost_user(
        switch: &Arc<Switch>,
        name: &str,
        listener: UnixListener,
        pairs: usize,
        max_memory: u64,
        queue_bytes: usize,
    ) -> io::Result<Self> {
        let entrance = Arc::new(attach(switch, name, false, queue_bytes)?);
        let shared = entrance.shared().clone();
        let service = VhostUserNet::new(entrance, pairs, max_memory);
        Ok(Self {
            shared,
            kind: "vhost-user",
            mover: Mover::VhostUser(Server::start(format!("port {name}"), listener, service)?),
        })
    }

    /// Name of the port.
    pub fn name(&self) -> &str {
        &self.shared.name
    }

    /// Takes a snapshot of state and counters.
    pub fn stats(&self) -> ExternalPortStats {
        let (frames, bytes) = self.shared.departure.waiting();
        ExternalPortStats {
            name: self.shared.name.clone(),
            medium: self.kind,
            connected: self.shared.connected.load(Ordering::Relaxed),
            connections: self.shared.connections.get(),
            queued_frames: frames as u64,
            queued_bytes: bytes as u64,
            dropped: self.shared.drops.snapshot(),
        }
    }
}

impl Drop for ExternalPort {
    fn drop(&mut self) {
        match &mut self.mover {
            Mover::Medium(thread) => {
                self.shared.stop.store(true, Ordering::Release);
                self.shared.departure.wake();
                if let Some(thread) = thread.take() {
                    let _ = thread.join();
                }
            }
            Mover::VhostUser(server) => server.stop(),
        }
    }
}

/// Attaches a port to the switch, whose link is up if it is `connected`.
fn attach(switch: &Arc<Switch>, name: &str, connected: bool, queue_bytes: usize) -> io::Result<Entrance> {
    let shared = Arc::new(Shared {
        name: name.to_owned(),
        drops: ExternalPortDrops::default(),
        departure: Departure::new(queue_bytes)?,
        connected: AtomicBool::new(connected),
        connections: vhost_daemon::Counter::default(),
        stop: AtomicBool::new(false),
    });
    let weak = Arc::downgrade(&shared);
    let port = switch.attach(name, weak);
    port.set_enabled(connected);
    Ok(Entrance::new(shared, port))
}
