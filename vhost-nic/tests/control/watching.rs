//! Metrics, `top`, stations and findings, as an operator watches them.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use mlx5_prm::wqe::WqeOpcode;
use mlx5_test_driver::machine::Machine;
use mlx5_test_driver::netdev::{Netdev, Options};
use mlx5_test_driver::node::Node;
use mlx5_test_driver::qp::{Connection, Data, QueuePair, Request, Shape, connect, service};
use mlx5_test_driver::vfio_user::VfioUserDevice;
use serde_json::{Value, json};
use vhost_daemon::testing::{eventually, http, read_metrics, read_stats};

use super::driver::{Driver, header};
use super::{CONFIG_REGION, Host};

#[test]
fn metrics_are_those_of_the_stats_socket() {
    let host = Host::start(&[]);
    let mut client = vfio_user::Client::new(&host.path("a.sock")).unwrap();
    client.region_write(CONFIG_REGION, 4, &[0b110, 0]).unwrap();
    // Two doorbells in a UAR that is not allocated.
    for _ in 0..2 {
        client.region_write(0, 0x1_0800, &[0; 8]).unwrap();
    }
    client.shutdown().unwrap();
    eventually("the function is reset", || {
        read_stats(&host.path("stats.sock"))["guests"][0]["function"]["resets"] == 1
    });
    host.ctl(&["cable", "b", "out"]);
    host.ctl(&["speed", "a", "25"]);
    let stats = read_stats(&host.path("stats.sock"));
    let metrics = read_metrics(&host.path("metrics.sock"));
    for (name, value, of_stats) in [
        ("port_link_up{guest=\"a\"}", 1, ""),
        ("port_link_up{guest=\"b\"}", 0, ""),
        ("port_speed_bits_per_second{guest=\"a\"}", 25_000_000_000, ""),
        ("doorbells_total{guest=\"a\"}", 2, "/guests/0/doorbells"),
        ("doorbells_total{guest=\"b\"}", 0, "/guests/1/doorbells"),
        ("function_resets_total{guest=\"a\"}", 1, "/guests/0/function/resets"),
        (
            "guest_errors_total{guest=\"a\",kind=\"stray_doorbell\"}",
            2,
            "/guests/0/guest_errors/stray_doorbell",
        ),
        (
            "port_frames_total{guest=\"a\",direction=\"in\"}",
            0,
            "/guests/0/port/received",
        ),
        ("switch_stations{port=\"a\"}", 0, "/switch/ports/0/stations"),
        (
            "switch_drops_total{port=\"b\",reason=\"link_down\"}",
            0,
            "/switch/ports/1/dropped/link_down",
        ),
    ] {
        assert_eq!(metrics[&format!("vhost_nic_{name}")], value, "{name}");
        assert!(
            of_stats.is_empty() || stats.pointer(of_stats) == Some(&json!(value)),
            "{of_stats}"
        );
    }
}

#[test]
fn requests_for_anything_but_metrics_are_refused() {
    let host = Host::start(&[]);
    for (request, status) in [
        ("GET /favicon.ico HTTP/1.1\r\n\r\n", "404 Not Found"),
        ("DELETE /metrics HTTP/1.1\r\n\r\n", "405 Method Not Allowed"),
        ("hello\r\n\r\n", "400 Bad Request"),
    ] {
        let answer = http(&host.path("metrics.sock"), request.as_bytes());
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{answer}");
    }
    // A client that never finishes its request does not stop others.
    let _slow = UnixStream::connect(host.path("metrics.sock")).unwrap();
    assert!(!read_metrics(&host.path("metrics.sock")).is_empty());
}

#[test]
fn top_shows_each_guest_once() {
    let host = Host::start(&[]);
    host.ctl(&["cable", "b", "out"]);
    let output = host.run("top", &["--once", "--interval", "0.1"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines.len(), 3, "{text}");
    assert_eq!(lines[0][..3], ["guest", "Gb/s", "rx"]);
    assert_eq!(lines[1], ["a", "100", "0", "0", "0", "0", "0", "0", "0", "0", "0", "0"]);
    assert_eq!(
        lines[2],
        ["b", "down", "0", "0", "0", "0", "0", "0", "0", "0", "0", "0"]
    );
    assert_eq!(host.run("top", &["--interval", "0"]).status.code(), Some(2));
}

/// A guest of a daemon with an RDMA device and a network interface.
fn guest(host: &Host, name: &str, number: u8) -> (Node, Netdev) {
    let device = VfioUserDevice::connect(&host.path(&format!("{name}.sock")));
    let node = Node::open(Machine::new(Arc::new(device), mac(number)), number);
    let netdev = Netdev::open(&node.hca, &Options::default());
    (node, netdev)
}

/// The default MAC address of a guest.
fn mac(number: u8) -> [u8; 6] {
    [0x52, 0x54, 0x00, 0x00, 0xc5, number]
}

#[test]
fn top_and_mac_table_show_traffic() {
    let host = Host::start(&[]);
    let [(a, mut sender), (b, mut receiver)] = [("a", 1), ("b", 2)].map(|(name, number)| guest(&host, name, number));
    let mut qps = [&a, &b].map(|node| QueuePair::create(node, Shape::new(service::RC)).unwrap());
    connect((&a, &qps[0]), (&b, &qps[1]), &Connection::default());
    let (from, to) = (a.region(4096), b.region(4096));
    let data = vec![Data::Memory((from.start, 100, from.key))];
    let write = Request::remote(WqeOpcode::RdmaWrite, data, to.start, to.key);
    let measured = AtomicBool::new(false);
    let output = thread::scope(|scope| {
        scope.spawn(|| {
            while !measured.load(Ordering::Relaxed) {
                let index = qps[0].post(&write);
                qps[0].sent(WqeOpcode::RdmaWrite, index);
                // A command, and its interrupt.
                for (node, qp) in [&a, &b].into_iter().zip(&qps) {
                    qp.query(node).unwrap();
                }
                sender.send_to(&mut receiver, 0x5a);
            }
        });
        let output = host.run("top", &["--once", "--interval", "0.5"]);
        measured.store(true, Ordering::Relaxed);
        output
    });
    let text = String::from_utf8(output.stdout).unwrap();
    let rows: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
    for (name, row) in ["a", "b"].into_iter().zip(&rows[1..]) {
        assert_eq!(row[..2], [name, "100"], "{text}");
        let rates: Vec<u64> = row[2..].iter().map(|cell| cell.parse().unwrap()).collect();
        let [
            of_wire @ ..,
            doorbells,
            interrupts,
            commands,
            all_commands,
            drops,
            errors,
        ] = &rates[..]
        else {
            panic!("{text}");
        };
        assert!(of_wire.len() == 4 && of_wire.iter().all(|rate| *rate > 0), "{text}");
        for rate in [doorbells, interrupts, commands, all_commands] {
            assert!(*rate > 0, "{text}");
        }
        assert_eq!((*drops, *errors), (0, 0), "{text}");
    }
    let qp = qps[0].number.to_string();
    let [sq, rq] = [sender.channels[0].sq.number, receiver.channels[0].rq.number].map(|number| number.to_string());
    for (name, kind, number, state, unit) in [
        ("a", "QP", &qp, "ready_to_send", &["packets", "out"][..]),
        ("b", "QP", &qp, "ready_to_send", &["packets", "in"]),
        ("a", "SQ", &sq, "ready", &["basic", "blocks"]),
        ("b", "RQ", &rq, "ready", &["WQEs"]),
    ] {
        let row = rows
            .iter()
            .find(|row| row.starts_with(&[name, kind, number]) && row.ends_with(unit));
        let row = row.unwrap_or_else(|| panic!("{name} {kind} {number} in {text}"));
        assert_eq!(row[3], state, "{text}");
        assert!(row[4].parse::<u64>().unwrap() > 0, "{text}");
    }

    let table = host.json(&["mac-table"]);
    let stations = table.as_array().unwrap().iter().map(|station| {
        assert!(station["age_seconds"].is_number(), "{table}");
        [&station["port"], &station["vlan"], &station["mac"]].map(Clone::clone)
    });
    let expected = [("a", 1), ("b", 2)].map(|(port, number)| {
        let mac = format!("52:54:00:00:c5:{number:02x}");
        [json!(port), json!(0), json!(mac)]
    });
    assert_eq!(stations.collect::<Vec<_>>(), expected);
    let text = host.ctl(&["mac-table"]);
    for (station, [port, _, mac]) in text.lines().filter(|line| line.contains("52:54")).zip(&expected) {
        assert!(
            station.contains(port.as_str().unwrap()) && station.contains(mac.as_str().unwrap()),
            "{text}"
        );
    }
    assert_eq!(text.matches("52:54:00:00:c5:").count(), 2, "{text}");

    for ((node, qp), region) in [&a, &b].into_iter().zip(&qps).zip([&from, &to]) {
        qp.destroy(node).unwrap();
        region.destroy(&node.hca).unwrap();
    }
    [sender, receiver].into_iter().for_each(Netdev::close);
    [a, b].into_iter().for_each(Node::close);
}

#[test]
fn errors_in_the_use_of_an_attachment_are_counted_as_errors_of_the_guest() {
    let host = Host::start(&["--guest", "path=uml.sock,attach=vhost-user"]);
    let mut driver = Driver::connect(&host.path("uml.sock"));
    assert_eq!(driver.command(&header(255, 0, 4, 0), &[], 4), [0xff; 4]);
    let metrics = read_metrics(&host.path("metrics.sock"));
    let name = "vhost_nic_guest_errors_total{guest=\"uml\",kind=\"bad_command\"}";
    assert_eq!(metrics.get(name), Some(&1), "{metrics:#?}");
    let output = host.run("top", &["--once", "--interval", "0.1"]);
    let text = String::from_utf8(output.stdout).unwrap();
    let row = text.lines().find(|line| line.trim_start().starts_with("uml "));
    let errors = row.and_then(|row| row.split_whitespace().last());
    assert_eq!(errors, Some("1"), "{text}");
}

#[test]
fn findings_are_shown_and_followed() {
    let host = Host::start(&[]);
    assert_eq!(host.json(&["findings"]), json!([]));
    let refusal = host.refusal("ctl", &["findings", "c"]);
    assert_eq!(refusal, "error: the daemon refused: there is no guest \"c\"\n");
    let mut client = UnixStream::connect(host.path("control.sock")).unwrap();
    client
        .write_all(b"{\"version\":1,\"command\":\"findings\",\"follow\":true}\n")
        .unwrap();
    let mut lines = BufReader::new(client).lines().map(Result::unwrap);
    assert_eq!(lines.next().unwrap(), r#"{"version":1,"result":[]}"#);
    let mut guest = vfio_user::Client::new(&host.path("a.sock")).unwrap();
    // Memory decoding, then a doorbell in a UAR that is not allocated.
    guest.region_write(CONFIG_REGION, 4, &[1 << 1, 0]).unwrap();
    guest.region_write(0, 0x1_0800, &[0, 0, 1, 0, 0, 0, 0x40, 0]).unwrap();
    let line = lines.find(|line| !line.is_empty()).unwrap();
    let record: Value = serde_json::from_str(&line).unwrap();
    let fields = ["guest", "finding", "severity", "object", "number", "evidence", "count"];
    assert_eq!(
        fields.map(|name| record[name].clone()),
        [
            json!("a"),
            json!("stray_doorbell"),
            json!("error"),
            json!("uar"),
            json!(16),
            json!("0000010000004000"),
            json!(1)
        ]
    );
    assert_eq!(host.json(&["findings", "a"]), json!([record]));
    assert_eq!(host.json(&["findings", "b"]), json!([]));
    guest.shutdown().unwrap();
}
