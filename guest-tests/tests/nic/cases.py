"""Operations, orders and test data of operations.py. Both sides derive a case from its order and a serial number."""
import random

import pyverbs.enums as e

# Guard bytes on both sides of a target, which must not change.
GUARD = 4096
GUARD_BYTES = b"\xa5" * GUARD
# Length of the GRH area in front of a datagram (IBTA 11.4.1.2).
GRH = 40
WORD = 1 << 64

# Message content: this block repeated, from an offset that depends on the serial number. The length is not a power
# of two, so that data shifted by a page or a packet differ.
BLOCK = random.Random(4).randbytes((1 << 20) + 4093)
# Initial content of a target, so that no byte is correct beforehand.
INVERSE = BLOCK.translate(bytes(255 - byte for byte in range(256)))


class Fault(Exception):
    """A check failed."""


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
    """One operation, derived from the order and a serial number."""

    def __init__(self, operation, size, variant, serial):
        self.name, self.size, self.variant, self.serial = operation, size, variant, serial
        self.operation = OPERATIONS[operation]
        self.sends = operation.startswith("send")
        self.reads = operation == "read"
        self.atomic = operation.startswith(("compare", "fetch"))
        # Offset in the buffer, with varying alignment.
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
        return f"{self.name} of {self.size} bytes, {self.variant}, at +{self.at}"

    def content(self, block=BLOCK):
        """Yields the content in chunks with their offsets."""
        start, offset = self.serial * 7919 % len(block), 0
        while offset < self.size:
            chunk = block[start : start + self.size - offset]
            yield offset, chunk
            start, offset = 0, offset + len(chunk)

    def result(self):
        """Value after an atomic operation."""
        if self.name.startswith("fetch"):
            return (self.original + self.operand) % WORD
        return self.swap if self.operand == self.original else self.original

    def segments(self):
        """Lengths of the message's segments in memory."""
        if self.variant != "parts":
            return [self.size]
        third = max(self.size // 3, 1)
        return [third, self.size - third - 1, 1]


class Order:
    """The cases to execute and the configuration of the queues, with defaults for everything not in the line."""

    def __init__(self, fields):
        self.fields = fields
        self.service = "rc"
        self.operations, self.sizes, self.variants = [], [], ["plain"]
        self.mtu = 1024
        # Longest message sent inline.
        self.inline = 0
        # Scatter-to-CQE flag of mlx5dv_create_qp: "allow" or "disable".
        self.scatter = None
        # CQE size for mlx5dv_create_cq, if any.
        self.cqe_size = None
        # Environment variables of both sides while the queues are created.
        self.environment = {}
        # Whether all requests complete (sq_sig_all), or only signaled ones.
        self.signal_all = True
        # Whether requests are unsignaled, each followed by a signaled one.
        self.unsignaled = False
        # Maximum of response bytes in a 128-byte CQE. The library copies them from the wrong place unless it has
        # "mlx5: Fix inline-scatter source address on 128B CQE REQ completions" (rdma-core 64).
        self.miscopied = 0
        # Where the responder corrupts a byte to test the checks: "payload", "before", "behind".
        self.spoil = None
        for name, value in fields.items():
            if not hasattr(self, name):
                raise Fault(f"unknown field {name} in an order")
            setattr(self, name, value)

    def cases(self):
        serial = 0
        for size in self.sizes:
            for name in self.operations:
                for variant in self.variants:
                    if variant == "inline" and (size > self.inline or name == "read"):
                        continue
                    if variant == "parts" and size < 3:
                        continue
                    if name.startswith(("compare", "fetch")) and (size, variant) != (8, "plain"):
                        continue
                    serial += 1
                    yield Case(name, size, variant, serial)
