"""Prints the asynchronous events of a queue pair, a shared receive queue and their port, as a program sees them.

usage: async_events.py ADDRESS

ADDRESS is the local address and selects the GID. Prints the numbers of the queue pair, which is connected to itself,
and of the shared receive queue. Each line of standard input is answered: `event` with the name of the next event,
`state` with that of the state of the queue pair, `renew` with that of its state after a reset and a new connection.
"""
import ipaddress
import sys

import pyverbs.enums as e
from pyverbs.addr import GID, AHAttr, GlobalRoute
from pyverbs.cq import CQ
from pyverbs.device import Context
from pyverbs.pd import PD
from pyverbs.qp import QP, QPAttr, QPCap, QPInitAttr
from pyverbs.srq import SRQ, SrqAttr, SrqInitAttr

PORT = 1
EVENTS = {value: name for name, value in vars(e).items() if name.startswith("IBV_EVENT_")}
STATES = {value: name for name, value in vars(e).items() if name.startswith("IBV_QPS_")}


def find_gid(context, address):
    mapped = ipaddress.ip_address(f"::ffff:{address}")
    for index in range(context.query_port(PORT).gid_tbl_len):
        if ipaddress.ip_address(context.query_gid(PORT, index).gid) == mapped:
            with open(f"/sys/class/infiniband/mlx5_0/ports/{PORT}/gid_attrs/types/{index}") as file:
                if file.read() == "RoCE v2\n":
                    return index
    raise SystemExit(f"no GID of {address}")


def connect(context, qp, gid_index):
    route = GlobalRoute(dgid=GID(context.query_gid(PORT, gid_index).gid), sgid_index=gid_index, hop_limit=64)
    attributes = QPAttr(port_num=PORT)
    attributes.path_mtu = e.IBV_MTU_1024
    attributes.min_rnr_timer, attributes.timeout = 12, 14
    attributes.retry_cnt = attributes.rnr_retry = 7
    attributes.dest_qp_num = qp.qp_num
    attributes.ah_attr = AHAttr(port_num=PORT, is_global=True, gr=route)
    qp.to_rts(attributes)


def state(qp):
    attributes, _ = qp.query(e.IBV_QP_STATE)
    return STATES[attributes.qp_state]


def main(address):
    context = Context(name="mlx5_0")
    pd, cq = PD(context), CQ(context, 16)
    srq = SRQ(pd, SrqInitAttr(SrqAttr(max_wr=16, max_sge=1)))
    qp = QP(pd, QPInitAttr(qp_type=e.IBV_QPT_RC, cap=QPCap(max_send_wr=16), scq=cq, rcq=cq, srq=srq))
    gid_index = find_gid(context, address)
    connect(context, qp, gid_index)
    print(qp.qp_num, srq.get_srq_num(), flush=True)
    for line in sys.stdin:
        if line == "event\n":
            event = context.get_async_event()
            answer = EVENTS[event.event_type]
            event.ack()
        else:
            if line == "renew\n":
                qp.modify(QPAttr(qp_state=e.IBV_QPS_RESET), e.IBV_QP_STATE)
                connect(context, qp, gid_index)
            answer = state(qp)
        print(answer, flush=True)


main(sys.argv[1])
