//! Invariant CRC, computed bit by bit from the whole frame, as IBTA volume 1, section 7.8.1 and annexes A16 and A17
//! describe it: independently of the device.

/// Bytes of the Ethernet header.
const ETHERNET: usize = 14;
/// Bytes of the IPv4 header without options, and of the UDP header.
const IPV4: usize = 20;
const UDP: usize = 8;
/// Bytes of the GRH.
const GRH: usize = 40;

/// The CRC-32 of IEEE 802.3.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            if crc & 1 != 0 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 }
        })
    })
}

/// Computes the ICRC of an untagged RoCE frame, v1 or over IPv4, in the byte order of the packet.
pub fn of_frame(frame: &[u8]) -> [u8; 4] {
    let mut covered = vec![0xff; 8];
    covered.extend_from_slice(&frame[ETHERNET..frame.len() - 4]);
    if frame[12..14] == [0x89, 0x15] {
        // Traffic class, flow label, hop limit; congestion bits of the BTH.
        covered[8] |= 0x0f;
        for at in [9, 10, 11, 8 + 7, 8 + GRH + 4] {
            covered[at] = 0xff;
        }
        return crc32(&covered).to_le_bytes();
    }
    // Type of service, time to live, header checksum; UDP checksum; congestion bits of the BTH.
    let (ip, udp, bth) = (8, 8 + IPV4, 8 + IPV4 + UDP);
    for at in [ip + 1, ip + 8, ip + 10, ip + 11, udp + 6, udp + 7, bth + 4] {
        covered[at] = 0xff;
    }
    crc32(&covered).to_le_bytes()
}

#[test]
fn the_crc_is_that_of_the_standard() {
    assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
}
