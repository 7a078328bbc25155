//! Programs of user space over verbs, as Debian has them: UCX, libfabric, rsockets, and OpenMPI over UCX.

use std::time::Duration;

use guest_harness::{Flow, Guest, Result};

use crate::fixture::{Setup, step};

/// Limit on a program.
const LIMIT: Duration = Duration::from_secs(120);
/// Transports of UCX by verbs, and by WQEs that it writes itself.
const TRANSPORTS: [&str; 4] = ["rc_v", "rc_x", "ud_v", "ud_x"];
/// Program of OpenMPI's ranks, and what starts it in the other guest.
const RANKS: &str = include_str!("ranks.py");
const LAUNCH: &str = include_str!("launch.py");
/// Seconds in which a file is copied.
const RCOPY: u32 = 30;
/// Numbers that a rank compares.
const COMPARED: u32 = 1_124_595;
/// Sizes of `fi_pingpong -S all`.
const SIZES: usize = 46;
/// SIGTERM.
const TERM: i32 = 15;

#[test]
#[ignore = "long: needs a root file system with UCX, libfabric and OpenMPI"]
fn programs_of_user_space_run() -> Result<()> {
    let fixture = Setup::new("nic-programs", 2)
        .packages("libfabric-bin+openmpi-bin+python3-mpi4py+ucx-utils")
        .memory_mib(1024)
        .start()?;
    let flow = fixture.flow(0, 1);
    step("rsockets", || rsockets(&flow))?;
    step("OpenMPI", || openmpi(&flow))?;
    step("libfabric", || libfabric(&flow))?;
    for transport in TRANSPORTS {
        step(&format!("UCX over {transport}"), || ucx(&flow, transport))?;
    }
    fixture.finish()
}

/// Tests of every kind of operation, with short and with long messages. By WQEs of its own, UCX cannot flush the other
/// side without DEVX (src/uct/ib/mlx5/rc/rc_mlx5_ep.c), with which tests of one-sided operations end: those are left
/// out.
fn ucx(flow: &Flow<'_>, transport: &str) -> Result<()> {
    const TWO_SIDED: [(&str, u32); 5] = [
        ("tag_lat -s 8", 500),
        ("tag_bw -s 65536", 200),
        ("tag_sync_lat -s 1024", 200),
        ("stream_bw -s 4096", 200),
        ("ucp_am_bw -s 1048576", 20),
    ];
    const ONE_SIDED: [(&str, u32); 4] = [
        ("ucp_put_bw -s 4096", 200),
        ("ucp_get -s 65536", 50),
        ("ucp_fadd -s 8", 200),
        ("ucp_cswap -s 8", 200),
    ];
    let one_sided = if transport == "rc_x" { &[][..] } else { &ONE_SIDED };
    for (test, count) in TWO_SIDED.iter().chain(one_sided) {
        let program =
            format!("env UCX_TLS={transport} UCX_NET_DEVICES=mlx5_0:1 ucx_perftest -P 0 -w 10 -n {count} -t {test}");
        let said = flow.converse_alike(&program, LIMIT)?.client;
        let line = said.stdout.lines().find_map(|line| line.trim().strip_prefix("Final:"));
        let done = line.and_then(|line| line.split_whitespace().next());
        assert_eq!(done, Some(&*count.to_string()), "{test} over {transport}: {said}");
    }
    Ok(())
}

/// Ping-pongs of all sizes whose data are checked, over endpoints of verbs and over reliable datagrams above them.
fn libfabric(flow: &Flow<'_>) -> Result<()> {
    for (provider, endpoint) in [("verbs", "msg"), ("verbs;ofi_rxm", "rdm")] {
        let port = Flow::next_port();
        let program = format!("exec fi_pingpong -p '{provider}' -e {endpoint} -d mlx5_0 -c -I 4 -S all");
        let server = format!("{program} -B {port}");
        let client = format!("{program} -P {port} {}", flow.to);
        let said = flow.converse(port, &server, &client, LIMIT)?.client;
        // Messages, and as many answers.
        let sizes = said.stdout.lines().filter(|line| line.contains(" =4 "));
        assert_eq!(sizes.count(), SIZES, "{provider}: {said}");
    }
    Ok(())
}

/// Streams whose data are verified, and a file that is compared.
fn rsockets(flow: &Flow<'_>) -> Result<()> {
    // Not "async": rstream takes the end of its peer, which may come first, for an error of its own.
    for mode in ["blocking", "nonblocking"] {
        for size in [1, 4095, 65_537, 1 << 20] {
            let port = Flow::next_port();
            let program = format!("exec rstream -p {port} -T verify -T {mode} -S {size} -C 10 -I 2");
            let said = flow
                .converse(port, &program, &format!("{program} -s {}", flow.to), LIMIT)?
                .client;
            // Size, transfers and iterations.
            let line = said.stdout.lines().last().unwrap_or_default();
            let done: Vec<&str> = line.split_whitespace().skip(2).take(2).collect();
            assert_eq!(done, ["10", "2"], "{size}, {mode}: {said}");
        }
    }
    flow.client.run("head -c 20000001 /dev/urandom > /tmp/sent")?.check()?;
    let port = Flow::next_port();
    // The server waits for the next file until it is ended.
    let server = format!("timeout {RCOPY} rcopy -p {port} || [ $? = 124 ]");
    let client = format!("exec rcopy /tmp/sent {}:/tmp/received -p {port}", flow.to);
    flow.converse(port, &server, &client, LIMIT)?;
    let digest = |guest: &Guest, file: &str| guest.run(&format!("sha256sum < /tmp/{file}"))?.check();
    let (sent, received) = (digest(flow.client, "sent")?, digest(flow.server, "received")?);
    assert_eq!(sent.stdout, received.stdout);
    Ok(())
}

/// Two ranks, one in each guest, compare what they exchange by messages, reductions and windows.
fn openmpi(flow: &Flow<'_>) -> Result<()> {
    for guest in [flow.client, flow.server] {
        guest.put_bytes(LAUNCH.as_bytes(), "/tmp/launch.py", 0o755)?;
        guest.put_bytes(RANKS.as_bytes(), "/tmp/ranks.py", 0o644)?;
    }
    let launcher = flow.server.spawn("exec /tmp/launch.py")?;
    launcher.wait_line("ready", LIMIT)?;
    for transport in TRANSPORTS {
        let mpirun = format!(
            "UCX_TLS={transport} UCX_NET_DEVICES=mlx5_0:1 mpirun.openmpi --allow-run-as-root \
             --prtemca plm_ssh_agent /tmp/launch.py -n 2 -H localhost:1,{}:1 --mca pml ucx --mca osc ucx -x UCX_TLS \
             -x UCX_NET_DEVICES python3 /tmp/ranks.py",
            flow.to
        );
        let said = flow.client.shell(&mpirun).timeout(LIMIT).run()?.check()?;
        let mut lines: Vec<&str> = said.stdout.lines().collect();
        lines.sort_unstable();
        let [a, b] = [flow.client, flow.server].map(|guest| guest.name());
        let expected = [
            format!("rank 0 on {a} compared {COMPARED}"),
            format!("rank 1 on {b} compared {COMPARED}"),
        ];
        assert_eq!(lines, expected, "over {transport}: {said}");
    }
    launcher.kill(TERM);
    launcher.wait(LIMIT).map(drop)
}
