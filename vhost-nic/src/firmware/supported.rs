//! Renders docs/supported.md from the tables, and checks that the page in the tree is up to date.

use std::collections::BTreeSet;
use std::fmt::Debug;

use mlx5_prm::opcode::Opcode;
use mlx5_prm::wqe::WqeOpcode;

use super::access_reg::REGISTERS;
use super::capabilities::Capabilities;
use super::capability_table::Group;
use super::{FAMILIES, syndrome};
use crate::hca::event::EVENTS;
use crate::hca::send_opcodes;
use crate::roce::opcode::{self as roce, Transport};

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/supported.md");
const WIDTH: usize = 120;

#[test]
fn the_page_of_what_is_supported_is_up_to_date() {
    let page = render();
    let long: Vec<_> = page.lines().filter(|line| line.chars().count() > WIDTH).collect();
    assert!(long.is_empty(), "too long: {long:#?}");
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(PAGE, &page).unwrap();
    }
    let current = std::fs::read_to_string(PAGE).unwrap_or_default();
    assert!(
        current == page,
        "docs/supported.md is out of date: UPDATE=1 cargo test -p vhost-nic --lib supported"
    );
}

fn render() -> String {
    [
        INTRODUCTION.to_owned(),
        commands(),
        capabilities(),
        send_wqes(),
        packets(),
        registers(),
        events(),
        syndromes(),
    ]
    .join("\n")
}

const INTRODUCTION: &str = "\
# What vhost-nic supports of the mlx5 interface

For driver developers: the commands, capabilities, work requests, packets, registers and events that the device
implements. Names and numbers are those of the Linux headers (`include/linux/mlx5`).

Generated from the tables in `vhost-nic/src` by `UPDATE=1 cargo test -p vhost-nic --lib supported`; do not edit.
";

fn commands() -> String {
    let mut page = String::from("## Commands\n\n");
    let mut table = Table::new(&["Opcode", "Command", "Family"]);
    let mut supported = BTreeSet::new();
    for (family, commands) in FAMILIES {
        for (opcode, _) in *commands {
            supported.insert(*opcode);
            table.row([format!("{:#x}", opcode.0), code(opcode), (*family).to_owned()]);
        }
    }
    page += &table.render();
    page += "\n### Not supported\n\nRefused with status BAD_OP (0x2), like any opcode not listed here.\n\n";
    let mut others: Vec<_> = Opcode::ALL
        .iter()
        .filter(|(opcode, _)| !supported.contains(opcode))
        .collect();
    others.sort();
    let others: Vec<_> = others
        .iter()
        .map(|(opcode, name)| format!("{:#x}\u{a0}`{name}`", opcode.0))
        .collect();
    page += &wrap("", &(others.join(", ") + "."));
    page
}

fn capabilities() -> String {
    let mut page = String::from(
        "## Capabilities\n\n\
         Fields that are not listed are 0; those named `log_` are base-2 logarithms. `vhca_id` differs from guest to\n\
         guest, `bf` is 1 for a guest with `blue-flame=on`, and `--zero-capability` clears a field to test a driver.\n\
         SET_HCA_CAP is accepted for the general, atomic and RoCE groups.\n",
    );
    for group in Group::ALL {
        page += &format!("\n### {} (group {:#x})\n\n", group.title(), group as u16);
        let mut table = Table::new(&["Field", "Value", "Reason or unit"]);
        for capability in Capabilities::table().iter().filter(|entry| entry.group == group) {
            table.row([
                code(capability.field),
                capability.value.to_string(),
                capability.reason.to_owned(),
            ]);
        }
        page += &table.render();
    }
    page
}

fn send_wqes() -> String {
    let mut table = Table::new(&["Opcode", "Work request", "SQ", "RC, XRC QP", "UC QP", "UD, GSI QP"]);
    for opcode in WqeOpcode::ALL {
        let mut row = vec![format!("{:#04x}", *opcode as u8), code(opcode.name())];
        row.extend(
            [
                send_opcodes::ETHERNET,
                send_opcodes::RELIABLE,
                send_opcodes::UNRELIABLE,
                send_opcodes::DATAGRAM,
            ]
            .map(|opcodes| if opcodes.contains(*opcode) { "yes" } else { "-" }.to_owned()),
        );
        table.row(row);
    }
    format!(
        "## Send work requests\n\n\
         A WQE of any other opcode completes in error with syndrome LOCAL_QP_OP_ERR (0x2).\n\n{}",
        table.render()
    )
}

/// Operations by row: those of the transports differ only in bits 7:5 of the opcode.
fn packets() -> String {
    let transports = [Transport::Rc, Transport::Uc, Transport::Ud, Transport::Xrc];
    let mut table = Table::new(&["Packet", "RC", "UC", "UD", "XRC", "Headers behind the BTH"]);
    for low in 0..0x20 {
        let opcodes = transports.map(|transport| roce::Opcode::from_byte(transport as u8 | low));
        let Some(first) = opcodes.iter().copied().flatten().next() else {
            continue;
        };
        let suffix = match first.suffix() {
            roce::Suffix::None => String::new(),
            suffix => format!(" with {}", snake(suffix)),
        };
        let mut row = vec![format!(
            "{} {}{suffix}",
            snake(first.operation()),
            snake(first.position())
        )];
        row.extend(opcodes.map(|opcode| opcode.map_or("-".to_owned(), |opcode| format!("{:#04x}", opcode.byte()))));
        let headers: Vec<_> = first
            .extensions()
            .map(|header| format!("{header:?}").to_uppercase())
            .collect();
        row.push(if headers.is_empty() {
            "-".to_owned()
        } else {
            headers.join(", ")
        });
        table.row(row);
    }
    format!(
        "## RoCE packets\n\n\
         In front of the BTH is a GRH behind EtherType 0x8915 (RoCE v1), or an IPv4 or IPv6 header and UDP (RoCE v2),\n\
         as the type of the GID says that the path or address vector selects. The table has the headers of RC; UD\n\
         adds a DETH, and requests of XRC an XRCETH, in front of them. Packets of any other opcode are dropped, as\n\
         are CNPs (0x81): the device has no congestion control.\n\n{}",
        table.render()
    )
}

fn registers() -> String {
    let mut table = Table::new(&["Id", "Register", "Read", "Write"]);
    for register in REGISTERS {
        table.row([
            format!("{:#06x}", register.id),
            code(register.name),
            register.read.to_owned(),
            register.write.to_owned(),
        ]);
    }
    format!(
        "## Registers (ACCESS_REG)\n\nAny other register is refused with syndrome {:#x}.\n\n{}",
        syndrome::UNKNOWN_REGISTER,
        table.render()
    )
}

fn events() -> String {
    let mut table = Table::new(&["Type", "Event", "Occasion"]);
    for event in EVENTS {
        table.row([
            format!("{:#04x}", event.event_type as u8),
            code(snake(event.event_type)),
            event.occasion.to_owned(),
        ]);
    }
    format!("## Events\n\n{}", table.render())
}

fn syndromes() -> String {
    let mut page = String::from(
        "## Syndromes\n\n\
         Syndromes of the vendor's firmware that are publicly known, each returned for the same cause. A syndrome\n\
         with bit 31 set is specific to this device; the daemon's log gives the reason of the refusal.\n",
    );
    for row in syndrome::TABLE {
        let commands: Vec<_> = row.commands.iter().map(ToString::to_string).collect();
        let status = format!("{} ({:#x})", snake(row.status), row.status as u8);
        page += "\n- ";
        page += wrap("  ", &format!("`{:#08x}`, status {status}: {}.", row.number, row.text)).trim_start();
        page += &wrap("  ", &format!("Commands: {}.", commands.join(", ")));
        page += &wrap("  ", &format!("Source: {}.", row.source));
    }
    page
}

impl Group {
    fn title(self) -> &'static str {
        match self {
            Self::General => "General: `cmd_hca_cap`",
            Self::EthernetOffloads => "Ethernet offloads: `per_protocol_networking_offload_caps`",
            Self::Atomic => "Atomic: `atomic_caps`",
            Self::Roce => "RoCE: `roce_cap`",
            Self::FlowTable => "NIC receive flow tables: `flow_table_prop_layout`",
            Self::Qos => "Quality of service: `qos_cap`",
        }
    }
}

struct Table(Vec<Vec<String>>);

impl Table {
    fn new(header: &[&str]) -> Self {
        Self(vec![header.iter().map(ToString::to_string).collect()])
    }

    fn row(&mut self, cells: impl Into<Vec<String>>) {
        self.0.push(cells.into());
    }

    fn render(&self) -> String {
        let mut lines: Vec<_> = self
            .0
            .iter()
            .map(|cells| format!("| {} |\n", cells.join(" | ")))
            .collect();
        lines.insert(1, format!("|{}\n", "---|".repeat(self.0[0].len())));
        lines.concat()
    }
}

fn code(name: impl std::fmt::Display) -> String {
    format!("`{name}`")
}

/// Converts the name of a variant: `CqError` to `CQ_ERROR`.
fn snake(variant: impl Debug) -> String {
    let mut name = String::new();
    for letter in format!("{variant:?}").chars() {
        if letter.is_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.extend(letter.to_uppercase());
    }
    name
}

/// Breaks a text into lines that begin with `indent`.
fn wrap(indent: &str, text: &str) -> String {
    let (mut lines, mut line) = (String::new(), indent.to_owned());
    for word in text.split(' ') {
        if line.len() + 1 + word.len() > WIDTH && line.len() > indent.len() {
            lines += &line;
            lines.push('\n');
            line = indent.to_owned();
        }
        if line.len() > indent.len() {
            line.push(' ');
        }
        line += word;
    }
    lines + &line + "\n"
}
