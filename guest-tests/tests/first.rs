//! Scratch.
use guest_tests::{IsmOptions, Testbed};
use std::time::Duration;

#[test]
fn first() {
    let bed = Testbed::builder("first")
        .guests(2)
        .mesh()
        .ism(IsmOptions::default())
        .start()
        .unwrap();
    bed.smc_up().unwrap();
    let (a, b) = (bed.guest(0), bed.guest(1));
    println!(
        "{}",
        a.run("dmesg | tail -20; /host/smc-tool devices; /host/smc-tool info")
            .unwrap()
            .text()
    );
    let server = b.spawn("/host/smc-tool serve --port 5000").unwrap();
    server.wait_line("ready", Duration::from_secs(10)).unwrap();
    let tcp = b.spawn("/host/smc-tool serve --proto tcp --port 5001").unwrap();
    tcp.wait_line("ready", Duration::from_secs(10)).unwrap();
    let to = b.addr(0);
    for _ in 0..3 {
        for (proto, port, mode) in [("smc", 5000, "smcd"), ("tcp", 5001, "tcp")] {
            for cmd in [
                format!("rtt --size 64 --count 2000"),
                format!("bulk --bytes 20M --write-size 64K --direction to --check none"),
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
    println!("{}", a.run("/host/smc-tool sockets; /host/smc-tool stats; cat /sys/kernel/debug/virtio_ism/*/stats; cat /proc/interrupts").unwrap().text());
    println!(
        "{}",
        serde_json::to_string_pretty(&bed.daemon().stats().unwrap()).unwrap()
    );
    bed.finish().unwrap();
}
