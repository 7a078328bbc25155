//! Scratch.
use guest_tests::{IsmOptions, SmcOptions, Testbed};
use std::time::Duration;

#[test]
fn bench() {
    let env = |n: &str, d: &str| std::env::var(n).unwrap_or(d.into());
    let bed = Testbed::builder("bench")
        .guests(2)
        .smp(env("SMP", "1").parse().unwrap())
        .mesh()
        .ism(IsmOptions::default())
        .start()
        .unwrap();
    bed.smc_up_with(&SmcOptions {
        driver_args: vec![format!("poll_us={}", env("POLL", "200"))],
        ..Default::default()
    })
    .unwrap();
    let (a, b) = (bed.guest(0), bed.guest(1));
    if env("PIN", "1") == "1" {
        a.pin(0).unwrap();
        b.pin(1).unwrap();
    }
    let server = b.spawn("/host/smc-tool serve --port 5000").unwrap();
    server.wait_line("ready", Duration::from_secs(10)).unwrap();
    let tcp = b.spawn("/host/smc-tool serve --proto tcp --port 5001").unwrap();
    tcp.wait_line("ready", Duration::from_secs(10)).unwrap();
    let to = b.addr(0);
    for _ in 0..4 {
        for (proto, port, mode) in [("smc", 5000, "smcd"), ("tcp", 5001, "tcp")] {
            for cmd in [
                format!("rtt --size 64 --count 2000"),
                format!("bulk --bytes 30M --write-size 64K --direction to --check none"),
                format!("messages --size 64 --seconds 2"),
            ] {
                let out = a
                    .run(&format!(
                        "/host/smc-tool {cmd} --to {to}:{port} --proto {proto} --expect-mode {mode} --json 2>&1"
                    ))
                    .unwrap();
                println!("{proto} {cmd}: {}", out.text());
            }
        }
    }
    println!(
        "STAT {}",
        a.run("grep -E 'bell|event' /sys/kernel/debug/virtio_ism/*/stats")
            .unwrap()
            .text()
    );
    println!(
        "STAT {}",
        b.run("grep -E 'bell|event' /sys/kernel/debug/virtio_ism/*/stats")
            .unwrap()
            .text()
    );
    bed.finish().unwrap();
}
