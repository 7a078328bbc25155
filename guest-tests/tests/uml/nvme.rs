//! NVMe over RDMA: the kernel's target and its host over reliable connections of the NIC.

use std::time::{Duration, Instant};

use guest_tests::{Guest, NicOptions, NicSetup, Result, Testbed};

use crate::lab::{assert_nothing_left, finish, noise};

/// A hang is found by the kernel after two minutes, and by us before.
const LIMIT: Duration = Duration::from_secs(60);
const SUBSYSTEM: &str = "nqn.2014-08.org.nvmexpress:vhost-nic-test";
/// Bytes that are written and read back.
const DATA: usize = 4 << 20;

fn start(name: &str, guests: usize) -> Result<Testbed> {
    let bed = Testbed::builder(name)
        .guests(0)
        .uml_guests(guests)
        // In KiB.
        .kernel_arg("brd.rd_size=16384")
        .nic(NicOptions::default())
        .start()?;
    bed.each(|guest| guest.nic_up(&NicSetup::default()))?;
    Ok(bed)
}

fn script(guest: &Guest, what: &str, script: &str) -> Result<String> {
    let out = guest.shell(&format!("set -e\n{script}")).called(what).timeout(LIMIT).run()?;
    Ok(out.check()?.stdout)
}

/// Offers a RAM disk at the guest's address on the NIC.
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

/// Takes the offer back.
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

/// Connects, writes, reads back and disconnects; the disk is behind the target all the time, and bypasses no cache of the host's.
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
    // Other sizes than the block layer's favourites, and not always from the beginning.
    let skip = round % 7;
    script(
        host,
        "write and read back",
        &format!(
            "dd if=/tmp/noise of=/dev/nvme0n1 bs=512 seek={skip} count=8191 oflag=direct status=none\n\
             dd if=/dev/nvme0n1 of=/tmp/read bs=512 skip={skip} count=8191 iflag=direct status=none\n\
             head -c $((8191*512)) /tmp/noise | cmp - /tmp/read\n\
             for size in 4K 64K 1M; do\n\
             \x20 dd if=/tmp/noise of=/dev/nvme0n1 bs=$size oflag=direct status=none\n\
             \x20 dd if=/dev/nvme0n1 of=/tmp/read bs=$size count=$((4096/${{size//[KM]}}))$([ $size = 1M ] || echo K) iflag=direct status=none\n\
             done\n"
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
