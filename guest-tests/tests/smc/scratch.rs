use crate::lab::{Kernel, Setup};
use guest_tests::Result;
use std::time::{Duration, Instant};

const LOOK: &str = "dmesg | grep SLOW | tail -40; sed 's/^/N /' /proc/net/netstat | awk '/TcpExt/{ if(!n){n=split($0,h)} else {m=split($0,v); for(i=3;i<=m;i++) if (v[i]+0>0) printf \"%s=%s \", h[i], v[i]; print \"\"}}'; grep ^Tcp: /proc/net/snmp";

#[test]
#[ignore]
fn scratch() -> Result<()> {
    let debug = std::env::var("SCRATCH_KERNEL").is_ok_and(|kernel| kernel == "debug");
    let lab = Setup::new("scratch", 2)
        .kernel(if debug { Kernel::Debug } else { Kernel::Normal })
        .start()?;
    lab.bed()
        .each(|g| g.run("mount -t debugfs none /sys/kernel/debug; true").map(drop))?;
    for round in 0..40 {
        let address = lab.guest(1).addr(0);
        let job = lab.guest(0).spawn(&format!("exec /host/smc-tool --json connections --count 50 --open-parallel 8 --bytes-each 64K --to {address}:5000 --expect-mode smcd --timeout 60"))?;
        let begin = Instant::now();
        let mut looked = false;
        while !job.is_finished() {
            std::thread::sleep(Duration::from_millis(100));
            if begin.elapsed() > Duration::from_secs(400) && !looked {
                looked = true;
                for guest in lab.bed().guests() {
                    println!("=== {} {:?}", guest.name(), begin.elapsed());
                    println!("{}", guest.run(LOOK)?);
                }
                println!("{}", lab.daemon_stats()?);
            }
        }
        if begin.elapsed() > Duration::from_secs(7) {
            for guest in lab.bed().guests() {
                println!("{} {}", guest.read("/proc/uptime")?, guest.run(LOOK)?);
            }
        }
        let out = job.wait(lab.seconds(60))?;
        println!(
            "{round}: {:?} {} {:.400}",
            begin.elapsed(),
            out.status,
            format!("{}{}", out.stdout, out.stderr)
        );
        if looked {
            break;
        }
    }
    lab.bed().each(|g| {
        println!("{}", g.run(LOOK)?);
        Ok(())
    })?;
    Ok(())
}
