//! NVMe over RDMA: the kernel's target and host over reliable connections of the NIC.

use std::time::{Duration, Instant};

use guest_harness::{Guest, NIC, NicOptions, NicSetup, Result, Testbed, noise};

use crate::fixture::{WITHOUT_RDS, finish};

/// Limit on a script: shorter than the two minutes after which the kernel reports a hung task.
const LIMIT: Duration = Duration::from_secs(60);
const SUBSYSTEM: &str = "nqn.2014-08.org.nvmexpress:vhost-nic-test";
/// Bytes written and read back.
const DATA: usize = 4 << 20;

fn start(name: &str, guests: usize) -> Result<Testbed> {
    let testbed = Testbed::builder(name)
        .guests(0)
        .uml_guests(guests)
        // In KiB.
        .kernel_arg("brd.rd_size=16384")
        .kernel_arg(WITHOUT_RDS)
        .nic(NicOptions::default())
        .start()?;
    testbed.each(|guest| guest.nic_up(&NicSetup::default()))?;
    Ok(testbed)
}

fn script(guest: &Guest, what: &str, script: &str) -> Result<String> {
    let out = guest
        .shell(&format!("set -e\n{script}"))
        .called(what)
        .timeout(LIMIT)
        .run()?;
    Ok(out.check()?.stdout)
}

/// Exports a RAM disk at the guest's address on the NIC.
fn offer(guest: &Guest) -> Result<()> {
    let address = NicOptions::address(guest.index());
    script(
        guest,
        "offer a namespace",
        &format!(
            "mountpoint -q /sys/kernel/config || mount -t configfs none /sys/kernel/config\n\
             cd /sys/kernel/config/nvmet\n\
             mkdir subsystems/{SUBSYSTEM}\n\
             echo 1 >subsystems/{SUBSYSTEM}/attr_allow_any_host\n\
             mkdir subsystems/{SUBSYSTEM}/namespaces/1\n\
             echo -n /dev/ram0 >subsystems/{SUBSYSTEM}/namespaces/1/device_path\n\
             echo 1 >subsystems/{SUBSYSTEM}/namespaces/1/enable\n\
             mkdir ports/1\n\
             echo rdma >ports/1/addr_trtype\n\
             echo ipv4 >ports/1/addr_adrfam\n\
             echo {address} >ports/1/addr_traddr\n\
             echo 4420 >ports/1/addr_trsvcid\n\
             ln -s /sys/kernel/config/nvmet/subsystems/{SUBSYSTEM} ports/1/subsystems/{SUBSYSTEM}\n"
        ),
    )
    .map(drop)
}

/// Removes the export.
fn withdraw(guest: &Guest) -> Result<()> {
    script(
        guest,
        "withdraw the namespace",
        &format!(
            "cd /sys/kernel/config/nvmet\n\
             rm ports/1/subsystems/{SUBSYSTEM}\n\
             rmdir ports/1 subsystems/{SUBSYSTEM}/namespaces/1 subsystems/{SUBSYSTEM}\n"
        ),
    )
    .map(drop)
}

/// Connects, writes past the page cache, reads back, compares and disconnects.
fn use_once(host: &Guest, target: usize, round: usize) -> Result<()> {
    let address = NicOptions::address(target);
    let connect = format!(
        "transport=rdma,traddr={address},trsvcid=4420,nqn={SUBSYSTEM},\
         hostnqn=nqn.2014-08.org.nvmexpress:host-{round},hostid=00000000-0000-4000-8000-{round:012x}"
    );
    script(
        host,
        "connect",
        &format!(
            "exec 3<>/dev/nvme-fabrics\n\
             echo -n '{connect}' >&3\n\
             for try in $(seq 200); do [ -b /dev/nvme0n1 ] && exit; sleep 0.05; done\n\
             echo 'there is no disk' >&2; exit 1\n"
        ),
    )?;
    // Everything in blocks of several sizes, then a range with arbitrary bounds.
    let part = format!("skip={0} seek={0} count=255", 1 + round % 7);
    script(
        host,
        "write and read back",
        &format!(
            "for size in 4096 65536 1048576; do\n\
             \x20 count=$(({DATA} / size))\n\
             \x20 dd if=/tmp/noise of=/dev/nvme0n1 bs=$size oflag=direct status=none\n\
             \x20 dd if=/dev/nvme0n1 of=/tmp/read bs=$size count=$count iflag=direct status=none\n\
             \x20 cmp /tmp/noise /tmp/read\n\
             \x20 dd if=/dev/zero of=/dev/nvme0n1 bs=$size count=$count oflag=direct status=none\n\
             done\n\
             cp /tmp/noise /tmp/read\n\
             dd if=/dev/zero of=/tmp/read bs=512 {part} conv=notrunc status=none\n\
             dd if=/tmp/noise of=/dev/nvme0n1 bs=1M oflag=direct status=none\n\
             dd if=/dev/zero of=/dev/nvme0n1 bs=512 {part} oflag=direct status=none\n\
             dd if=/dev/nvme0n1 bs=1M count=4 iflag=direct status=none | cmp - /tmp/read\n"
        ),
    )?;
    script(
        host,
        "disconnect",
        "echo 1 >/sys/class/nvme/nvme0/delete_controller\n\
         for try in $(seq 200); do [ -e /sys/class/nvme/nvme0 ] || exit 0; sleep 0.05; done\n\
         echo 'the controller stays' >&2; exit 1\n",
    )
    .map(drop)
}

fn run(name: &str, guests: usize, rounds: usize) -> Result<()> {
    let testbed = start(name, guests)?;
    let (host, target) = (testbed.guest(0), testbed.guest(guests - 1));
    host.put_bytes(&noise(DATA), "/tmp/noise", 0o600)?;
    offer(target)?;
    let begin = Instant::now();
    for round in 0..rounds {
        use_once(host, target.index(), round)?;
    }
    let seconds = begin.elapsed().as_secs_f64();
    eprintln!("{rounds} times connected, written, read and disconnected: {seconds:.1} s");
    withdraw(target)?;
    finish(testbed)
}

#[test]
fn a_guest_is_its_own_nvme_target() -> Result<()> {
    run("uml-nvme", 1, 3)
}

#[test]
#[ignore = "long: a hundred times"]
fn a_guest_is_its_own_nvme_target_a_hundred_times() -> Result<()> {
    run("uml-nvme-long", 1, 100)
}

#[test]
fn a_guest_is_the_nvme_target_of_another() -> Result<()> {
    run("uml-nvme-pair", 2, 2)
}

/// Replaces the NIC's RDMA device by software RoCE on its interface.
fn become_software(guest: &Guest) -> Result<()> {
    script(
        guest,
        "put rxe on the interface",
        &format!(
            "echo mlx5_core.rdma.0 >/sys/bus/auxiliary/drivers/mlx5_ib.rdma/unbind\n\
             rdma link add rxe0 type rxe netdev {NIC}\n"
        ),
    )
    .map(drop)
}

#[test]
#[ignore = "long: the software transport is slow"]
fn a_guest_with_the_kernels_own_roce_is_the_nvme_target_of_another() -> Result<()> {
    let testbed = start("uml-nvme-rxe", 2)?;
    let (host, target) = (testbed.guest(0), testbed.guest(1));
    become_software(target)?;
    host.put_bytes(&noise(DATA), "/tmp/noise", 0o600)?;
    offer(target)?;
    use_once(host, target.index(), 0)?;
    withdraw(target)?;
    target.run("rdma link del rxe0")?.check()?;
    finish(testbed)
}
