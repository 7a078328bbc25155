//! The tree of live objects in the statistics.

use std::path::Path;

use mlx5_prm::wqe::WqeOpcode;
use mlx5_test_driver::domain::{alloc_xrcd, dealloc_xrcd};
use mlx5_test_driver::netdev::{Netdev, Options, alloc_queue_counters, dealloc_queue_counters};
use mlx5_test_driver::qp::{Connection, Shape, service};
use mlx5_test_driver::srq::Srq;
use serde_json::json;
use vhost_daemon::testing::json::{assert_documented, assert_snake_case};

use crate::inspect::Inspect;
use crate::pair::{Pair, pattern};

#[test]
fn every_field_of_every_kind_of_object_is_documented() {
    let mut pair = Pair::new(Shape::new(service::RC), &Connection::default());
    let (data, target) = (pair.a.data(0, 3000), 1000);
    pair.a.memory.write(0, &pattern(1, 3000));
    let request = pair.request(WqeOpcode::RdmaWrite, data, target);
    let write = pair.a.qp.post(&request);
    pair.a.qp.sent(WqeOpcode::RdmaWrite, write);
    let node = &pair.a.node;
    let hca = &node.hca;
    let netdev = Netdev::open(hca, &Options::default());
    let xrcd = alloc_xrcd(hca).unwrap();
    let cq = node.completion_queue(6, false);
    let xrc_srq = Srq::xrc(hca, node.pd, xrcd, &cq, 4).unwrap();
    let rmp = Srq::rmp(hca, node.pd, 4).unwrap();
    let counters = alloc_queue_counters(hca).unwrap();

    let nic = hca.machine.nic().snapshot();
    let qp = &nic.hca["queues"][pair.a.qp.number.to_string()]["pair"];
    let parameters = &qp["parameters"];
    assert_eq!(parameters["state"], "ready_to_send");
    assert_eq!(parameters["remote_qpn"], pair.b.qp.number);
    assert_eq!(qp["requester"]["messages"], 0, "a message is outstanding: {qp:#}");
    assert_eq!(qp["requester"]["fetched"], 1);
    assert_eq!(qp["requester"]["send_psn"], qp["requester"]["unacknowledged"]);
    let peer = pair.b.node.hca.machine.nic().snapshot();
    let responder = &peer.hca["queues"][pair.b.qp.number.to_string()]["pair"]["responder"];
    assert_eq!(responder["msn"], 1);
    assert_eq!(responder["expected"], qp["requester"]["send_psn"]);
    for (kind, count) in &nic.objects {
        assert!(*count > 0, "no {kind}");
    }
    let document = json!({ "hca": nic.hca });
    assert_snake_case(&document);
    let page = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/stats.md"));
    assert_documented(&document, page, "vhost-nic: live objects");

    dealloc_queue_counters(hca, counters).unwrap();
    rmp.destroy(hca).unwrap();
    xrc_srq.destroy(hca).unwrap();
    cq.destroy(hca).unwrap();
    dealloc_xrcd(hca, xrcd).unwrap();
    netdev.close();
    pair.end();
}
