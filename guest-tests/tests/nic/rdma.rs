//! Verbs and connections between two guests: rdma-core's examples.

use std::time::Duration;

use guest_tests::{Guest, NicOptions, Result};

use crate::lab::{Lab, Setup, step};

pub const TIMEOUT: Duration = Duration::from_secs(90);

/// How a client finds a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rendezvous {
    /// By a TCP connection, over which they exchange what they need to know.
    Tcp,
    /// By rdma_cm.
    Cm,
}

impl Rendezvous {
    /// Waits until a server listens. Most of them tell nobody.
    fn wait(self, server: &Guest) -> Result<()> {
        let listens = match self {
            Self::Tcp => "ss -Hltn 'sport = :18515' | grep -q .",
            Self::Cm => "rdma resource show cm_id | grep -q 'state LISTEN'",
        };
        let wait = format!("for try in $(seq 200); do {listens} && exit; sleep 0.05; done; exit 1");
        server
            .shell(&wait)
            .called("wait for the server")
            .run()?
            .check()
            .map(drop)
    }
}

/// Runs a server in one guest, and a client in another or the same once it listens. Returns what the client and the server have printed.
pub fn pair(
    lab: &Lab,
    server: (usize, &str),
    client: (usize, &str),
    rendezvous: Rendezvous,
) -> Result<(String, String)> {
    let job = lab.guest(server.0).spawn(server.1)?;
    rendezvous.wait(lab.guest(server.0))?;
    let output = lab.guest(client.0).shell(client.1).timeout(TIMEOUT).run()?;
    if !output.success() {
        eprintln!("the server so far: {:?}", job.peek());
    }
    let output = output.check()?;
    let answer = job.wait(TIMEOUT)?.check()?;
    Ok((output.stdout, answer.stdout))
}

/// rdma-core's examples, which check the data they exchange with `-c`.
const PING_PONGS: [&str; 8] = [
    "ibv_rc_pingpong -d mlx5_0 -g 1 -c",
    "ibv_rc_pingpong -d mlx5_0 -g 1 -c -e",
    "ibv_uc_pingpong -d mlx5_0 -g 1 -c",
    "ibv_ud_pingpong -d mlx5_0 -g 1 -c -s 1024",
    "ibv_srq_pingpong -d mlx5_0 -g 1 -c",
    "ibv_srq_pingpong -d mlx5_0 -g 1 -c -e",
    "ibv_xsrq_pingpong -d mlx5_0 -g 1",
    "ibv_rc_pingpong -d mlx5_0 -g 1 -c -s 1048577 -n 20",
];

#[test]
fn the_ping_pongs_run_between_two_guests() -> Result<()> {
    let lab = Setup::new("nic-pingpong", 2).start()?;
    for program in PING_PONGS {
        step(program, || {
            let client = format!("{program} {}", NicOptions::address(0));
            let (said, _) = pair(&lab, (0, program), (1, &client), Rendezvous::Tcp)?;
            assert!(said.contains("iters in"), "{said}");
            Ok(())
        })?;
    }
    lab.finish()
}

#[test]
fn connections_are_managed() -> Result<()> {
    let lab = Setup::new("nic-cm", 2).start()?;
    let address = NicOptions::address(0);
    for (place, client_in) in [("between guests", 1), ("within a guest", 0)] {
        for (server, client, good) in [
            (
                format!("rping -s -a {address} -V -C 10 -v -S 1000"),
                format!("rping -c -a {address} -V -C 10 -v -S 1000"),
                "rdma-ping-9: ",
            ),
            (
                "ucmatose -c 5".to_owned(),
                format!("ucmatose -s {address} -c 5"),
                "return status 0",
            ),
            (
                "udaddy -c 5".to_owned(),
                format!("udaddy -s {address} -c 5"),
                "return status 0",
            ),
            (
                "cmtime -c 20".to_owned(),
                format!("cmtime -s {address} -c 20"),
                "disconnect",
            ),
        ] {
            // Without queue pairs it invents numbers of them, the same on both sides.
            if client_in == 0 && client.starts_with("cmtime") {
                continue;
            }
            step(&format!("{client}, {place}"), || {
                let (said, _) = pair(&lab, (0, &server), (client_in, &client), Rendezvous::Cm)?;
                assert!(said.contains(good), "{good:?} in {said}");
                assert!(!said.contains("failure"), "{said}");
                Ok(())
            })?;
        }
    }
    step("multicast", || multicast(&lab))?;
    lab.finish()
}

/// Each guest joins a group by rdma_cm and gets what is sent to it, by the other guest and by itself.
fn multicast(lab: &Lab) -> Result<()> {
    const GROUP: &str = "239.5.0.1";
    // It prints to a pipe by the block.
    let member = |guest: usize| {
        format!(
            "stdbuf -oL mckey -m {GROUP} -b {} -C 10 -S 500",
            NicOptions::address(guest)
        )
    };
    for sender in 0..2 {
        let receivers = [0, 1].map(|guest| lab.guest(guest).spawn(&member(guest)));
        let receivers = receivers.into_iter().collect::<Result<Vec<_>>>()?;
        for receiver in &receivers {
            receiver.wait_line("joined dgid", TIMEOUT)?;
        }
        let send = format!("{} -s", member(sender));
        let said = lab.guest(sender).shell(&send).timeout(TIMEOUT).run()?.check()?;
        assert!(said.stdout.contains("return status 0"), "{said}");
        for receiver in receivers {
            // It counts them, and ends when it has all.
            let said = receiver.wait(TIMEOUT)?.check()?;
            assert!(said.stdout.contains("data transfers complete"), "{said}");
            assert!(said.stdout.contains("return status 0"), "{said}");
        }
    }
    Ok(())
}
