//! Fallbacks to TCP: counts and reasons (net/smc/smc_stats.c).

use serde::Serialize;

use super::NetlinkError;
use super::attributes::Attributes;
use super::family::{Command, Nest, SmcFamily};
use crate::fallback_reason::FallbackReason;

/// `SMC_NLA_FBACK_STATS_TYPE`: 1 for a reason of the server side.
const SERVER_SIDE: u16 = 1;
/// `SMC_NLA_FBACK_STATS_SRV_CNT`.
const SERVER_TOTAL: u16 = 2;
/// `SMC_NLA_FBACK_STATS_CLNT_CNT`.
const CLIENT_TOTAL: u16 = 3;
/// `SMC_NLA_FBACK_STATS_RSN_CODE`.
const REASON: u16 = 4;
/// `SMC_NLA_FBACK_STATS_RSN_CNT`.
const REASON_COUNT: u16 = 5;

/// Number of fallbacks for one reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ReasonCount {
    /// Whether this host was the server.
    pub server_side: bool,
    /// Reason of the handshake.
    pub reason: FallbackReason,
    /// Number of fallbacks.
    pub count: u64,
}

/// Fallbacks since the module was loaded.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct FallbackStatistics {
    /// Fallbacks as client.
    pub client: u64,
    /// Fallbacks as server.
    pub server: u64,
    /// Fallbacks by reason. The kernel keeps the first 36 reasons of each side.
    pub reasons: Vec<ReasonCount>,
}

impl FallbackStatistics {
    /// Queries the kernel.
    ///
    /// # Errors
    ///
    /// Returns the error of the netlink exchange.
    pub fn query(family: &mut SmcFamily) -> Result<Self, NetlinkError> {
        Self::decode(&family.list(Command::GetFallbackStatistics)?)
    }

    /// Decodes one message per reason, the first of which has the totals. Without any fallback there is no message.
    fn decode(bodies: &[Vec<u8>]) -> Result<Self, NetlinkError> {
        let mut statistics = Self::default();
        for body in bodies {
            let nest = Attributes::parse(body)?.nest(Nest::FallbackStatistics as u16)?;
            statistics.client = statistics.client.max(nest.counter(CLIENT_TOTAL)?);
            statistics.server = statistics.server.max(nest.counter(SERVER_TOTAL)?);
            let code = u32::try_from(nest.counter(REASON)?).map_err(NetlinkError::malformed)?;
            statistics.reasons.push(ReasonCount {
                server_side: nest.flag(SERVER_SIDE)?,
                reason: FallbackReason(code),
                count: nest.counter(REASON_COUNT)?,
            });
        }
        Ok(statistics)
    }
}

#[cfg(test)]
mod tests {
    use super::super::attributes::emit::attribute;
    use super::*;

    #[test]
    fn totals_come_with_the_first_reason() {
        let mut first = attribute(SERVER_SIDE, &[1]);
        first.extend(attribute(SERVER_TOTAL, &3_u64.to_ne_bytes()));
        first.extend(attribute(CLIENT_TOTAL, &1_u64.to_ne_bytes()));
        first.extend(attribute(REASON, &0x0303_0008_u32.to_ne_bytes()));
        first.extend(attribute(REASON_COUNT, &3_u16.to_ne_bytes()));
        let mut second = attribute(SERVER_SIDE, &[0]);
        second.extend(attribute(REASON, &0x0500_0000_u32.to_ne_bytes()));
        second.extend(attribute(REASON_COUNT, &1_u16.to_ne_bytes()));
        let bodies = [first, second].map(|nest| attribute(Nest::FallbackStatistics as u16, &nest));
        let statistics = FallbackStatistics::decode(&bodies).unwrap();
        assert_eq!((statistics.client, statistics.server), (1, 3));
        assert_eq!(statistics.reasons.len(), 2);
        assert!(statistics.reasons[0].server_side);
        assert_eq!(statistics.reasons[0].reason.name(), Some("NOUEID"));
        assert!(!statistics.reasons[1].server_side);
    }

    #[test]
    fn no_message_means_no_fallback() {
        assert_eq!(FallbackStatistics::decode(&[]).unwrap(), FallbackStatistics::default());
    }
}
