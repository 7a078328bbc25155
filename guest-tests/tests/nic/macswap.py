"""Sends frames to a program that swaps their addresses, and compares what comes back byte by byte.

usage: macswap.py INTERFACE ADDRESS COUNT BURST

Prints the numbers of frames sent and returned.
"""
import random
import socket
import sys

# Local experimental EtherType 1 (IEEE 802).
ETHER_TYPE = 0x88B5
SHORTEST, LONGEST = 60, 1514

interface, address, count, burst = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETHER_TYPE))
wire.bind((interface, ETHER_TYPE))
wire.settimeout(20)
peer = bytes.fromhex(address.replace(":", ""))
own = wire.getsockname()[4]
kind = ETHER_TYPE.to_bytes(2, "big")
source = random.Random(count)


def payload(number):
    """Length of every residue, each frame with its number first."""
    length = SHORTEST + number * 37 % (LONGEST - SHORTEST + 1) - 14
    return number.to_bytes(4, "big") + source.randbytes(length - 4)


sent = returned = 0
while sent < count:
    expected = {}
    for _ in range(min(burst, count - sent)):
        data = payload(sent)
        wire.send(peer + own + kind + data)
        expected[own + peer + kind + data] = sent
        sent += 1
    while expected:
        frame = wire.recv(2048)
        if frame[:6] != own:
            continue
        if expected.pop(frame, None) is None:
            sys.exit("frame %d came back wrong or twice: %s" % (int.from_bytes(frame[14:18], "big"), frame.hex()))
        returned += 1
print(sent, returned)
