//! Commands that show or change the SMC state of the kernel.

use std::net::SocketAddr;
use std::path::Path;

use anyhow::Context;
use serde::Serialize;
use smc_tool::dibs::{self, DibsDevice};
use smc_tool::netlink::devices::{self, Device};
use smc_tool::netlink::eid::{self, Ueid};
use smc_tool::netlink::link_groups::{self, Agreement, SmcdLinkGroup, SmcrLinkGroup};
use smc_tool::netlink::pnetid::{self, Pnetid};
use smc_tool::netlink::sockets::{self, SmcSocket};
use smc_tool::netlink::statistics::Statistics;
use smc_tool::netlink::system::SystemInfo;
use smc_tool::netlink::{NetlinkError, SmcFamily};

use super::output::{self, Format};
use super::table::{table, text};

pub(super) fn add_ueid(name: &Ueid) -> anyhow::Result<()> {
    Ok(eid::add_ueid(&mut SmcFamily::open()?, name)?)
}

pub(super) fn remove_ueid(name: &Ueid) -> anyhow::Result<()> {
    Ok(eid::remove_ueid(&mut SmcFamily::open()?, name)?)
}

pub(super) fn flush_ueids() -> anyhow::Result<()> {
    Ok(eid::flush_ueids(&mut SmcFamily::open()?)?)
}

pub(super) fn ueids(format: Format) -> anyhow::Result<()> {
    let names = eid::list_ueids(&mut SmcFamily::open()?)?;
    match format {
        Format::Json => output::report(format, &names),
        Format::Text => output::print(&names.iter().map(|name| format!("{name}\n")).collect::<String>()),
    }
}

pub(super) fn add_pnetid(name: &Pnetid, interface: Option<&str>, device: Option<&str>) -> anyhow::Result<()> {
    if let Some(interface) = interface {
        pnetid::add_interface(name, interface)?;
    }
    if let Some(device) = device {
        pnetid::add_device(name, device, 1)?;
    }
    Ok(())
}

pub(super) fn seid(format: Format) -> anyhow::Result<()> {
    output::report(format, &eid::seid(&mut SmcFamily::open()?)?)
}

pub(super) fn set_seid(enabled: bool) -> anyhow::Result<()> {
    Ok(eid::set_seid(&mut SmcFamily::open()?, enabled)?)
}

/// Capabilities and devices.
#[derive(Debug, Serialize)]
struct Info {
    #[serde(flatten)]
    system: SystemInfo,
    ueids: Vec<String>,
    /// Devices listed by netlink, which excludes loopback.
    smcd_devices: usize,
    dibs_devices: usize,
}

pub(super) fn info(format: Format) -> anyhow::Result<()> {
    let mut family = SmcFamily::open()?;
    let info = Info {
        system: SystemInfo::query(&mut family)?,
        ueids: eid::list_ueids(&mut family)?,
        smcd_devices: devices::smcd(&mut family)?.len(),
        dibs_devices: dibs_devices()?.len(),
    };
    output::report(format, &info)
}

fn dibs_devices() -> anyhow::Result<Vec<DibsDevice>> {
    dibs::list(Path::new(dibs::CLASS)).context(dibs::CLASS)
}

/// Output of `devices`.
#[derive(Debug, Serialize)]
struct Devices {
    dibs: Vec<DibsDevice>,
    smcd: Vec<Device>,
    smcr: Vec<Device>,
}

pub(super) fn devices(format: Format) -> anyhow::Result<()> {
    // sysfs lists devices without SMC, too.
    let (smcd, smcr) = match SmcFamily::open() {
        Err(NetlinkError::NoFamily(_)) => (Vec::new(), Vec::new()),
        other => {
            let mut family = other?;
            (devices::smcd(&mut family)?, devices::smcr(&mut family)?)
        }
    };
    let devices = Devices {
        dibs: dibs_devices()?,
        smcd,
        smcr,
    };
    if format == Format::Json {
        return output::report(format, &devices);
    }
    let mut dibs = table(&["DIBS", "GID", "FABRIC", "PARENT"]);
    for device in &devices.dibs {
        dibs.add_row([
            device.name.clone(),
            or_dash(device.gid.as_deref()),
            or_dash(device.fabric_id.as_deref()),
            or_dash(device.parent.as_deref()),
        ]);
    }
    let mut smc = table(&["SMC", "DEVICE", "PCI", "GROUPS", "PNETID"]);
    for (kind, list) in [("D", &devices.smcd), ("R", &devices.smcr)] {
        for device in list {
            smc.add_row([
                kind.into(),
                or_dash(device.pci_id.as_deref().or(device.ib_name.as_deref())),
                format!("{:04x}:{:04x}", device.pci_vendor, device.pci_device),
                device.link_groups.to_string(),
                or_dash(device.pnetid.as_deref()),
            ]);
        }
    }
    output::print(&format!("{}{}", text(&dibs), text(&smc)))
}

fn or_dash(text: Option<&str>) -> String {
    text.unwrap_or("-").to_owned()
}

/// Output of `linkgroups`.
#[derive(Debug, Serialize)]
struct LinkGroups {
    smcd: Vec<SmcdLinkGroup>,
    smcr: Vec<SmcrLinkGroup>,
}

pub(super) fn link_groups(format: Format) -> anyhow::Result<()> {
    let mut family = SmcFamily::open()?;
    let groups = LinkGroups {
        smcd: link_groups::smcd(&mut family)?,
        smcr: link_groups::smcr(&mut family)?,
    };
    if format == Format::Json {
        return output::report(format, &groups);
    }
    let mut table = table(&[
        "KIND",
        "ID",
        "CONNS",
        "CHID",
        "MY-GID",
        "PEER-GID",
        "VERSION",
        "EID",
        "PEER-HOST",
    ]);
    for group in &groups.smcd {
        let [version, eid, host] = agreement(group.v2.as_ref());
        table.add_row([
            "D".into(),
            format!("{:08x}", group.id),
            group.connections.to_string(),
            format!("{:#06x}", group.chid),
            group.my_gid.to_string(),
            group.peer_gid.to_string(),
            version,
            eid,
            host,
        ]);
    }
    for group in &groups.smcr {
        let [version, eid, host] = agreement(group.v2.as_ref());
        let dash = || "-".to_owned();
        let id = format!("{:08x}", group.id);
        table.add_row([
            "R".into(),
            id,
            group.connections.to_string(),
            dash(),
            dash(),
            dash(),
            version,
            eid,
            host,
        ]);
    }
    output::print(&text(&table))
}

fn agreement(v2: Option<&Agreement>) -> [String; 3] {
    match v2 {
        Some(v2) => [
            v2.version.to_string(),
            or_dash(v2.eid.as_deref()),
            or_dash(v2.peer_host.as_deref()),
        ],
        None => ["1", "-", "-"].map(str::to_owned),
    }
}

pub(super) fn sockets(format: Format, connections: bool) -> anyhow::Result<()> {
    let mut sockets = sockets::list()?;
    if connections {
        sockets.retain(SmcSocket::is_connection);
    }
    if format == Format::Json {
        return output::report(format, &sockets);
    }
    let mut table = table(&[
        "STATE",
        "MODE",
        "LOCAL",
        "PEER",
        "INODE",
        "GROUP",
        "MY-GID",
        "PEER-GID",
        "TOKEN",
        "PEER-TOKEN",
        "FALLBACK",
    ]);
    for socket in &sockets {
        let dmb = |value: fn(&sockets::Dmb) -> String| socket.dmb.as_ref().map_or_else(|| "-".to_owned(), value);
        let mode = if socket.is_connection() {
            format!("{:?}", socket.mode).to_lowercase()
        } else {
            "-".into()
        };
        table.add_row([
            format!("{:?}", socket.state).to_lowercase(),
            mode,
            shown_address(socket.local, socket.local_port),
            shown_address(socket.peer, socket.peer_port),
            socket.inode.to_string(),
            dmb(|dmb| format!("{:08x}", dmb.link_group)),
            dmb(|dmb| dmb.my_gid.to_string()),
            dmb(|dmb| dmb.peer_gid.to_string()),
            dmb(|dmb| format!("{:016x}", dmb.token.0)),
            dmb(|dmb| format!("{:016x}", dmb.peer_token.0)),
            fallback(socket),
        ]);
    }
    output::print(&text(&table))
}

/// Formats an address. The kernel reports none for sockets created with IPPROTO_SMC.
fn shown_address(address: Option<SocketAddr>, port: u16) -> String {
    address.map_or_else(|| format!("?:{port}"), |address| address.to_string())
}

fn fallback(socket: &SmcSocket) -> String {
    match (socket.fallback_reason.0, socket.peer_diagnosis.0) {
        (0, _) => "-".into(),
        (_, 0) => socket.fallback_reason.to_string(),
        _ => format!("{}, peer: {}", socket.fallback_reason, socket.peer_diagnosis),
    }
}

pub(super) fn stats(format: Format) -> anyhow::Result<()> {
    let statistics = Statistics::query(&mut SmcFamily::open()?)?;
    if format == Format::Json {
        return output::report(format, &statistics);
    }
    let mut table = table(&["COUNTER", "SMC-D", "SMC-R"]);
    let [d, r] = [&statistics.smcd, &statistics.smcr];
    for (name, d, r) in [
        ("client v1", d.client_v1, r.client_v1),
        ("client v2", d.client_v2, r.client_v2),
        ("server v1", d.server_v1, r.server_v1),
        ("server v2", d.server_v2, r.server_v2),
        ("sent bytes", d.sent_bytes, r.sent_bytes),
        ("received bytes", d.received_bytes, r.received_bytes),
        ("send calls", d.send_calls, r.send_calls),
        ("receive calls", d.receive_calls, r.receive_calls),
        ("splice", d.splice, r.splice),
        ("sendpage", d.sendpage, r.sendpage),
        (
            "receive buffers made",
            d.receive_buffers.allocated,
            r.receive_buffers.allocated,
        ),
        (
            "receive buffers reused",
            d.receive_buffers.reused,
            r.receive_buffers.reused,
        ),
        (
            "receive buffers smaller than asked",
            d.receive_buffers.downgraded,
            r.receive_buffers.downgraded,
        ),
        ("receive buffer full", d.receive_buffers.full, r.receive_buffers.full),
        (
            "peer's buffer full",
            d.send_buffers.full_at_peer,
            r.send_buffers.full_at_peer,
        ),
        ("send buffers made", d.send_buffers.allocated, r.send_buffers.allocated),
    ] {
        table.add_row([name.into(), d.to_string(), r.to_string()]);
    }
    let mut report = text(&table);
    report += &format!(
        "handshake errors: client {}, server {}\nfallbacks: client {}, server {}\n",
        statistics.client_handshake_errors,
        statistics.server_handshake_errors,
        statistics.fallbacks.client,
        statistics.fallbacks.server,
    );
    for reason in &statistics.fallbacks.reasons {
        let side = if reason.server_side { "server" } else { "client" };
        report += &format!("  {side} {}: {}\n", reason.reason, reason.count);
    }
    output::print(&report)
}
