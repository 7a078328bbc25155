//! Programs with a server in one guest and a client in another, over sockets or rdma_cm.

use std::thread;
use std::time::Duration;

use super::traffic::Flow;
use crate::command::{Job, Output};
use crate::deadline::Deadline;
use crate::error::{Error, Result};

/// Limit on the time until a server listens, when emulation has to translate all its code.
const LISTENING: Duration = Duration::from_secs(60);
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// SIGKILL.
const KILL: i32 = 9;

/// Output of both ends.
#[derive(Debug, Clone)]
pub struct Conversation {
    /// Output of the client, which succeeded.
    pub client: Output,
    /// Output of the server, which succeeded.
    pub server: Output,
}

impl Flow<'_> {
    /// Runs the script `server` at one end and, once a program listens on `port` there, `client` at the other; see
    /// [`Flow::next_port`]. Fails unless both succeed within `limit` each; the error includes the server's output.
    pub fn converse(&self, port: u16, server: &str, client: &str, limit: Duration) -> Result<Conversation> {
        let job = self.server.spawn(server)?;
        let job = self.wait_listening(job, port)?;
        let mut output = self.client.shell(client).timeout(limit).run()?;
        if !output.success() {
            job.kill(KILL);
            let (stdout, stderr) = job.peek();
            output.stderr += &format!("--- server\n{stdout}{stderr}");
        }
        let client = output.check()?;
        let server = job.wait(limit)?.check()?;
        Ok(Conversation { client, server })
    }

    /// Runs `program -p PORT` at one end and `program -p PORT ADDRESS` at the other: the convention of rdma-core's
    /// examples and of perftest.
    pub fn converse_alike(&self, program: &str, limit: Duration) -> Result<Conversation> {
        let port = Self::next_port();
        let server = format!("exec {program} -p {port}");
        self.converse(port, &server, &format!("{server} {}", self.to), limit)
    }

    /// Waits until a TCP socket or an rdma_cm id listens on the port.
    fn wait_listening(&self, server: Job, port: u16) -> Result<Job> {
        let deadline = Deadline::after(LISTENING);
        let look = format!(
            "ss -Hltn 'sport = :{port}' | grep -q . || \
             rdma resource show cm_id 2>/dev/null | grep -q 'state LISTEN .*:{port} '"
        );
        loop {
            let look = self.server.shell(&look).called(format!("look for port {port}"));
            if look.run()?.success() {
                return Ok(server);
            }
            if server.is_finished() {
                let output = server.wait(LISTENING)?.check()?;
                return Err(Error::Agent(format!(
                    "the server ended before its client started: {output}"
                )));
            }
            if deadline.left().is_none() {
                return Err(deadline.missed(format!("a server on port {port}: {:?}", server.peek())));
            }
            thread::sleep(LOOK_AGAIN);
        }
    }
}
