//! Programs that run at both ends.

use std::time::Duration;

use guest_harness::{Conversation, Error, Flow, Result};

use super::peers::End;
use crate::perftest;

/// Limit on a program: some fill their memory byte by byte.
const TIMEOUT: Duration = Duration::from_secs(120);

fn require(said: &Conversation, good: bool) -> Result<()> {
    match good {
        true => Ok(()),
        false => Err(Error::Agent(said.client.to_string())),
    }
}

/// Runs a pingpong program of rdma-core.
pub fn ping_pong(client: End<'_>, server: End<'_>, program: &str) -> Result<()> {
    let port = Flow::next_port();
    let command = |end: End<'_>| format!("exec {program} -d {} -g {} -p {port}", end.device, end.gid);
    let to = format!("{} {}", command(client), server.address);
    let said = client.to(server).converse(port, &command(server), &to, TIMEOUT)?;
    require(&said, said.client.stdout.contains("iters in"))
}

/// Option for the number of outstanding reads and atomics: that of the NIC. Each end of perftest posts as many as the
/// other supports, which is 128 for rdma_rxe, and no mlx5 device takes a `max_rd_atomic` beyond its own 16.
const OUTSTANDING: &str = "-o 16";

/// Runs a program of perftest; the client must have a result for each size.
pub fn perftest(client: End<'_>, server: End<'_>, program: &str) -> Result<()> {
    let port = Flow::next_port();
    let reads = program.starts_with("ib_read") || program.starts_with("ib_atomic");
    let more = match reads && !program.contains(" -o ") {
        true => OUTSTANDING,
        false => "",
    };
    let command = |end: End<'_>| format!("exec {program} -d {} -x {} -F -p {port} {more}", end.device, end.gid);
    let to = format!("{} {}", command(client), server.address);
    let said = client.to(server).converse(port, &command(server), &to, TIMEOUT)?;
    require(
        &said,
        perftest::results(&said.client.stdout) == perftest::expected_results(program),
    )
}

/// Programs of librdmacm: name, options of the server and the client with `@` for the server's address, and what a
/// successful client prints.
pub const CONNECTED: [(&str, &str, &str, &str); 5] = [
    ("rping -V -v -C 10 -S 1000", "-s -a @", "-c -a @", "rdma-ping-9: "),
    ("rping -V -v -C 3 -S 65000", "-s -a @", "-c -a @", "rdma-ping-2: "),
    ("ucmatose -c 5", "", "-s @", "return status 0"),
    ("udaddy -c 5", "", "-s @", "return status 0"),
    ("cmtime -c 20", "", "-s @", "disconnect"),
];

/// Runs one of [`CONNECTED`].
pub fn connect(
    client: End<'_>,
    server: End<'_>,
    (program, of_server, of_client, good): (&str, &str, &str, &str),
) -> Result<()> {
    // udaddy always listens on the same port.
    let (port, option) = match program.starts_with("udaddy") {
        true => (7174, String::new()),
        false => {
            let port = Flow::next_port();
            (port, format!(" -p {port}"))
        }
    };
    let address = server.address.to_string();
    let command = |options: &str| format!("exec {program}{option} {}", options.replace('@', &address));
    let flow = client.to(server);
    let said = flow.converse(port, &command(of_server), &command(of_client), TIMEOUT)?;
    let text = &said.client.stdout;
    require(&said, text.contains(good) && !text.contains("failure"))
}

/// Joins a multicast group by rdma_cm at both ends; the client sends, and the server receives ten datagrams.
pub fn multicast(client: End<'_>, server: End<'_>) -> Result<()> {
    const GROUP: &str = "239.5.0.1";
    const RECEIVED: u32 = 10;
    // The sender destroys its queue pair once it has posted, and rdma_rxe flushes what it has not sent by then.
    const SENT: u32 = 1000;
    // Line-buffered, as mckey block-buffers output to a pipe.
    let member = |end: End<'_>, count: u32| format!("stdbuf -oL mckey -m {GROUP} -b {} -C {count} -S 500", end.address);
    let receiver = server.guest.spawn(&member(server, RECEIVED))?;
    receiver.wait_line("joined dgid", TIMEOUT)?;
    let send = format!("{} -s", member(client, SENT));
    client.guest.shell(&send).timeout(TIMEOUT).run()?.check()?;
    let said = receiver.wait(TIMEOUT)?.check()?;
    match said.stdout.contains("data transfers complete") {
        true => Ok(()),
        false => Err(Error::Agent(said.to_string())),
    }
}
