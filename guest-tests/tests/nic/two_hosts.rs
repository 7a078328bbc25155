//! Two daemons with a guest each, as on two hosts: TAP devices of both are ports of a bridge of the host, which takes
//! part. All of it is in a network namespace of its own.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::thread;
use std::time::Duration;

use guest_harness::{Flow, Guest, NicOptions, Result, Testbed};

use crate::fixture::step;
use crate::namespace::{in_namespace, ip};
use crate::perftest::{expected_results, results};

/// Address of the host at the bridge.
const HOST: &str = "10.5.0.100";
const MTU: u32 = 1500;
const LIMIT: Duration = Duration::from_secs(120);
/// Names of the daemons, each with its TAP device.
const DAEMONS: [(&str, &str); 2] = [("vhost-nic-a", "tap-a"), ("vhost-nic-b", "tap-b")];

/// Programs that check their data, or count their results.
const PROGRAMS: [&str; 8] = [
    "ibv_rc_pingpong -g 3 -c",
    "ibv_rc_pingpong -g 3 -c -s 1048577 -n 20",
    "ibv_uc_pingpong -g 3 -c",
    "ibv_ud_pingpong -g 3 -c -s 1024",
    "ibv_srq_pingpong -g 3 -c",
    "ib_write_bw -F -x 3 -n 200 -s 65536",
    "ib_read_bw -F -x 3 -n 200",
    "ib_atomic_lat -F -x 3 -n 200",
];

/// Programs that wait for completion events.
const EVENTS: [&str; 3] = [
    "ibv_rc_pingpong -g 3 -c -e",
    "ibv_rc_pingpong -g 3 -c -e -s 1048577 -n 20",
    "ibv_ud_pingpong -g 3 -c -e -s 1024",
];

/// Bytes both ways between a guest and a TCP socket of the host: what the guest sends comes back inverted.
fn talk_to_host(guest: &Guest) -> Result<()> {
    let listener = TcpListener::bind((HOST, 0)).expect("an address of the host");
    let port = listener.local_addr().expect("it is bound").port();
    let host = thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a connection");
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).expect("bytes of the guest");
        let inverted: Vec<u8> = bytes.iter().map(|byte| !byte).collect();
        stream.write_all(&inverted).expect("the guest reads");
        bytes
    });
    guest.run("head -c 8M /dev/urandom > /tmp/sent")?.check()?;
    let script = format!("socat -t 60 - TCP4:{HOST}:{port} < /tmp/sent > /tmp/received");
    guest.shell(&script).timeout(LIMIT).run()?.check()?;
    let sent = guest.get("/tmp/sent")?;
    let received = guest.get("/tmp/received")?;
    assert!(host.join().expect("the host") == sent);
    assert_eq!(received.len(), sent.len());
    assert!(received.iter().zip(&sent).all(|(received, sent)| *received == !sent));
    Ok(())
}

#[test]
fn guests_of_two_daemons_talk_through_a_bridge_of_the_host() -> Result<()> {
    talk(
        "two_hosts::guests_of_two_daemons_talk_through_a_bridge_of_the_host",
        &PROGRAMS,
    )
}

#[test]
fn completion_events_of_guests_of_two_daemons() -> Result<()> {
    talk("two_hosts::completion_events_of_guests_of_two_daemons", &EVENTS)
}

fn talk(test: &str, programs: &[&str]) -> Result<()> {
    if !in_namespace(test) {
        return Ok(());
    }
    let of = |guest: usize| {
        let (daemon, tap) = DAEMONS[guest];
        NicOptions::default()
            .alone(guest, daemon)
            .args(["--port".to_owned(), format!("tap={tap},create=on")])
    };
    let testbed = Testbed::builder("nic-two-hosts")
        .guests(2)
        .nic(of(0))
        .nic(of(1))
        .start()?;
    ip("link add name bridge type bridge");
    ip("link set bridge up");
    ip(&format!("address add {HOST}/24 dev bridge"));
    for (_, tap) in DAEMONS {
        ip(&format!("link set {tap} up master bridge"));
    }
    testbed.each(|guest| {
        guest.nic_load(true)?;
        guest.nic_configure(MTU)
    })?;
    let (a, b) = (testbed.guest(0), testbed.guest(1));
    let flow = Flow::new(a, b, NicOptions::address(1));
    step("ping, TCP and the host", || {
        flow.ping(5, 1472)?;
        flow.compare_digests(8)?;
        talk_to_host(a)?;
        talk_to_host(b)
    })?;
    for program in programs {
        step(program, || {
            let said = flow.converse_alike(&format!("{program} -d mlx5_0"), LIMIT)?.client;
            if program.starts_with("ib_") {
                assert_eq!(results(&said.stdout), expected_results(program), "{said}");
            }
            Ok(())
        })?;
    }
    for (daemon, _) in DAEMONS {
        let stats = testbed.daemon_of(daemon).expect("it runs").stats()?;
        let dropped = &stats["ports"][0]["dropped"];
        for reason in ["queue_full", "unreadable", "malformed", "bad_icrc", "too_long"] {
            assert_eq!(dropped[reason], 0, "{daemon}: {stats:#}");
        }
    }
    testbed.each(|guest| {
        guest.nic_unload()?;
        guest.nic_check_log(&[])
    })?;
    testbed.finish()
}
