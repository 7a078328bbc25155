"""Captures the frames received on an interface and checks each: lengths, IPv4 header, TCP, UDP and ICMP checksums.

usage: frames.py INTERFACE MTU

Prints "ready", captures until standard input ends, then prints counters as JSON. Outgoing frames are ignored, as they
are captured before their checksums are filled in.
"""
import json
import select
import socket
import struct
import sys
from collections import Counter

ETH_P_ALL = 3
PACKET_OUTGOING = 4
SOL_PACKET = 263
PACKET_STATISTICS = 6
SO_RCVBUFFORCE = 33
VLAN = (0x8100, 0x88A8)

seen = Counter()
faults = []


def fault(text, frame):
    seen["faults"] += 1
    if len(faults) < 5:
        faults.append(text + ": " + frame[:96].hex())


def ones_sum(data, start=0):
    """One's complement sum of big-endian 16-bit words (RFC 1071)."""
    if len(data) % 2:
        data += b"\0"
    total = start + sum(struct.unpack("!%dH" % (len(data) // 2), data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def check_transport(frame, protocol, pseudo, payload):
    if protocol == 17 and len(payload) >= 8:
        seen["udp"] += 1
        length = struct.unpack("!H", payload[4:6])[0]
        if length != len(payload):
            fault("UDP length %d of %d" % (length, len(payload)), frame)
        if payload[6:8] == b"\0\0":
            seen["udp_unchecked"] += 1
            return
    elif protocol == 6:
        seen["tcp"] += 1
    elif protocol == 58:
        seen["icmpv6"] += 1
    elif protocol == 1:
        seen["icmp"] += 1
        pseudo = b""
    else:
        seen["other_transport"] += 1
        return
    if ones_sum(payload, ones_sum(pseudo)) != 0xFFFF:
        fault("checksum of protocol %d" % protocol, frame)


def check_ipv4(frame, packet):
    seen["ipv4"] += 1
    if len(packet) < 20:
        return fault("short IPv4", frame)
    header = (packet[0] & 15) * 4
    total = struct.unpack("!H", packet[2:4])[0]
    if ones_sum(packet[:header]) != 0xFFFF:
        fault("IPv4 header checksum", frame)
    if total > len(packet):
        return fault("IPv4 length %d of %d" % (total, len(packet)), frame)
    if struct.unpack("!H", packet[6:8])[0] & 0x3FFF:
        seen["fragments"] += 1
        return
    payload = packet[header:total]
    pseudo = packet[12:20] + struct.pack("!HH", packet[9], len(payload))
    check_transport(frame, packet[9], pseudo, payload)


def check_ipv6(frame, packet):
    seen["ipv6"] += 1
    if len(packet) < 40:
        return fault("short IPv6", frame)
    length, protocol = struct.unpack("!HB", packet[4:7])
    if length > len(packet) - 40:
        return fault("IPv6 length %d of %d" % (length, len(packet) - 40), frame)
    payload = packet[40 : 40 + length]
    if protocol == 0 and payload:
        # Hop-by-hop options, as in multicast listener reports.
        skip = (payload[1] + 1) * 8
        protocol, payload = payload[0], payload[skip:]
    pseudo = packet[8:40] + struct.pack("!II", len(payload), protocol)
    check_transport(frame, protocol, pseudo, payload)


def check(frame, mtu):
    seen["frames"] += 1
    seen["bytes"] += len(frame)
    ethertype, at = struct.unpack("!H", frame[12:14])[0], 14
    while ethertype in VLAN and len(frame) >= at + 4:
        seen["tagged"] += 1
        ethertype = struct.unpack("!H", frame[at + 2 : at + 4])[0]
        at += 4
    if frame[0] & 1:
        seen["group"] += 1
    if len(frame) - at > mtu:
        fault("%d bytes" % len(frame), frame)
    seen["longest"] = max(seen["longest"], len(frame) - at)
    if ethertype == 0x0800:
        check_ipv4(frame, frame[at:])
    elif ethertype == 0x86DD:
        check_ipv6(frame, frame[at:])
    else:
        seen["other"] += 1


def main():
    interface, mtu = sys.argv[1], int(sys.argv[2])
    capture = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    capture.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 256 << 20)
    capture.bind((interface, ETH_P_ALL))
    print("ready", flush=True)
    ending = False
    while True:
        readable = select.select([capture] if ending else [capture, sys.stdin], [], [], 0 if ending else None)[0]
        if sys.stdin in readable:
            ending = not sys.stdin.buffer.read(1)
        if capture in readable:
            frame, address = capture.recvfrom(65536)
            if address[2] != PACKET_OUTGOING:
                check(frame, mtu)
        elif ending:
            break
    _, dropped = struct.unpack("II", capture.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8))
    print(json.dumps(dict(seen, dropped=dropped, examples=faults)))


main()
