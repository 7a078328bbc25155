//! The way out: frames to the wire, to the hairpin, or to both.

use std::sync::atomic::Ordering;

use super::context::{Context, Origin};
use crate::frame::mac::CastType;
use crate::frame::view::FrameView;
use crate::hca::Hca;
use crate::net::{Burst, EthernetAddresses, Frame};
use crate::roce::packet::{self, Error, Packet};

/// Sends complete frames. `transport_domain` is that of the send queue; RDMA has none.
pub(super) fn transmit(context: &Context, burst: &Burst<'_>, transport_domain: Option<u32>) {
    let hca = &context.hca;
    if hca.spoof_check && !is_genuine(hca, burst) {
        return refuse_forged(context, burst, transport_domain);
    }
    let counters = &hca.port_counters;
    let link = context.link();
    if let Some(long) = burst.without_long(link.longest_frame, |single| transmit(context, single, transport_domain)) {
        counters.send_errors.fetch_add(long, Ordering::Relaxed);
        return;
    }
    let addresses = burst.addresses().filter(|_| link.up);
    let Some(EthernetAddresses { destination, .. }) = addresses else {
        counters.send_errors.fetch_add(burst.count(), Ordering::Relaxed);
        return;
    };
    let cast = burst.cast();
    let (own, loopback_enabled) = {
        let vport = hca.vport.read();
        let disabled = if cast == CastType::Unicast {
            vport.context.disable_uc_local_lb()
        } else {
            vport.context.disable_mc_local_lb()
        };
        // The bits are for raw frames; RDMA between queue pairs of the same function always works.
        (vport.is_own(destination), !disabled || burst.is_of_super_packets())
    };
    if loopback_enabled && (own || cast != CastType::Unicast) {
        counters.loopback.count(burst);
        (context.hairpin)(context, burst, Origin::Loopback { transport_domain });
    }
    // Frames to an address of the function itself do not leave it.
    if !own {
        counters.sent.count(burst, &hca.priorities);
        if burst.is_of_super_packets() {
            counters.rdma_sent.count(burst);
        }
        if let Some(wire) = context.wire.get() {
            wire.send_burst(burst);
        }
    }
}

/// Whether all RoCE packets of a burst have a source that the guest has in its RoCE address table.
fn is_genuine(hca: &Hca, burst: &Burst<'_>) -> bool {
    let vlan = burst.addresses().map_or(0, |addresses| addresses.vlan);
    let mut last = None;
    let mut is_own = |addresses| {
        if last != Some(addresses) {
            last = Some(addresses);
            return hca.vport.read().has_roce_source(&addresses, vlan);
        }
        true
    };
    burst.frames().iter().all(|frame| match frame {
        Frame::SuperPacket(super_packet) => is_own(super_packet.head.path.addresses),
        // A datagram to the port of RoCE v2 that is no packet may come from any address.
        Frame::Bytes(bytes) => FrameView::new(bytes)
            .filter(|view| matches!(Packet::new_checked(view), Ok(_) | Err(Error::Opcode(_))))
            .is_none_or(|view| packet::addresses(&view).is_some_and(&mut is_own)),
    })
}

/// Sends the frames of a burst that are genuine, and drops the others as spoofed.
#[cold]
fn refuse_forged(context: &Context, burst: &Burst<'_>, transport_domain: Option<u32>) {
    for frame in burst.frames() {
        let frames = [*frame];
        let single = Burst::new(&frames);
        let single = match burst.sender_of(frame) {
            Some(sender) => single.of(sender),
            None => single,
        };
        if is_genuine(&context.hca, &single) {
            transmit(context, &single, transport_domain);
        } else if let Some(wire) = context.wire.get() {
            wire.refuse_spoofed(&single);
        }
    }
}
