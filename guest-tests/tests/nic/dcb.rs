//! Data centre bridging by `dcb`: what is set is shown, and nothing that the driver asks for is refused.

use guest_harness::{Guest, NIC, Result};
use serde_json::{Value, json};

use crate::ethernet::counter;
use crate::fixture::{Fixture, Setup, step};

#[test]
fn dcb_shows_what_was_set() -> Result<()> {
    let fixture = Setup::new("nic-dcb", 2).stock_kernel("7.x").ethernet_only().start()?;
    let guest = fixture.guest(0);
    step("ETS", || ets(guest))?;
    step("rates", || rates(guest))?;
    step("PFC and buffers", || flow_control(guest))?;
    step("DSCP", || dscp(guest))?;
    step("priorities", || priorities(&fixture))?;
    step("DCBX", || dcbx(guest))?;
    let errors = guest.run("dmesg | grep mlx5 | grep -Ei 'fail|error|refus|syndrome|not supported|exceeds' || true")?;
    assert_eq!(errors.check()?.stdout, "");
    fixture.finish()
}

/// Returns what `dcb OBJECT show` prints.
fn show(guest: &Guest, object: &str) -> Result<Value> {
    let shown = guest.run(&format!("dcb -Nj {object} show dev {NIC}"))?.check()?;
    Ok(serde_json::from_str(shown.text()).expect("JSON"))
}

fn set(guest: &Guest, object: &str, arguments: &str) -> Result<()> {
    guest
        .run(&format!("dcb {object} set dev {NIC} {arguments}"))?
        .check()
        .map(drop)
}

/// Groups of strict priority and of shared bandwidth.
fn ets(guest: &Guest) -> Result<()> {
    let shown = show(guest, "ets")?;
    assert_eq!(shown["ets_cap"], 8, "{shown}");
    assert_eq!(shown["tc_tsa"], Value::from(["vendor"; 8].to_vec()), "{shown}");
    assert_eq!(shown["prio_tc"], json!([1, 0, 2, 3, 4, 5, 6, 7]), "{shown}");
    let classes = "tc-tsa 0:ets 1:ets 2:ets 3:strict 4:strict 5:strict 6:strict 7:strict tc-bw 0:20 1:30 2:50";
    set(guest, "ets", classes)?;
    set(guest, "ets", "prio-tc 0:0 1:1 2:2 3:3 4:3 5:5 6:6 7:7")?;
    let shown = show(guest, "ets")?;
    let tsa = ["ets", "ets", "ets", "strict", "strict", "strict", "strict", "strict"];
    assert_eq!(shown["tc_tsa"], json!(tsa), "{shown}");
    assert_eq!(shown["tc_bw"], json!([20, 30, 50, 0, 0, 0, 0, 0]), "{shown}");
    assert_eq!(shown["prio_tc"], json!([0, 1, 2, 3, 3, 5, 6, 7]), "{shown}");
    Ok(())
}

fn rates(guest: &Guest) -> Result<()> {
    let shown = show(guest, "maxrate")?;
    assert_eq!(shown["tc_maxrate"], Value::from([0; 8].to_vec()), "{shown}");
    // The driver takes bytes per second for Kb/s: 10 Gb/s and 500 Mb/s.
    set(guest, "maxrate", "tc-maxrate 0:80Mbit 7:4Mbit")?;
    let shown = show(guest, "maxrate")?;
    let expected = [10_000_000, 0, 0, 0, 0, 0, 0, 500_000];
    assert_eq!(shown["tc_maxrate"], json!(expected), "{shown}");
    Ok(())
}

/// The buffers follow PFC until one is set.
fn flow_control(guest: &Guest) -> Result<()> {
    let sizes = |sizes: [u32; 3]| {
        let mut all = vec![0; 8];
        all[..3].copy_from_slice(&sizes);
        json!(all)
    };
    let shown = show(guest, "buffer")?;
    assert_eq!(shown["total_size"], 262_016, "{shown}");
    assert_eq!(shown["buffer_size"], sizes([262_016, 0, 0]), "{shown}");
    set(guest, "pfc", "prio-pfc 3:on")?;
    let shown = show(guest, "pfc")?;
    let expected = [false, false, false, true, false, false, false, false];
    assert_eq!(shown["prio_pfc"], json!(expected), "{shown}");
    let shown = show(guest, "buffer")?;
    assert_eq!(shown["buffer_size"], sizes([130_944, 130_944, 0]), "{shown}");
    assert_eq!(shown["prio_buffer"], json!([0, 0, 0, 1, 0, 0, 0, 0]), "{shown}");
    set(guest, "buffer", "buffer-size 0:65536 1:65536 2:130944")?;
    set(guest, "buffer", "prio-buffer 3:2 5:1")?;
    let shown = show(guest, "buffer")?;
    assert_eq!(shown["buffer_size"], sizes([65_536, 65_536, 130_944]), "{shown}");
    assert_eq!(shown["prio_buffer"], json!([0, 0, 0, 2, 0, 1, 0, 0]), "{shown}");
    // The buffers are larger than the port's.
    let more = guest.run(&format!("dcb buffer set dev {NIC} buffer-size 0:65664"))?;
    assert!(more.clone().check().is_err(), "{more}");
    set(guest, "pfc", "prio-pfc all:off")?;
    let shown = show(guest, "pfc")?;
    assert_eq!(shown["prio_pfc"], Value::from([false; 8].to_vec()), "{shown}");
    let shown = show(guest, "buffer")?;
    assert_eq!(shown["buffer_size"], sizes([65_536, 65_536, 130_944]), "{shown}");
    Ok(())
}

/// The first DSCP with a priority makes the port trust DSCPs, the last that goes makes it trust tags.
fn dscp(guest: &Guest) -> Result<()> {
    let app = |verb: &str, entries: &str| -> Result<()> {
        let command = format!("dcb app {verb} dev {NIC} dscp-prio {entries}");
        guest.run(&command)?.check().map(drop)
    };
    app("add", "26:5 46:6")?;
    let shown = show(guest, "app")?;
    assert_eq!(shown["dscp_prio"], json!([[26, 5, " "], [46, 6, " "]]), "{shown}");
    app("del", "26:5 46:6")?;
    let shown = show(guest, "app")?;
    assert_eq!(shown["dscp_prio"], Value::Null, "{shown}");
    Ok(())
}

/// The host negotiates, or takes what the firmware does.
fn dcbx(guest: &Guest) -> Result<()> {
    assert_eq!(show(guest, "dcbx")?, json!({"host": true, "cee": true, "ieee": true}));
    set(guest, "dcbx", "host ieee")?;
    assert_eq!(show(guest, "dcbx")?, json!({"host": true, "ieee": true}));
    Ok(())
}

/// Frames are counted by the priority of their tags.
fn priorities(fixture: &Fixture) -> Result<()> {
    let script = format!(
        "
import socket
wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
wire.bind(('{NIC}', 0))
for number in range(20):
    tag = b'\\x81\\x00' + (4 << 13 | 7).to_bytes(2, 'big')
    wire.send(b'\\xff' * 6 + b'\\x02\\x00\\x00\\x00\\x00\\x01' + tag + b'\\x88\\xb5' + bytes([number]) * 82)
"
    );
    fixture.guest(0).command(["python3", "-c", &script]).run()?.check()?;
    // The driver reads the device's counters once a second.
    fixture.guest(0).run("sleep 2.5")?.check()?;
    let counted = [
        counter(fixture, 0, "tx_prio4_packets")?,
        counter(fixture, 0, "tx_prio4_bytes")?,
    ];
    assert_eq!(counted, [20, 2000]);
    assert_eq!(counter(fixture, 0, "rx_prio4_packets")?, 0);
    let received = [
        counter(fixture, 1, "rx_prio4_packets")?,
        counter(fixture, 1, "rx_prio4_bytes")?,
    ];
    assert_eq!(received, [20, 2000]);
    Ok(())
}
