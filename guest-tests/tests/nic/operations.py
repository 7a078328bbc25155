"""Verbs operations between two queue pairs, with every byte and every completion checked.

usage: operations.py answer ADDRESS         the responder, for one driver after the other
       operations.py drive ADDRESS [PEER]   the requester; without a peer, this process is also the responder

ADDRESS is the local address and selects the GID, together with the variable GID_TYPE, by default RoCE v2; the variable
RDMA_DEVICE names the device, by default mlx5_0. The driver reads orders from standard input, one line of JSON each, and
answers each with a line of JSON: the number of successful cases by kind, or the first fault. An order selects service,
operations, sizes and variants, and configures the queues; see Order.
"""
import ctypes
import ipaddress
import json
import mmap
import os
import random
import socket
import sys
import tempfile
import time
from collections import Counter
from types import SimpleNamespace

import pyverbs.enums as e
import pyverbs.providers.mlx5.mlx5_enums as dv
from cases import BLOCK, GRH, GUARD, GUARD_BYTES, INVERSE, WORD, Case, Fault, Order, same
from pyverbs.addr import GID, AH, AHAttr, GlobalRoute
from pyverbs.cq import CQ, CqInitAttrEx, PollCqAttr
from pyverbs.device import Context
from pyverbs.mr import MR, MW, MWBindInfo
from pyverbs.pd import PD
from pyverbs.providers.mlx5.mlx5dv import (
    Mlx5Context,
    Mlx5CQ,
    Mlx5DVContextAttr,
    Mlx5DVCQInitAttr,
    Mlx5DVQPInitAttr,
    Mlx5QP,
)
from pyverbs.providers.mlx5.mlx5dv_objects import Mlx5DvObj
from pyverbs.qp import QP, QPAttr, QPCap, QPInitAttr, QPInitAttrEx
from pyverbs.srq import SRQ, SrqInitAttrEx
from pyverbs.wr import SGE, RecvWR, SendWR
from pyverbs.xrcd import XRCD, XRCDInitAttr

DEVICE, PORT = os.environ.get("RDMA_DEVICE", "mlx5_0"), 1
GID_TYPE = os.environ.get("GID_TYPE", "RoCE v2")
GID_TYPES = f"/sys/class/infiniband/{DEVICE}/ports/{PORT}/gid_attrs/types"
TCP_PORT = 18515
# Seconds to wait for a completion: enough for the longest message, under emulation on a busy host.
PATIENCE = 100
Q_KEY = 0x1234_5678
FULL_ACCESS = (
    e.IBV_ACCESS_LOCAL_WRITE
    | e.IBV_ACCESS_REMOTE_WRITE
    | e.IBV_ACCESS_REMOTE_READ
    | e.IBV_ACCESS_REMOTE_ATOMIC
    | e.IBV_ACCESS_MW_BIND
)
MTUS = {256: e.IBV_MTU_256, 512: e.IBV_MTU_512, 1024: e.IBV_MTU_1024, 2048: e.IBV_MTU_2048, 4096: e.IBV_MTU_4096}
TYPES = {"rc": e.IBV_QPT_RC, "uc": e.IBV_QPT_UC, "ud": e.IBV_QPT_UD}


class Buffer:
    """Registered memory with room for a message and its guards."""

    def __init__(self, pd, size):
        self.size = size
        self.memory = mmap.mmap(-1, size + 3 * GUARD)
        self.anchor = ctypes.c_char.from_buffer(self.memory)
        self.address = ctypes.addressof(self.anchor)
        self.mr = MR(pd, len(self.memory), FULL_ACCESS, address=self.address)

    def close(self):
        self.mr.close()
        del self.anchor
        self.memory.close()

    def fill(self, case, chunks, front=0):
        """Writes chunks between guards, with `front` zero bytes in front of the message."""
        begin = case.at - front
        self.memory[begin - GUARD : begin] = GUARD_BYTES
        self.memory[begin : case.at] = bytes(front)
        for offset, chunk in chunks:
            self.memory[case.at + offset : case.at + offset + len(chunk)] = chunk
        end = case.at + case.size
        self.memory[end : end + GUARD] = GUARD_BYTES

    def check(self, where, case, chunks, front=0):
        """Compares the message and its guards with what they must be."""

        def compare(what, begin, expected):
            found = self.memory[begin : begin + len(expected)]
            if found != expected:
                wrong = next(i for i, (a, b) in enumerate(zip(found, expected)) if a != b)
                count = sum(a != b for a, b in zip(found, expected))
                raise Fault(
                    f"{where}: {what}: {count} bytes differ, the first at {begin + wrong - case.at} of {case.size}:"
                    f" {found[wrong : wrong + 16].hex()} instead of {expected[wrong : wrong + 16].hex()}"
                )

        for offset, chunk in chunks:
            compare("data", case.at + offset, chunk)
        compare("before it", case.at - front - GUARD, GUARD_BYTES)
        compare("behind it", case.at + case.size, GUARD_BYTES)

    def parts(self, case, front=0):
        """Scatter/gather entries."""
        address, parts = self.address + case.at - front, []
        for length in case.segments():
            parts.append(SGE(address, length + front, self.mr.lkey))
            address, front = address + length + front, 0
        return parts


class CompletionQueue:
    """A completion queue, polled by ibv_poll_cq or by the extended interface."""

    def __init__(self, context, cqe_size):
        self.polled = 0
        self.extended = cqe_size is not None
        if self.extended:
            attributes = Mlx5DVCQInitAttr(comp_mask=dv.MLX5DV_CQ_INIT_ATTR_MASK_CQE_SIZE, cqe_size=cqe_size)
            self.cq = Mlx5CQ(context, CqInitAttrEx(cqe=64, wc_flags=e.IBV_WC_STANDARD_FLAGS), attributes)
        else:
            self.cq = CQ(context, 64)

    def close(self):
        self.cq.close()

    def poll(self):
        """Polls once; returns the completion, if any."""
        wc = self.poll_extended() if self.extended else self.poll_plain()
        self.polled += wc is not None
        return wc

    def poll_plain(self):
        count, completions = self.cq.poll()
        return completions[0] if count else None

    def poll_extended(self):
        cq = self.cq
        if cq.start_poll(PollCqAttr()):
            return None
        wc = SimpleNamespace(wr_id=cq.wr_id, status=cq.status, vendor_err=cq.read_vendor_err())
        if wc.status == e.IBV_WC_SUCCESS:
            for field in ("opcode", "byte_len", "imm_data", "qp_num", "src_qp", "wc_flags"):
                setattr(wc, field, getattr(cq, "read_" + field)())
        cq.end_poll()
        return wc

    def last(self):
        """The last polled CQE as it is in memory, with the byte before it."""
        queue = Mlx5DvObj(dv.MLX5DV_OBJ_CQ, cq=self.cq).dvcq
        offset = (self.polled - 1) % queue.cqe_cnt * queue.cqe_size
        # No byte precedes the first CQE.
        before = ctypes.string_at(queue.buf + offset - 1, 1) if offset else b"\0"
        return before + ctypes.string_at(queue.buf + offset, queue.cqe_size)


class Side:
    """One side: a queue pair and its resources."""

    def __init__(self, address):
        self.address = ipaddress.ip_address(address)
        is_mlx5 = DEVICE.startswith("mlx5")
        self.context = Mlx5Context(Mlx5DVContextAttr(), name=DEVICE) if is_mlx5 else Context(name=DEVICE)
        self.pd = PD(self.context)
        self.gid_index = self.find_gid()
        self.buffer = Buffer(self.pd, 1 << 21)

    def find_gid(self):
        address = self.address
        mapped = ipaddress.ip_address(f"::ffff:{address}") if address.version == 4 else address
        table = self.context.query_port(PORT).gid_tbl_len
        for index in range(table):
            if ipaddress.ip_address(self.context.query_gid(PORT, index).gid) == mapped:
                with open(f"{GID_TYPES}/{index}") as file:
                    if file.read().strip() == GID_TYPE:
                        return index
        raise Fault(f"no GID of {address} and {GID_TYPE}")

    def open(self, fields, requester):
        """Creates the queues; returns what the peer needs to connect."""
        self.order = order = Order(fields)
        if max(order.sizes) > self.buffer.size:
            self.buffer.close()
            self.buffer = Buffer(self.pd, max(order.sizes))
        os.environ.update(order.environment)
        try:
            self.make_queues(requester)
        finally:
            for name in order.environment:
                del os.environ[name]
        self.completions = Counter()
        self.psn = random.randrange(1 << 24)
        return {
            "qpn": self.qp.qp_num,
            "psn": self.psn,
            "gid": self.context.query_gid(PORT, self.gid_index).gid,
            "srqn": self.srq.get_srq_num() if self.srq else 0,
            "address": self.buffer.address,
            "rkey": self.buffer.mr.rkey,
        }

    def make_queues(self, requester):
        order = self.order
        self.srq = self.xrcd = self.window = self.ah = None
        self.send_cq, self.receive_cq = (CompletionQueue(self.context, order.cqe_size) for _ in range(2))
        cap = QPCap(max_send_wr=16, max_recv_wr=16, max_send_sge=3, max_recv_sge=3, max_inline_data=order.inline)
        if order.service == "xrc":
            return self.make_xrc(requester, cap)
        kind = TYPES[order.service]
        common = dict(qp_type=kind, cap=cap, sq_sig_all=int(order.signal_all))
        common.update(scq=self.send_cq.cq, rcq=self.receive_cq.cq)
        if order.scatter:
            flags = {
                "allow": dv.MLX5DV_QP_CREATE_ALLOW_SCATTER_TO_CQE,
                "disable": dv.MLX5DV_QP_CREATE_DISABLE_SCATTER_TO_CQE,
            }
            attributes = Mlx5DVQPInitAttr(
                comp_mask=dv.MLX5DV_QP_INIT_ATTR_MASK_QP_CREATE_FLAGS, create_flags=flags[order.scatter]
            )
            init = QPInitAttrEx(comp_mask=e.IBV_QP_INIT_ATTR_PD, pd=self.pd, **common)
            self.qp = Mlx5QP(self.context, init, attributes)
        else:
            self.qp = QP(self.pd, QPInitAttr(**common))
        if not requester and "send_inv" in order.operations:
            self.window = MW(self.pd, e.IBV_MW_TYPE_2)

    def make_xrc(self, requester, cap):
        if requester:
            cap.max_recv_wr = cap.max_recv_sge = 0
            init = QPInitAttrEx(
                qp_type=e.IBV_QPT_XRC_SEND, comp_mask=e.IBV_QP_INIT_ATTR_PD, pd=self.pd, scq=self.send_cq.cq,
                cap=cap, sq_sig_all=1,
            )  # fmt: skip
        else:
            self.file = tempfile.TemporaryFile()
            mask = e.IBV_XRCD_INIT_ATTR_FD | e.IBV_XRCD_INIT_ATTR_OFLAGS
            self.xrcd = XRCD(self.context, XRCDInitAttr(mask, os.O_CREAT, self.file.fileno()))
            attributes = SrqInitAttrEx(max_wr=16, max_sge=3)
            attributes.srq_type = e.IBV_SRQT_XRC
            attributes.pd, attributes.xrcd, attributes.cq = self.pd, self.xrcd, self.receive_cq.cq
            attributes.comp_mask = (
                e.IBV_SRQ_INIT_ATTR_TYPE | e.IBV_SRQ_INIT_ATTR_PD | e.IBV_SRQ_INIT_ATTR_CQ | e.IBV_SRQ_INIT_ATTR_XRCD
            )
            self.srq = SRQ(self.context, attributes)
            init = QPInitAttrEx(qp_type=e.IBV_QPT_XRC_RECV, comp_mask=e.IBV_QP_INIT_ATTR_XRCD, xrcd=self.xrcd)
        self.qp = QP(self.context, init)

    def connect(self, peer):
        self.peer = peer
        route = GlobalRoute(dgid=GID(peer["gid"]), sgid_index=self.gid_index, hop_limit=64)
        path = AHAttr(port_num=PORT, is_global=True, gr=route)
        attributes = QPAttr(port_num=PORT)
        attributes.qp_access_flags = FULL_ACCESS & ~e.IBV_ACCESS_MW_BIND
        attributes.path_mtu = MTUS[self.order.mtu]
        attributes.max_rd_atomic = attributes.max_dest_rd_atomic = 4
        attributes.min_rnr_timer, attributes.timeout = 12, 14
        attributes.retry_cnt = attributes.rnr_retry = 7
        attributes.dest_qp_num = peer["qpn"]
        attributes.sq_psn, attributes.rq_psn = self.psn, peer["psn"]
        attributes.qkey = Q_KEY
        attributes.ah_attr = path
        self.qp.to_rts(attributes)
        if self.order.service == "ud":
            self.ah = AH(self.pd, attr=path)

    def close(self):
        """Destroys the queues; returns the number of completions by kind."""
        self.quiet()
        for thing in (self.ah, self.window, self.qp, self.srq, self.send_cq, self.receive_cq, self.xrcd):
            if thing:
                thing.close()
        return dict(self.completions)

    def wait(self, cq, what):
        """Waits for the next completion, which must be successful."""
        end, tries = time.monotonic() + PATIENCE, 0
        while time.monotonic() < end:
            wc = cq.poll()
            if wc:
                if wc.status != e.IBV_WC_SUCCESS:
                    raise Fault(f"{what}: completion with status {wc.status}, vendor error {wc.vendor_err:#x}")
                return wc
            tries += 1
            if tries > 50:
                time.sleep(0.0005)
        raise Fault(f"{what}: no completion in {PATIENCE} s")

    def quiet(self):
        """Checks that there are no unexpected completions."""
        for what, cq in (("send", self.send_cq), ("receive", self.receive_cq)):
            wc = cq.poll()
            if wc:
                raise Fault(f"unexpected {what} completion: status {wc.status}, wr_id {wc.wr_id}")

    def nothing(self):
        """Scatter/gather list of an empty message; the binding requires an entry."""
        return [SGE(self.buffer.address, 0, self.buffer.mr.lkey)]

    def post_receive(self, wr_id, parts):
        (self.srq or self.qp).post_recv(RecvWR(wr_id=wr_id, num_sge=len(parts), sg=parts))

    # Responder

    def expect(self, name, size, variant, serial):
        """Prepares for an operation; returns the R_Key to use or to invalidate."""
        case = Case(name, size, variant, serial)
        front = GRH if self.order.service == "ud" else 0
        if case.atomic:
            self.buffer.fill(case, [(0, case.original.to_bytes(8, "little"))])
        else:
            self.buffer.fill(case, case.content(BLOCK if case.reads else INVERSE), front)
        if case.sends:
            self.post_receive(serial, self.buffer.parts(case, front))
        elif name == "write_imm" or self.order.service == "uc":
            self.post_receive(serial, self.nothing())
        if name == "send_inv":
            return self.bind(case)
        return self.buffer.mr.rkey

    def bind(self, case):
        """Binds the memory window to the target."""
        wr = SendWR(opcode=e.IBV_WR_BIND_MW, num_sge=0, wr_id=case.serial)
        address = self.buffer.address + case.at
        wr.set_bind_wr(self.window, MWBindInfo(self.buffer.mr, address, case.size or 1, e.IBV_ACCESS_REMOTE_WRITE))
        self.qp.post_send(wr)
        wc = self.wait(self.send_cq, f"{case}, bind")
        same("opcode of the bind", wc.opcode, e.IBV_WC_BIND_MW)
        self.completions["bind"] += 1
        return wr.rkey

    def verify(self, name, size, variant, serial, key):
        """Checks the results of an operation at the responder."""
        case = Case(name, size, variant, serial)
        front = GRH if self.order.service == "ud" else 0
        if case.operation.arrival is not None:
            wc = self.arrival(case)
            immediate = {e.IBV_WC_WITH_IMM: case.immediate, e.IBV_WC_WITH_INV: key}.get(case.operation.flags)
            # On connected services the CQE fields of these flags may hold inline data (`mlx5_copy_to_recv_wqe`).
            ignored = e.IBV_WC_IP_CSUM_OK | (0 if front else e.IBV_WC_GRH)
            grh = e.IBV_WC_GRH if front else 0
            same(f"{case}: opcode of the receive", wc.opcode, case.operation.arrival)
            same(f"{case}: flags of the receive", wc.wc_flags & ~ignored, case.operation.flags | grh)
            same(f"{case}: length of the receive", wc.byte_len, size + front)
            if immediate is not None:
                same(f"{case}: immediate data", wc.imm_data, immediate)
            if front:
                same(f"{case}: source queue pair", wc.src_qp, self.peer["qpn"])
                self.check_grh(case)
        elif self.order.service == "uc":
            # The empty message that follows.
            same(f"{case}: length of what follows", self.arrival(case).byte_len, 0)
        spoiled = {"payload": case.size - 1, "before": -front - 1, "behind": case.size}.get(self.order.spoil)
        if spoiled is not None:
            self.buffer.memory[case.at + spoiled] ^= 1
        if case.atomic:
            self.buffer.check("the responder", case, [(0, case.result().to_bytes(8, "little"))])
        else:
            self.buffer.check(f"the responder, {case}", case, case.content(), front)
        self.quiet()

    def arrival(self, case):
        wc = self.wait(self.receive_cq, f"{case}, receive")
        same(f"{case}: wr_id of the receive", wc.wr_id, case.serial)
        same(f"{case}: queue pair of the receive", wc.qp_num, self.qp.qp_num)
        self.completions["receive"] += 1
        return wc

    def check_grh(self, case):
        """Checks the network header in front of a datagram; IPv4 uses the last 20 of the 40 bytes, RoCE v1 a GRH."""
        header = self.buffer.memory[case.at - GRH : case.at]
        source, destination = ipaddress.ip_address(self.peer["gid"]), self.address
        if GID_TYPE != "RoCE v2":
            destination = ipaddress.ip_address(self.context.query_gid(PORT, self.gid_index).gid)
            same(f"{case}: version", header[0] >> 4, 6)
            same(f"{case}: next header", header[6], 0x1B)
            same(f"{case}: source", header[8:24], source.packed)
            same(f"{case}: destination", header[24:40], destination.packed)
        elif destination.version == 4:
            same(f"{case}: version", header[20], 0x45)
            same(f"{case}: source", header[32:36], source.ipv4_mapped.packed)
            same(f"{case}: destination", header[36:40], destination.packed)
        else:
            same(f"{case}: version", header[0] >> 4, 6)
            same(f"{case}: source", header[8:24], source.packed)
            same(f"{case}: destination", header[24:40], destination.packed)

    # Requester

    def perform(self, case, key):
        """Executes an operation, from post to completion."""
        returns = case.reads or case.atomic
        self.buffer.fill(case, case.content(INVERSE if returns else BLOCK))
        signal = 0 if self.order.unsignaled else e.IBV_SEND_SIGNALED
        inline = e.IBV_SEND_INLINE if case.variant == "inline" else 0
        parts = self.buffer.parts(case)
        wr = SendWR(case.serial, case.operation.opcode, len(parts), sg=parts, send_flags=signal | inline)
        if case.name == "send_inv":
            wr.imm_data = key
        elif case.operation.flags:
            wr.imm_data = case.immediate
        if case.atomic:
            wr.set_wr_atomic(key, self.peer["address"] + case.at, case.operand, case.swap)
        elif not case.sends:
            wr.set_wr_rdma(key, self.peer["address"] + case.at)
        self.address_to_peer(wr)
        self.qp.post_send(wr)
        if inline:
            # After an inline post, the buffer may be reused at once.
            self.buffer.fill(case, case.content(INVERSE))
        follower = self.order.service == "uc" and case.name == "write"
        if self.order.unsignaled or follower:
            self.post_follower(case, key)
        if not self.order.unsignaled or self.order.signal_all:
            self.completion(case)
        if self.order.unsignaled or follower:
            wc = self.wait(self.send_cq, f"{case}, what follows")
            same(f"{case}: wr_id of what follows", wc.wr_id, WORD - 1)
            self.completions["follower"] += 1
        if case.atomic:
            expected = [(0, case.original.to_bytes(8, "little"))]
        else:
            expected = list(case.content(INVERSE if inline else BLOCK))
        if returns and case.size <= self.order.miscopied:
            expected = self.miscopied(case, *expected)
        self.buffer.check(f"the requester, {case}", case, expected)
        self.quiet()

    def post_follower(self, case, key):
        """Posts an empty signaled message; on UC it also completes at the responder."""
        opcode = e.IBV_WR_SEND if self.order.service == "uc" else e.IBV_WR_RDMA_WRITE
        wr = SendWR(WORD - 1, opcode, 1, sg=self.nothing(), send_flags=e.IBV_SEND_SIGNALED)
        wr.set_wr_rdma(key, self.peer["address"] + case.at)
        self.qp.post_send(wr)

    def completion(self, case):
        wc = self.wait(self.send_cq, str(case))
        same(f"{case}: wr_id", wc.wr_id, case.serial)
        same(f"{case}: opcode", wc.opcode, case.operation.completion)
        same(f"{case}: queue pair", wc.qp_num, self.qp.qp_num)
        if case.reads or case.atomic:
            same(f"{case}: length", wc.byte_len, case.size)
        if self.order.miscopied and not self.send_cq.extended:
            self.answer = self.send_cq.last()
        self.completions["request"] += 1

    def miscopied(self, case, *expected):
        """Checks the inline data of a 128-byte CQE; returns the content that the library copies to the buffer."""
        if self.send_cq.extended or not expected:
            # The binding gives no access to the memory of such a queue.
            return []
        data, found = expected[0][1], self.buffer.memory[case.at : case.at + case.size]
        begin = 1 + 64 if case.size <= 32 else 1
        same(f"{case}: format of the completion", self.answer[-1] & 0xC, 4 if case.size <= 32 else 8)
        same(f"{case}: data in the completion", self.answer[begin:][: case.size], data)
        wrong = self.answer[1 if case.size <= 32 else 0 :][: case.size]
        # The byte before the first CQE of the queue is undefined.
        return expected if found == data else [(1, wrong[1:])]

    def address_to_peer(self, wr):
        if self.ah:
            wr.set_wr_ud(self.ah, self.peer["qpn"], Q_KEY)
        elif self.order.service == "xrc":
            wr.set_qp_type_xrc(self.peer["srqn"])


class Remote:
    """Proxy of the side in another process: a method call is a request."""

    def __init__(self, address):
        self.stream = socket.create_connection((address, TCP_PORT), PATIENCE)
        self.stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.lines = self.stream.makefile("rw")

    def __getattr__(self, method):
        def call(*arguments):
            self.lines.write(json.dumps([method, arguments]) + "\n")
            self.lines.flush()
            answer = json.loads(self.lines.readline())
            if "fault" in answer:
                raise Fault(answer["fault"])
            return answer["value"]

        return call


def answer(address):
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    server = socket.create_server((address, TCP_PORT), family=family)
    print("ready", flush=True)
    while True:
        side, (stream, _) = Side(address), server.accept()
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        lines = stream.makefile("rw")
        for line in lines:
            method, arguments = json.loads(line)
            try:
                reply = {"value": getattr(side, method)(*arguments)}
            except Exception as error:
                reply = {"fault": f"{type(error).__name__}: {error}"}
            lines.write(json.dumps(reply) + "\n")
            lines.flush()


def carry_out(order, requester, responder):
    fields, done = order.fields, Counter()
    mine, theirs = requester.open(fields, True), responder.open(fields, False)
    requester.connect(theirs)
    responder.connect(mine)
    for case in order.cases():
        about = (case.name, case.size, case.variant, case.serial)
        key = responder.expect(*about)
        requester.perform(case, key)
        responder.verify(*about, key)
        done[f"{case.name} {case.variant}"] += 1
    completions = Counter(requester.close()) + Counter(responder.close())
    return {"done": done, "completions": completions}


def drive(address, peer=None):
    requester = Side(address)
    responder = Remote(peer) if peer else Side(address)
    for line in sys.stdin:
        begin = time.monotonic()
        try:
            reply = carry_out(Order(json.loads(line)), requester, responder)
        except Exception as error:
            reply = {"fault": f"{type(error).__name__}: {error}"}
        reply["seconds"] = round(time.monotonic() - begin, 2)
        print(json.dumps(reply), flush=True)
        if "fault" in reply:
            # The queues are in an unknown state.
            os._exit(1)


{"answer": answer, "drive": drive}[sys.argv[1]](*sys.argv[2:])
