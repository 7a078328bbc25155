"""What operations.py does: operations, orders of them, and the data they carry. Both sides know all about a case from the order and a number."""
import random

import pyverbs.enums as e

# Bytes on both sides of a target that must stay what they are.
GUARD = 4096
GUARD_BYTES = b"\xa5" * GUARD
# What is in front of a datagram (IBTA 11.4.1.2).
GRH = 40
WORD = 1 << 64

# The content of messages: this over and over, from where the case's number says. No power of two, so that nothing is at home one page or
# one packet further.
BLOCK = random.Random(4).randbytes((1 << 20) + 4093)
# What a target has before, so that no byte is right already.
INVERSE = BLOCK.translate(bytes(255 - byte for byte in range(256)))


class Fault(Exception):
    """Something is not as it must be."""


def same(what, found, expected):
    if found != expected:
        raise Fault(f"{what} is {found!r}, not {expected!r}")


class Operation:
    def __init__(self, opcode, completion, arrival=None, flags=0):
        self.opcode, self.completion, self.arrival, self.flags = opcode, completion, arrival, flags


OPERATIONS = {
    "send": Operation(e.IBV_WR_SEND, e.IBV_WC_SEND, e.IBV_WC_RECV),
    "send_imm": Operation(e.IBV_WR_SEND_WITH_IMM, e.IBV_WC_SEND, e.IBV_WC_RECV, e.IBV_WC_WITH_IMM),
    "send_inv": Operation(e.IBV_WR_SEND_WITH_INV, e.IBV_WC_SEND, e.IBV_WC_RECV, e.IBV_WC_WITH_INV),
    "write": Operation(e.IBV_WR_RDMA_WRITE, e.IBV_WC_RDMA_WRITE),
    "write_imm": Operation(
        e.IBV_WR_RDMA_WRITE_WITH_IMM, e.IBV_WC_RDMA_WRITE, e.IBV_WC_RECV_RDMA_WITH_IMM, e.IBV_WC_WITH_IMM
    ),
    "read": Operation(e.IBV_WR_RDMA_READ, e.IBV_WC_RDMA_READ),
    "compare_swap": Operation(e.IBV_WR_ATOMIC_CMP_AND_SWP, e.IBV_WC_COMP_SWAP),
    "compare_swap_differs": Operation(e.IBV_WR_ATOMIC_CMP_AND_SWP, e.IBV_WC_COMP_SWAP),
    "fetch_add": Operation(e.IBV_WR_ATOMIC_FETCH_AND_ADD, e.IBV_WC_FETCH_ADD),
    "fetch_add_wraps": Operation(e.IBV_WR_ATOMIC_FETCH_AND_ADD, e.IBV_WC_FETCH_ADD),
}


class Case:
    """One operation. Both sides know all about it from the order and a number."""

    def __init__(self, operation, size, way, serial):
        self.name, self.size, self.way, self.serial = operation, size, way, serial
        self.operation = OPERATIONS[operation]
        self.sends = operation.startswith("send")
        self.reads = operation == "read"
        self.atomic = operation.startswith(("compare", "fetch"))
        # Where in the buffer, at all kinds of addresses.
        self.at = GUARD + GRH + (8 * (serial % 9) if self.atomic else serial % 61)
        self.immediate = serial * 2654435761 % (1 << 32)
        number = random.Random(serial)
        self.original, self.operand, self.swap = (number.getrandbits(64) for _ in range(3))
        if operation == "fetch_add_wraps":
            self.operand = WORD - self.original + 5
        elif operation == "fetch_add":
            self.original >>= 1
            self.operand >>= 1
        elif operation == "compare_swap":
            self.operand = self.original

    def __str__(self):
        return f"{self.name} of {self.size} bytes, {self.way}, at +{self.at}"

    def content(self, block=BLOCK):
        """The bytes, in pieces with their offsets."""
        start, offset = self.serial * 7919 % len(block), 0
        while offset < self.size:
            piece = block[start : start + self.size - offset]
            yield offset, piece
            start, offset = 0, offset + len(piece)

    def result(self):
        """What an atomic operation leaves."""
        if self.name.startswith("fetch"):
            return (self.original + self.operand) % WORD
        return self.swap if self.operand == self.original else self.original

    def pieces(self):
        """Lengths of the parts that make up the message in memory."""
        if self.way != "parts":
            return [self.size]
        third = max(self.size // 3, 1)
        return [third, self.size - third - 1, 1]


class Order:
    """What is to be done, with what is usual for all that the line does not say."""

    def __init__(self, fields):
        self.fields = fields
        self.service = "rc"
        self.operations, self.sizes, self.ways = [], [], ["plain"]
        self.mtu = 1024
        # Longest message to be sent inline.
        self.inline = 0
        # Of mlx5dv_create_qp: "allow" or "disable" scattering data to completions.
        self.scatter = None
        # Bytes of a completion, if mlx5dv_create_cq is to be told.
        self.cqe_size = None
        # Of both sides, while the queues are made.
        self.environment = {}
        # Whether all requests complete (sq_sig_all), or those that say so.
        self.signal_all = True
        # Whether a request that need not complete is followed by one that does.
        self.unsignaled = False
        # Answers of so many bytes at most are in completions of 128 bytes. There the library takes them from the wrong place, unless it
        # has "mlx5: Fix inline-scatter source address on 128B CQE REQ completions" (rdma-core 64).
        self.miscopied = 0
        # Where the responder changes a byte itself: "payload", "before", "behind". The check must find it.
        self.spoil = None
        for name, value in fields.items():
            if not hasattr(self, name):
                raise Fault(f"{name} in an order")
            setattr(self, name, value)

    def cases(self):
        serial = 0
        for size in self.sizes:
            for name in self.operations:
                for way in self.ways:
                    if way == "inline" and (size > self.inline or name == "read"):
                        continue
                    if way == "parts" and size < 3:
                        continue
                    if name.startswith(("compare", "fetch")) and (size, way) != (8, "plain"):
                        continue
                    serial += 1
                    yield Case(name, size, way, serial)
