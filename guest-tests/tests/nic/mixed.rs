//! Mixed traffic: every lost datagram must be in a drop counter.

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

use guest_harness::{Iperf, NIC, Result};

use crate::fixture::{Fixture, Setup};

/// Echo requests of a round.
const ECHOES: u32 = 20;

#[test]
#[ignore = "long: ten minutes of traffic"]
fn no_loss_is_unexplained_in_ten_minutes_of_mixed_traffic() -> Result<()> {
    mixed("nic-mixed-long", Duration::from_secs(600))
}

#[test]
fn no_loss_is_unexplained_in_mixed_traffic() -> Result<()> {
    mixed("nic-mixed", Duration::from_secs(15))
}

fn mixed(name: &'static str, time: Duration) -> Result<()> {
    let fixture = Setup::new(name, 2).start()?;
    let seconds = u32::try_from(time.as_secs()).expect("not that long");
    let before = drops(&fixture)?;
    let end = Instant::now() + time;
    let (udp, rounds, echoes_lost) = thread::scope(|scope| -> Result<(Vec<Iperf>, u32, u64)> {
        let fixture = &fixture;
        let tcp = [(0, 1), (1, 0)].map(|(from, to)| scope.spawn(move || fixture.flow_v6(from, to).iperf(seconds, "")));
        let udp = [(0, 1), (1, 0)].map(|(from, to)| {
            scope.spawn(move || {
                fixture
                    .flow(from, to)
                    .iperf(seconds, "--udp --bitrate 4M --length 1300")
            })
        });
        let (mut rounds, mut echoes_lost) = (0, 0);
        while Instant::now() < end {
            // Another size, and new connections, in each round. A full receive queue loses an echo as any datagram.
            let answered = fixture.flow(0, 1).echoes(ECHOES, 64 + rounds % 1400)?;
            echoes_lost += u64::from(ECHOES) - answered.len() as u64;
            fixture.flow(1, 0).compare_digests(1)?;
            for guest in fixture.testbed().guests() {
                guest
                    .run(&format!("ethtool -S {NIC} > /dev/null; ip -s link > /dev/null"))?
                    .check()?;
                guest.nic_check_log(&[])?;
            }
            rounds += 1;
        }
        for thread in tcp {
            let iperf = join(thread)?;
            eprintln!(
                "TCP: {:.0} Mbit/s, {} segments retransmitted",
                iperf.bits_per_second / 1e6,
                iperf.retransmits
            );
            assert!(iperf.bytes > 0, "{iperf:?}");
        }
        Ok((udp.map(join).into_iter().collect::<Result<_>>()?, rounds, echoes_lost))
    })?;
    let mut counted = drops(&fixture)?;
    counted.retain(|name, count| {
        *count -= before.get(name).copied().unwrap_or(0);
        *count > 0
    });
    let explained: u64 = counted.values().sum();
    let (sent, lost) = udp
        .iter()
        .fold((0, 0), |(sent, lost), one| (sent + one.packets, lost + one.lost));
    eprintln!("{rounds} rounds; UDP: {lost} of {sent} lost, echoes: {echoes_lost}; counted: {counted:?}");
    assert!(sent > 100, "{udp:?}");
    assert!(
        lost + echoes_lost <= explained,
        "{lost} datagrams and {echoes_lost} echoes lost, {explained} counted as dropped"
    );
    fixture.finish()
}

fn join<T>(thread: thread::ScopedJoinHandle<'_, Result<T>>) -> Result<T> {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Drops by guest and counter.
type Drops = BTreeMap<String, u64>;

/// Reads all drop counters of the guests' kernels and drivers, for received and sent frames.
fn drops(fixture: &Fixture) -> Result<Drops> {
    // Device rings, queues of driver and kernel, socket buffers.
    let script = format!(
        "ethtool -S {NIC} | awk '$1 ~ /^(rx_out_of_buffer|rx_discards_phy|tx_queue_dropped|rx_buff_alloc_err):$/'\n\
         tc -s qdisc show dev {NIC} | sed -n 's/.*dropped \\([0-9]*\\).*/qdisc: \\1/p'\n\
         nstat -asz UdpRcvbufErrors UdpSndbufErrors Udp6RcvbufErrors | awk 'NR > 1 {{ print $1 \": \" $2 }}'\n\
         echo \"tx_dropped: $(</sys/class/net/{NIC}/statistics/tx_dropped)\"\n\
         awk '{{ print \"backlog: \" strtonum(\"0x\" $2) }}' /proc/net/softnet_stat"
    );
    let mut drops = Drops::new();
    for guest in fixture.testbed().guests() {
        let counters = guest.run(&script)?.check()?;
        for line in counters.stdout.lines() {
            if let Some((name, value)) = line.trim().split_once(": ") {
                let name = format!("{} {name}", guest.name());
                *drops.entry(name).or_default() += value.trim().parse::<u64>().expect("a number");
            }
        }
    }
    Ok(drops)
}
