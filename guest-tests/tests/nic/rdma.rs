//! rdma-core's example programs: verbs and connection management.

use std::time::Duration;

use guest_harness::{Flow, NicOptions, Result};

use crate::fixture::{Fixture, Setup, step};

const TIMEOUT: Duration = Duration::from_secs(90);

/// The pingpong programs; `-c` makes them verify the data.
const PING_PONGS: [&str; 8] = [
    "ibv_rc_pingpong -d mlx5_0 -g 3 -c",
    "ibv_rc_pingpong -d mlx5_0 -g 3 -c -e",
    "ibv_uc_pingpong -d mlx5_0 -g 3 -c",
    "ibv_ud_pingpong -d mlx5_0 -g 3 -c -s 1024",
    "ibv_srq_pingpong -d mlx5_0 -g 3 -c",
    "ibv_srq_pingpong -d mlx5_0 -g 3 -c -e",
    "ibv_xsrq_pingpong -d mlx5_0 -g 3",
    "ibv_rc_pingpong -d mlx5_0 -g 3 -c -s 1048577 -n 20",
];

#[test]
fn the_ping_pongs_run_between_two_guests() -> Result<()> {
    let fixture = Setup::new("nic-pingpong", 2).start()?;
    for program in PING_PONGS {
        step(program, || {
            let said = fixture.flow(1, 0).converse_alike(program, TIMEOUT)?.client;
            // ibv_xsrq_pingpong prints no time.
            let good = ["iters in", "success"].iter().any(|word| said.stdout.contains(word));
            assert!(good, "{said}");
            Ok(())
        })?;
    }
    fixture.finish()
}

#[test]
fn connections_are_managed() -> Result<()> {
    let fixture = Setup::new("nic-cm", 2).start()?;
    let address = NicOptions::address(0);
    for (place, client_in) in [("between guests", 1), ("within a guest", 0)] {
        for (program, server, client, good) in [
            (
                "rping -V -v -C 10 -S 1000",
                format!("-s -a {address}"),
                format!("-c -a {address}"),
                "rdma-ping-9: ",
            ),
            (
                "ucmatose -c 5",
                String::new(),
                format!("-s {address}"),
                "return status 0",
            ),
            ("udaddy -c 5", String::new(), format!("-s {address}"), "return status 0"),
            ("cmtime -c 20", String::new(), format!("-s {address}"), "disconnect"),
        ] {
            // Without queue pairs, cmtime makes up QP numbers, the same on both sides.
            if client_in == 0 && program.starts_with("cmtime") {
                continue;
            }
            step(&format!("{program}, {place}"), || {
                // udaddy always listens on the same port.
                let (port, option) = if program.starts_with("udaddy") {
                    (7174, String::new())
                } else {
                    let port = Flow::next_port();
                    (port, format!(" -p {port}"))
                };
                let program = format!("exec {program}{option}");
                let (server, client) = (format!("{program} {server}"), format!("{program} {client}"));
                let said = fixture
                    .flow(client_in, 0)
                    .converse(port, &server, &client, TIMEOUT)?
                    .client;
                assert!(said.stdout.contains(good), "{good:?} in {said}");
                assert!(!said.stdout.contains("failure"), "{said}");
                Ok(())
            })?;
        }
    }
    step("multicast", || multicast(&fixture))?;
    fixture.finish()
}

/// Each guest joins a multicast group by rdma_cm and receives the datagrams of both guests.
fn multicast(fixture: &Fixture) -> Result<()> {
    const GROUP: &str = "239.5.0.1";
    // Line-buffered, as mckey block-buffers output to a pipe.
    let member = |guest: usize| {
        format!(
            "stdbuf -oL mckey -m {GROUP} -b {} -C 10 -S 500",
            NicOptions::address(guest)
        )
    };
    for sender in 0..2 {
        let receivers = [0, 1].map(|guest| fixture.guest(guest).spawn(&member(guest)));
        let receivers = receivers.into_iter().collect::<Result<Vec<_>>>()?;
        for receiver in &receivers {
            receiver.wait_line("joined dgid", TIMEOUT)?;
        }
        let send = format!("{} -s", member(sender));
        let said = fixture.guest(sender).shell(&send).timeout(TIMEOUT).run()?.check()?;
        assert!(said.stdout.contains("return status 0"), "{said}");
        for receiver in receivers {
            // mckey ends when it has received all datagrams.
            let said = receiver.wait(TIMEOUT)?.check()?;
            assert!(said.stdout.contains("data transfers complete"), "{said}");
            assert!(said.stdout.contains("return status 0"), "{said}");
        }
    }
    Ok(())
}
