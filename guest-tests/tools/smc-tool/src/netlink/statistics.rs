//! SMC counters of this network namespace since the module was loaded (net/smc/smc_stats.c).

use serde::Serialize;

use super::NetlinkError;
use super::attributes::Attributes;
use super::fallback::FallbackStatistics;
use super::family::{Command, Nest, SmcFamily};

/// Top level, `SMC_NLA_STATS_*`.
mod top_attribute {
    pub(super) const SMCD: u16 = 1;
    pub(super) const SMCR: u16 = 2;
    pub(super) const CLIENT_HANDSHAKE_ERRORS: u16 = 3;
    pub(super) const SERVER_HANDSHAKE_ERRORS: u16 = 4;
}

/// One technology, `SMC_NLA_STATS_T_*`.
mod technology_attribute {
    pub(super) const SEND_BUFFER_SIZES: u16 = 1;
    pub(super) const RECEIVE_BUFFER_SIZES: u16 = 2;
    pub(super) const SEND_PAYLOAD_SIZES: u16 = 3;
    pub(super) const RECEIVE_PAYLOAD_SIZES: u16 = 4;
    pub(super) const SEND_BUFFERS: u16 = 5;
    pub(super) const RECEIVE_BUFFERS: u16 = 6;
    pub(super) const CLIENT_V1: u16 = 7;
    pub(super) const CLIENT_V2: u16 = 8;
    pub(super) const SERVER_V1: u16 = 9;
    pub(super) const SERVER_V2: u16 = 10;
    pub(super) const SENDPAGE: u16 = 11;
    pub(super) const SPLICE: u16 = 12;
    pub(super) const CORK: u16 = 13;
    pub(super) const NO_DELAY: u16 = 14;
    pub(super) const URGENT: u16 = 15;
    pub(super) const RECEIVED_BYTES: u16 = 16;
    pub(super) const SENT_BYTES: u16 = 17;
    pub(super) const RECEIVE_CALLS: u16 = 18;
    pub(super) const SEND_CALLS: u16 = 19;
    pub(super) const RECEIVE_BUFFER_USAGE: u16 = 20;
    pub(super) const SEND_BUFFER_USAGE: u16 = 21;
}

/// Buffers of one direction, `SMC_NLA_STATS_RMB_*`.
mod buffer_attribute {
    pub(super) const SMALL_AT_PEER: u16 = 1;
    pub(super) const SMALL: u16 = 2;
    pub(super) const FULL_AT_PEER: u16 = 3;
    pub(super) const FULL: u16 = 4;
    pub(super) const REUSED: u16 = 5;
    pub(super) const ALLOCATED: u16 = 6;
    pub(super) const DOWNGRADED: u16 = 7;
}

/// Histogram by size class; attribute numbers start at 1 (`SMC_NLA_STATS_PLOAD_8K`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct SizeClasses {
    /// Up to 8 KiB.
    pub k8: u64,
    /// Up to 16 KiB.
    pub k16: u64,
    /// Up to 32 KiB.
    pub k32: u64,
    /// Up to 64 KiB.
    pub k64: u64,
    /// Up to 128 KiB.
    pub k128: u64,
    /// Up to 256 KiB.
    pub k256: u64,
    /// Up to 512 KiB.
    pub k512: u64,
    /// Up to 1 MiB.
    pub k1024: u64,
    /// More than 1 MiB.
    pub larger: u64,
}

impl SizeClasses {
    fn decode(nest: &Attributes<'_>) -> Result<Self, NetlinkError> {
        Ok(Self {
            k8: nest.counter(1)?,
            k16: nest.counter(2)?,
            k32: nest.counter(3)?,
            k64: nest.counter(4)?,
            k128: nest.counter(5)?,
            k256: nest.counter(6)?,
            k512: nest.counter(7)?,
            k1024: nest.counter(8)?,
            larger: nest.counter(9)?,
        })
    }
}

/// Buffer counters of one direction.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct BufferCounters {
    /// Times data exceeded the size of the peer's buffer.
    pub too_small_at_peer: u64,
    /// Times data exceeded the size of the local buffer.
    pub too_small: u64,
    /// Times the peer's buffer was full.
    pub full_at_peer: u64,
    /// Times the local buffer was full.
    pub full: u64,
    /// Buffers reused from an earlier connection.
    pub reused: u64,
    /// Buffers newly allocated.
    pub allocated: u64,
    /// Buffers allocated smaller than requested.
    pub downgraded: u64,
    /// Bytes in use.
    pub usage: u64,
}

impl BufferCounters {
    fn decode(nest: &Attributes<'_>, usage: u64) -> Result<Self, NetlinkError> {
        use buffer_attribute::*;
        Ok(Self {
            too_small_at_peer: nest.counter(SMALL_AT_PEER)?,
            too_small: nest.counter(SMALL)?,
            full_at_peer: nest.counter(FULL_AT_PEER)?,
            full: nest.counter(FULL)?,
            reused: nest.counter(REUSED)?,
            allocated: nest.counter(ALLOCATED)?,
            downgraded: nest.counter(DOWNGRADED)?,
            usage,
        })
    }
}

/// Counters of SMC-D or SMC-R.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct TechnologyCounters {
    /// Connections as client, version 1.
    pub client_v1: u64,
    /// Connections as client, version 2.
    pub client_v2: u64,
    /// Connections as server, version 1.
    pub server_v1: u64,
    /// Connections as server, version 2.
    pub server_v2: u64,
    /// Bytes received.
    pub received_bytes: u64,
    /// Bytes sent.
    pub sent_bytes: u64,
    /// Receive calls.
    pub receive_calls: u64,
    /// Send calls.
    pub send_calls: u64,
    /// Sends by sendpage.
    pub sendpage: u64,
    /// Receives by splice.
    pub splice: u64,
    /// Corked sends.
    pub cork: u64,
    /// Sends without delay.
    pub no_delay: u64,
    /// Urgent data.
    pub urgent: u64,
    /// Payload sizes of sends.
    pub send_sizes: SizeClasses,
    /// Payload sizes of receives.
    pub receive_sizes: SizeClasses,
    /// Sizes of the send buffers.
    pub send_buffer_sizes: SizeClasses,
    /// Sizes of the receive buffers.
    pub receive_buffer_sizes: SizeClasses,
    /// Send buffers.
    pub send_buffers: BufferCounters,
    /// Receive buffers.
    pub receive_buffers: BufferCounters,
}

impl TechnologyCounters {
    fn decode(nest: &Attributes<'_>) -> Result<Self, NetlinkError> {
        use technology_attribute::*;
        Ok(Self {
            client_v1: nest.counter(CLIENT_V1)?,
            client_v2: nest.counter(CLIENT_V2)?,
            server_v1: nest.counter(SERVER_V1)?,
            server_v2: nest.counter(SERVER_V2)?,
            received_bytes: nest.counter(RECEIVED_BYTES)?,
            sent_bytes: nest.counter(SENT_BYTES)?,
            receive_calls: nest.counter(RECEIVE_CALLS)?,
            send_calls: nest.counter(SEND_CALLS)?,
            sendpage: nest.counter(SENDPAGE)?,
            splice: nest.counter(SPLICE)?,
            cork: nest.counter(CORK)?,
            no_delay: nest.counter(NO_DELAY)?,
            urgent: nest.counter(URGENT)?,
            send_sizes: SizeClasses::decode(&nest.nest(SEND_PAYLOAD_SIZES)?)?,
            receive_sizes: SizeClasses::decode(&nest.nest(RECEIVE_PAYLOAD_SIZES)?)?,
            send_buffer_sizes: SizeClasses::decode(&nest.nest(SEND_BUFFER_SIZES)?)?,
            receive_buffer_sizes: SizeClasses::decode(&nest.nest(RECEIVE_BUFFER_SIZES)?)?,
            send_buffers: BufferCounters::decode(&nest.nest(SEND_BUFFERS)?, nest.counter(SEND_BUFFER_USAGE)?)?,
            receive_buffers: BufferCounters::decode(&nest.nest(RECEIVE_BUFFERS)?, nest.counter(RECEIVE_BUFFER_USAGE)?)?,
        })
    }
}

/// The few numbers that say how connections came about.
///
/// When N connections were made and all of them are SMC-D version 2, then `smcd_v2` has grown by N on each side and all
/// else has not.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// SMC-D version 2, as client and as server.
    pub smcd_v2: u64,
    /// SMC-D version 1, as client and as server.
    pub smcd_v1: u64,
    /// SMC-R of any version, as client and as server.
    pub smcr: u64,
    /// Connections that became TCP, as client and as server.
    pub fallbacks: u64,
    /// Failed handshakes, as client and as server.
    pub handshake_errors: u64,
}

/// All counters.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Statistics {
    /// The numbers that matter most.
    pub summary: Summary,
    /// Failed handshakes as client.
    pub client_handshake_errors: u64,
    /// Failed handshakes as server.
    pub server_handshake_errors: u64,
    /// Connections that became TCP.
    pub fallbacks: FallbackStatistics,
    /// SMC-D.
    pub smcd: TechnologyCounters,
    /// SMC-R.
    pub smcr: TechnologyCounters,
}

impl Statistics {
    /// Queries the kernel.
    ///
    /// # Errors
    ///
    /// Returns the error of the netlink exchange.
    pub fn query(family: &mut SmcFamily) -> Result<Self, NetlinkError> {
        let bodies = family.list(Command::GetStatistics)?;
        let body = bodies.first().ok_or_else(|| NetlinkError::malformed("no statistics"))?;
        let fallbacks = FallbackStatistics::query(family)?;
        Self::decode(body, fallbacks)
    }

    fn decode(body: &[u8], fallbacks: FallbackStatistics) -> Result<Self, NetlinkError> {
        use top_attribute::*;
        let nest = Attributes::parse(body)?.nest(Nest::Statistics as u16)?;
        let smcd = TechnologyCounters::decode(&nest.nest(SMCD)?)?;
        let smcr = TechnologyCounters::decode(&nest.nest(SMCR)?)?;
        let client_handshake_errors = nest.counter(CLIENT_HANDSHAKE_ERRORS)?;
        let server_handshake_errors = nest.counter(SERVER_HANDSHAKE_ERRORS)?;
        let summary = Summary {
            smcd_v2: smcd.client_v2 + smcd.server_v2,
            smcd_v1: smcd.client_v1 + smcd.server_v1,
            smcr: smcr.client_v1 + smcr.client_v2 + smcr.server_v1 + smcr.server_v2,
            fallbacks: fallbacks.client + fallbacks.server,
            handshake_errors: client_handshake_errors + server_handshake_errors,
        };
        Ok(Self {
            summary,
            client_handshake_errors,
            server_handshake_errors,
            fallbacks,
            smcd,
            smcr,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::attributes::emit::attribute;
    use super::*;

    /// Returns a counter as `nla_put_u64_64bit` writes it, after an empty attribute as padding.
    fn counter(number: u16, value: u64) -> Vec<u8> {
        let mut bytes = attribute(0, &[]);
        bytes.extend(attribute(number, &value.to_ne_bytes()));
        bytes
    }

    #[test]
    fn answer_is_decoded_and_summed_up() {
        let mut smcd = counter(technology_attribute::CLIENT_V2, 200);
        smcd.extend(counter(technology_attribute::SERVER_V2, 3));
        smcd.extend(counter(technology_attribute::SENT_BYTES, 1 << 40));
        smcd.extend(attribute(technology_attribute::SEND_PAYLOAD_SIZES, &counter(4, 9)));
        smcd.extend(attribute(
            technology_attribute::RECEIVE_BUFFERS,
            &counter(buffer_attribute::ALLOCATED, 200),
        ));
        smcd.extend(attribute(
            technology_attribute::RECEIVE_BUFFER_USAGE,
            &65536_u32.to_ne_bytes(),
        ));
        let mut nest = attribute(top_attribute::SMCD, &smcd);
        nest.extend(attribute(
            top_attribute::SMCR,
            &counter(technology_attribute::CLIENT_V1, 1),
        ));
        nest.extend(counter(top_attribute::CLIENT_HANDSHAKE_ERRORS, 2));
        let body = attribute(Nest::Statistics as u16, &nest);
        let fallbacks = FallbackStatistics {
            client: 4,
            server: 1,
            ..Default::default()
        };
        let statistics = Statistics::decode(&body, fallbacks).unwrap();
        let summary = Summary {
            smcd_v2: 203,
            smcd_v1: 0,
            smcr: 1,
            fallbacks: 5,
            handshake_errors: 2,
        };
        assert_eq!(statistics.summary, summary);
        assert_eq!(statistics.smcd.sent_bytes, 1 << 40);
        assert_eq!(statistics.smcd.send_sizes.k64, 9);
        assert_eq!(statistics.smcd.receive_buffers.allocated, 200);
        assert_eq!(statistics.smcd.receive_buffers.usage, 65536);
    }
}
