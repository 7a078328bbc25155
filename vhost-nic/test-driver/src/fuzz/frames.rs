//! Bytes become frames: headers of every protocol that a NIC parses, with lengths that are right or not.

use super::choices::Choices;

/// Ethertypes.
const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
const CVLAN: u16 = 0x8100;
const SVLAN: u16 = 0x88a8;
const ROCE: u16 = 0x8915;
const OTHER: [u16; 3] = [0x0806, 0x88b5, 0x0600];
/// IP protocols.
const HOP_BY_HOP: u8 = 0;
const TCP: u8 = 6;
const UDP: u8 = 17;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const ESP: u8 = 50;
const AH: u8 = 51;
const ICMPV6: u8 = 58;
const DESTINATION_OPTIONS: u8 = 60;
/// UDP port of RoCE v2.
const ROCE_PORT: u16 = 4791;
/// Bytes of the longest payload.
const PAYLOAD: usize = 1300;

/// Builds a frame from one of these addresses to another, or of garbage.
pub fn frame(choices: &mut Choices<'_>, macs: &[[u8; 6]]) -> Option<Vec<u8>> {
    let payload = payload(choices)?;
    if choices.byte()? < 16 {
        return Some(payload);
    }
    let mut frame = [choices.one(macs)?, choices.one(macs)?].concat();
    for _ in 0..choices.byte()?.saturating_sub(160) % 4 {
        frame.extend(choices.one(&[CVLAN, CVLAN, SVLAN])?.to_be_bytes());
        frame.extend(choices.one(&[0, 1, 7, 0xe001, 0xffff_u16])?.to_be_bytes());
    }
    match choices.byte()? {
        0..=99 => {
            frame.extend(IPV4.to_be_bytes());
            ipv4(choices, &payload, &mut frame)?;
        }
        100..=199 => {
            frame.extend(IPV6.to_be_bytes());
            ipv6(choices, &payload, &mut frame)?;
        }
        200..=224 => {
            frame.extend(ROCE.to_be_bytes());
            let rest = [bth(choices)?, payload].concat();
            ipv6_header(choices, 0x1b, rest.len(), &mut frame)?;
            frame.extend(rest);
        }
        _ => {
            frame.extend(choices.one(&OTHER)?.to_be_bytes());
            frame.extend(payload);
        }
    }
    choices.damage(&mut frame)?;
    if choices.byte()? >= 240 {
        frame.truncate(choices.index(frame.len())?);
    }
    // Padding.
    if choices.byte()? >= 200 {
        frame.resize(frame.len().max(60), choices.byte()?);
    }
    Some(frame)
}

/// A few chosen bytes, and then a pattern.
fn payload(choices: &mut Choices<'_>) -> Option<Vec<u8>> {
    let length = match choices.byte()? {
        0..=199 => choices.index(100)?,
        _ => choices.index(PAYLOAD)?,
    };
    let filler = choices.byte()?;
    let mut payload: Vec<u8> = (0..length).map(|at| filler.wrapping_add(at as u8)).collect();
    for byte in payload.iter_mut().take(8) {
        *byte = choices.byte()?;
    }
    Some(payload)
}

fn bth(choices: &mut Choices<'_>) -> Option<Vec<u8>> {
    let mut bth = vec![0; 12];
    bth[0] = choices.byte()?;
    bth[2..4].copy_from_slice(&[0xff; 2]);
    bth[7] = choices.byte()?;
    bth[11] = choices.byte()?;
    Some(bth)
}

/// A transport header with its payload, and the number of its protocol.
fn transport(choices: &mut Choices<'_>, payload: &[u8]) -> Option<(u8, Vec<u8>)> {
    let ports = [choices.word()?.to_be_bytes()].concat();
    Some(match choices.byte()? {
        0..=79 => {
            let options = choices.one(&[0, 0, 3, 10])?;
            let mut header = ports;
            header.extend([0; 8]);
            header.extend([(5 + options) << 4, choices.byte()?, 0, 0, 0, 0, 0, 0]);
            header.resize(20 + usize::from(options) * 4, 1);
            (TCP, [&header, payload].concat())
        }
        80..=139 => {
            let length = (payload.len() + 8) as u16;
            let header = [&ports[..], &length.to_be_bytes(), &[0; 2]].concat();
            (UDP, [&header, payload].concat())
        }
        140..=199 => {
            let inner = [bth(choices)?, payload.to_vec()].concat();
            let length = (inner.len() + 8) as u16;
            let port = ROCE_PORT.to_be_bytes();
            (
                UDP,
                [&ports[..2], &port, &length.to_be_bytes(), &[0; 2], &inner].concat(),
            )
        }
        200..=219 => (choices.one(&[ESP, AH])?, payload.to_vec()),
        _ => (choices.one(&[1, ICMPV6, 132])?, payload.to_vec()),
    })
}

fn ipv4(choices: &mut Choices<'_>, payload: &[u8], frame: &mut Vec<u8>) -> Option<()> {
    let (protocol, rest) = transport(choices, payload)?;
    let options = usize::from(choices.one(&[0, 0, 0, 1, 10_u8])?);
    let mut header = vec![0; 20 + options * 4];
    header[0] = 0x45 + options as u8;
    let total = (header.len() + rest.len()) as u16;
    header[2..4].copy_from_slice(&total.to_be_bytes());
    header[6..8].copy_from_slice(&choices.one(&[0, 0, 0x4000, 0x2000, 0x00ff_u16])?.to_be_bytes());
    header[8] = 64;
    header[9] = protocol;
    header[12..16].copy_from_slice(&[10, 0, 0, 1]);
    header[16..20].copy_from_slice(&[10, 0, 0, 2]);
    let sum: u32 = header
        .chunks(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])))
        .sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let checksum = !((folded & 0xffff) + (folded >> 16)) as u16;
    header[10..12].copy_from_slice(&checksum.to_be_bytes());
    frame.extend(header);
    frame.extend(rest);
    Some(())
}

fn ipv6_header(choices: &mut Choices<'_>, next: u8, length: usize, frame: &mut Vec<u8>) -> Option<()> {
    let mut header = vec![0; 40];
    header[0] = 0x60;
    header[3] = choices.byte()?;
    header[4..6].copy_from_slice(&(length as u16).to_be_bytes());
    header[6] = next;
    header[7] = 64;
    header[23] = 1;
    header[39] = 2;
    frame.extend(header);
    Some(())
}

fn ipv6(choices: &mut Choices<'_>, payload: &[u8], frame: &mut Vec<u8>) -> Option<()> {
    let (mut next, mut rest) = transport(choices, payload)?;
    for _ in 0..choices.byte()?.saturating_sub(128) % 5 {
        let kind = choices.one(&[HOP_BY_HOP, ROUTING, FRAGMENT, DESTINATION_OPTIONS])?;
        let units = if kind == FRAGMENT { 0 } else { choices.byte()? % 3 };
        let mut extension = vec![0; 8 + usize::from(units) * 8];
        extension[0] = next;
        if kind == FRAGMENT {
            extension[3] = choices.one(&[0, 1, 8])?;
        } else {
            extension[1] = units;
        }
        rest = [extension, rest].concat();
        next = kind;
    }
    ipv6_header(choices, next, rest.len(), frame)?;
    frame.extend(rest);
    Some(())
}
