//! The way out: frames to the wire, to the hairpin, or to both.

use std::sync::atomic::Ordering;

use super::context::{Context, Origin};
use crate::frame::mac::CastType;
use crate::net::{Burst, EthernetAddresses};

/// Sends complete frames. `transport_domain` is that of the send queue; RDMA has none.
pub(super) fn transmit(context: &Context, burst: &Burst<'_>, transport_domain: Option<u32>) {
    let hca = &context.hca;
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
        counters.sent.count(burst);
        if burst.is_of_super_packets() {
            counters.rdma_sent.count(burst);
        }
        if let Some(wire) = context.wire.get() {
            wire.send_burst(burst);
        }
    }
}
