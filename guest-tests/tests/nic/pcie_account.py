"""Messages of one kind at a time, posted so that their PCIe transactions can be counted.

usage: pcie_account.py answer ADDRESS        the responder, for one driver after the other
       pcie_account.py drive ADDRESS PEER    the requester

ADDRESS is the local address and selects the GID. The driver reads orders from standard input, one line of JSON each
(see Order). It answers with the numbers of both queue pairs, and waits for a line; posts the messages, answers with the
median time per message in microseconds, and waits for a line before it destroys the queues.
"""
import ctypes
import ipaddress
import json
import mmap
import os
import random
import socket
import statistics
import sys
import time

import pyverbs.enums as e
from pyverbs.addr import GID, AHAttr, GlobalRoute
from pyverbs.cq import CQ
from pyverbs.device import Context
from pyverbs.mr import MR
from pyverbs.pd import PD
from pyverbs.qp import QP, QPAttr, QPCap, QPInitAttr
from pyverbs.wr import SGE, RecvWR, SendWR

DEVICE, PORT = "mlx5_0", 1
TCP_PORT = 18516
SIZE = 4096
# Messages before the measurement: the first copy to each half of a BlueFlame register is taken for a doorbell.
WARM_UP = 4
# Seconds to wait for a completion.
PATIENCE = 100
ACCESS = e.IBV_ACCESS_LOCAL_WRITE | e.IBV_ACCESS_REMOTE_WRITE | e.IBV_ACCESS_REMOTE_READ
OPCODES = {"write": e.IBV_WR_RDMA_WRITE, "send": e.IBV_WR_SEND, "read": e.IBV_WR_RDMA_READ}


class Order:
    """Operation (write, send or read), bytes, number of messages, and how they are posted."""

    def __init__(self, fields):
        self.fields = fields
        self.operation, self.size = fields["operation"], fields["size"]
        self.messages = fields["messages"]
        # Whether the data are in the WQEs.
        self.inline = fields.get("inline", False)
        # Messages per call of ibv_post_send.
        self.list = fields.get("list", 1)
        # One of this many messages is signaled.
        self.signaled = fields.get("signaled", 1)
        # Whether the queue pair signals all messages.
        self.signal_all = fields.get("signal_all", False)
        self.environment = fields.get("environment", {})


class Side:
    """A queue pair and its resources."""

    def __init__(self, address):
        self.address = ipaddress.ip_address(f"::ffff:{address}")

    def open(self, fields):
        """Creates the queues, with the order's environment; returns what the peer needs to connect."""
        self.order = order = Order(fields)
        os.environ.update(order.environment)
        try:
            self.make_queues(order.messages + WARM_UP)
        finally:
            for name in order.environment:
                del os.environ[name]
        return {
            "qpn": self.qp.qp_num,
            "psn": self.psn,
            "gid": self.context.query_gid(PORT, self.gid_index).gid,
            "address": self.base,
            "rkey": self.mr.rkey,
        }

    def make_queues(self, messages):
        self.context = Context(name=DEVICE)
        self.gid_index = self.find_gid()
        self.pd = PD(self.context)
        self.memory = mmap.mmap(-1, SIZE)
        self.anchor = ctypes.c_char.from_buffer(self.memory)
        self.base = ctypes.addressof(self.anchor)
        self.mr = MR(self.pd, SIZE, ACCESS, address=self.base)
        self.send_cq, self.receive_cq = CQ(self.context, messages), CQ(self.context, messages)
        cap = QPCap(messages, messages, 1, 1, 128)
        kind = dict(qp_type=e.IBV_QPT_RC, sq_sig_all=int(self.order.signal_all))
        self.qp = QP(self.pd, QPInitAttr(cap=cap, scq=self.send_cq, rcq=self.receive_cq, **kind))
        self.psn = random.randrange(1 << 24)

    def find_gid(self):
        for index in range(self.context.query_port(PORT).gid_tbl_len):
            if ipaddress.ip_address(self.context.query_gid(PORT, index).gid) == self.address:
                with open(f"/sys/class/infiniband/{DEVICE}/ports/{PORT}/gid_attrs/types/{index}") as file:
                    if file.read() == "RoCE v2\n":
                        return index
        raise LookupError(f"no GID of {self.address}")

    def connect(self, peer):
        self.peer = peer
        route = GlobalRoute(dgid=GID(peer["gid"]), sgid_index=self.gid_index, hop_limit=64)
        attributes = QPAttr(port_num=PORT)
        attributes.qp_access_flags = ACCESS
        attributes.path_mtu = e.IBV_MTU_1024
        attributes.max_rd_atomic = attributes.max_dest_rd_atomic = 4
        attributes.min_rnr_timer, attributes.timeout = 12, 18
        attributes.retry_cnt = attributes.rnr_retry = 7
        attributes.dest_qp_num = peer["qpn"]
        attributes.sq_psn, attributes.rq_psn = self.psn, peer["psn"]
        attributes.ah_attr = AHAttr(port_num=PORT, is_global=True, gr=route)
        self.qp.to_rts(attributes)

    def close(self):
        for thing in (self.qp, self.send_cq, self.receive_cq, self.mr, self.pd, self.context):
            thing.close()
        del self.anchor
        self.memory.close()

    def part(self):
        return [SGE(self.base, self.order.size, self.mr.lkey)]

    def post_receives(self, count):
        for number in range(count):
            self.qp.post_recv(RecvWR(number, 1, self.part()))

    def drain(self, count):
        for _ in range(count):
            self.wait(self.receive_cq)

    def wait(self, cq):
        """Waits for the next completion, which must be successful."""
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            count, completions = cq.poll()
            if count:
                if completions[0].status != e.IBV_WC_SUCCESS:
                    raise RuntimeError(f"completion with status {completions[0].status}")
                return
        raise TimeoutError(f"no completion in {PATIENCE} s")

    def requests(self, first, count):
        """A list of work requests; every one of the queue's `signaled` is signaled."""
        requests = []
        for number in range(first, first + count):
            flags = e.IBV_SEND_SIGNALED if (number + 1) % self.order.signaled == 0 else 0
            if self.order.inline:
                flags |= e.IBV_SEND_INLINE
            wr = SendWR(number, OPCODES[self.order.operation], 1, sg=self.part(), send_flags=flags)
            if self.order.operation != "send":
                wr.set_wr_rdma(self.peer["rkey"], self.peer["address"])
            requests.append(wr)
        for wr, behind in zip(requests, requests[1:]):
            wr.next_wr = behind
        return requests

    def warm_up(self):
        for _ in range(WARM_UP):
            # The last of a round, which is signaled.
            (wr,) = self.requests(self.order.signaled - 1, 1)
            self.qp.post_send(wr)
            self.wait(self.send_cq)

    def post(self):
        """Posts the messages in rounds, each until its completions; returns the median time per message."""
        order, times = self.order, []
        size = max(order.list, order.signaled)
        for first in range(0, order.messages, size):
            calls = [self.requests(at, order.list) for at in range(first, first + size, order.list)]
            begin = time.perf_counter_ns()
            for requests in calls:
                self.qp.post_send(requests[0])
            for _ in range(size // order.signaled):
                self.wait(self.send_cq)
            times.append((time.perf_counter_ns() - begin) / size / 1000)
        return statistics.median(times)


class Remote:
    """Proxy of the side in the other guest: a method call is a request."""

    def __init__(self, address):
        self.stream = socket.create_connection((address, TCP_PORT), PATIENCE)
        self.stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.lines = self.stream.makefile("rw")

    def __getattr__(self, method):
        def call(*arguments):
            self.lines.write(json.dumps([method, arguments]) + "\n")
            self.lines.flush()
            return json.loads(self.lines.readline())

        return call


def answer(address):
    server = socket.create_server((address, TCP_PORT))
    print("ready", flush=True)
    while True:
        side, (stream, _) = Side(address), server.accept()
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        lines = stream.makefile("rw")
        for line in lines:
            method, arguments = json.loads(line)
            lines.write(json.dumps(getattr(side, method)(*arguments)) + "\n")
            lines.flush()


def drive(address, peer):
    mine, theirs = Side(address), Remote(peer)

    def report(**fields):
        print(json.dumps(fields), flush=True)

    for line in sys.stdin:
        fields = json.loads(line)
        here, there = mine.open(fields), theirs.open(fields)
        mine.connect(there)
        theirs.connect(here)
        receives = fields["operation"] == "send"
        if receives:
            theirs.post_receives(WARM_UP + mine.order.messages)
        mine.warm_up()
        if receives:
            theirs.drain(WARM_UP)
        report(requester=here["qpn"], responder=there["qpn"])
        sys.stdin.readline()
        median = mine.post()
        if receives:
            theirs.drain(mine.order.messages)
        report(median_us=median)
        sys.stdin.readline()
        mine.close()
        theirs.close()
        report(closed=True)


{"answer": answer, "drive": drive}[sys.argv[1]](*sys.argv[2:])
