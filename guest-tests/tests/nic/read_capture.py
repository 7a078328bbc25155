"""Reads a capture twice, on its own and with tshark, and reports each packet as a line of JSON.

The blocks, the BTH and the ICRC are read here without Wireshark's code. Usage: read_capture.py TSHARK FILE
"""

import json
import struct
import subprocess
import sys
import zlib

SECTION, INTERFACE, PACKET = 0x0A0D0D0A, 1, 6
COMMENT, IF_NAME, IF_TSRESOL = 1, 2, 9
ETHERNET, USER0 = 1, 147
ROCE_PORT = 4791
FIELDS = [
    "infiniband.bth.opcode",
    "infiniband.bth.destqp",
    "infiniband.bth.psn",
    "infiniband.invariant.crc",
    "frame.comment",
    "_ws.malformed",
]


def options(data):
    """Yields the options of a block (pcapng, section 3.5)."""
    while len(data) >= 4:
        code, length = struct.unpack_from("<HH", data)
        if code == 0:
            return
        yield code, data[4 : 4 + length]
        data = data[4 + (length + 3 & ~3) :]


def blocks(data):
    while data:
        kind, length = struct.unpack_from("<II", data)
        assert struct.unpack_from("<I", data, length - 4)[0] == length
        yield kind, data[8 : length - 4]
        data = data[length:]


def roce(frame):
    """Returns opcode, destination QP, PSN, the ICRC, and the ICRC as IBTA annex A17 has it; None for other frames."""
    if frame[12:14] != b"\x08\x00" or frame[14] != 0x45 or frame[23] != 17:
        return None
    if struct.unpack_from(">H", frame, 36)[0] != ROCE_PORT:
        return None
    opcode, _, _, qp, psn = struct.unpack_from(">BBHII", frame, 42)
    covered = bytearray(b"\xff" * 8 + frame[14:-4])
    # Type of service, time to live, checksums of IPv4 and UDP, congestion bits of the BTH.
    for at in (9, 16, 18, 19, 34, 35, 40):
        covered[at] = 0xFF
    crc = zlib.crc32(covered)
    return opcode, qp & 0xFFFFFF, psn & 0xFFFFFF, struct.unpack("<I", frame[-4:])[0], crc


def number(text):
    return int(text, 0) if text else None


tshark, path = sys.argv[1:]
command = [tshark, "-r", path, "-T", "fields", "-E", "separator=/t", "-E", "occurrence=f"]
for field in FIELDS:
    command += ["-e", field]
dissected = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
interfaces, index = [], 0
with open(path, "rb") as file:
    content = file.read()
for kind, body in blocks(content):
    if kind == SECTION:
        assert struct.unpack_from("<I", body)[0] == 0x1A2B3C4D
    elif kind == INTERFACE:
        described = dict(options(body[8:]))
        link, resolution = struct.unpack_from("<H", body)[0], described[IF_TSRESOL][0]
        interfaces.append((described[IF_NAME].decode(), link, resolution))
    elif kind == PACKET:
        interface, high, low, length, original = struct.unpack_from("<IIIII", body)
        frame = body[20 : 20 + length]
        name, link, resolution = interfaces[interface]
        comments = [text.decode() for code, text in options(body[20 + (length + 3 & ~3) :]) if code == COMMENT]
        opcode, qp, psn, crc, comment, malformed = dissected[index].split("\t")
        packet = {
            "interface": name,
            "link": link,
            "resolution": resolution,
            "time": high << 32 | low,
            "whole": length == original,
            "comment": comments[0] if comments else "",
            "malformed": malformed != "",
            "same_comment": comment == "".join(comments[:1]),
        }
        own = roce(frame) if link == ETHERNET else None
        packet["same_transport"] = (own and own[:3]) == (
            (number(opcode), number(qp), number(psn)) if opcode else None
        )
        if own:
            packet |= {"opcode": own[0], "qp": own[1], "psn": own[2]}
            # The dissector shows the bytes as a big-endian number.
            shown = struct.unpack("<I", struct.pack(">I", number(crc)))[0] if crc else None
            packet["crc_is_right"] = own[3] == own[4] == shown
        print(json.dumps(packet))
        index += 1
assert index == len(dissected), "tshark sees other packets"
