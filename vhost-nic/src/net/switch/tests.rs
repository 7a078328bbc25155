use std::sync::OnceLock;

use parking_lot::Mutex;

use super::*;
use crate::net::DropStats;

/// Records received frames.
#[derive(Default)]
struct Sink {
    frames: Mutex<Vec<Vec<u8>>>,
    cable: Mutex<Vec<bool>>,
}

impl Port for Sink {
    fn receive(&self, frame: Frame<'_>) {
        self.frames.lock().push(frame.to_bytes().unwrap().into_owned());
    }

    fn cable_changed(&self, plugged: bool) {
        self.cable.lock().push(plugged);
    }
}

impl Sink {
    fn take(&self) -> Vec<Vec<u8>> {
        std::mem::take(&mut *self.frames.lock())
    }
}

struct Station {
    sink: Arc<Sink>,
    port: SwitchPort,
}

impl Station {
    fn new(switch: &Arc<Switch>, name: &str) -> Self {
        let sink = Arc::<Sink>::default();
        let port = switch.attach(name, Arc::downgrade(&sink) as Weak<dyn Port>);
        Self { sink, port }
    }

    fn send(&self, bytes: &[u8]) {
        self.port.send(Frame::new(bytes));
    }
}

const BROADCAST: [u8; 6] = [0xff; 6];

fn mac(number: u8) -> [u8; 6] {
    [0x52, 0x54, 0, 0, 0xc5, number]
}

fn frame(to: [u8; 6], from: [u8; 6]) -> Vec<u8> {
    let mut frame = [to, from].concat();
    frame.extend([0x08, 0x00]);
    frame.extend(0..46);
    frame
}

fn tagged(to: [u8; 6], from: [u8; 6], vlan: u16) -> Vec<u8> {
    let mut frame = frame(to, from);
    let [high, low] = vlan.to_be_bytes();
    frame.splice(12..12, [0x81, 0x00, high, low]);
    frame
}

fn three() -> (Arc<Switch>, Station, Station, Station) {
    let switch = Switch::new();
    let stations = ["a", "b", "c"].map(|name| Station::new(&switch, name));
    let [a, b, c] = stations;
    (switch, a, b, c)
}

#[test]
fn a_broadcast_reaches_all_but_its_sender() {
    let (_switch, a, b, c) = three();
    let frame = frame(BROADCAST, mac(1));
    a.send(&frame);
    assert_eq!(b.sink.take(), std::slice::from_ref(&frame));
    assert_eq!(c.sink.take(), [frame]);
    assert_eq!(a.sink.take(), [[0; 0]; 0]);
    assert_eq!(a.port.stats().sent.broadcast, 1);
    assert_eq!(c.port.stats().received.broadcast, 1);
}

#[test]
fn an_answer_goes_to_the_learned_port_only() {
    let (_switch, a, b, c) = three();
    a.send(&frame(mac(2), mac(1)));
    assert_eq!((b.sink.take().len(), c.sink.take().len()), (1, 1), "an unknown station");
    assert_eq!(a.port.stats().flooded, 1);
    let answer = frame(mac(1), mac(2));
    b.send(&answer);
    assert_eq!(a.sink.take(), [answer]);
    assert!(c.sink.take().is_empty());
    a.send(&frame(mac(2), mac(1)));
    assert_eq!((b.sink.take().len(), c.sink.take().len()), (1, 0));
    let stats = b.port.stats();
    assert_eq!(
        (stats.stations, stats.flooded, stats.sent.unicast, stats.received.frames),
        (1, 0, 1, 2)
    );
    assert_eq!(stats.received.bytes, 120);
}

#[test]
fn a_multicast_reaches_all_and_is_counted_as_one() {
    let (_switch, a, b, c) = three();
    a.send(&frame([0x01, 0, 0x5e, 0, 0, 1], mac(1)));
    // Link layer discovery passes too.
    a.send(&frame([0x01, 0x80, 0xc2, 0, 0, 0x0e], mac(1)));
    assert_eq!((b.sink.take().len(), c.sink.take().len()), (2, 2));
    assert_eq!(a.port.stats().sent.multicast, 2);
}

#[test]
fn vlans_learn_apart() {
    let (_switch, a, b, c) = three();
    a.send(&tagged(BROADCAST, mac(1), 5));
    b.sink.take();
    b.send(&tagged(mac(1), mac(2), 0xe005));
    assert_eq!(
        (a.sink.take().len(), c.sink.take().len()),
        (1, 1),
        "the same VLAN, with a priority"
    );
    b.send(&tagged(mac(1), mac(2), 6));
    assert_eq!((a.sink.take().len(), c.sink.take().len()), (1, 1), "another VLAN");
    b.send(&frame(mac(1), mac(2)));
    assert_eq!((a.sink.take().len(), c.sink.take().len()), (1, 1), "no VLAN");
}

#[test]
fn the_mac_table_lists_stations_by_port_vlan_and_address() {
    let (switch, a, b, _c) = three();
    b.send(&frame(BROADCAST, mac(2)));
    a.send(&tagged(BROADCAST, mac(1), 5));
    a.send(&frame(BROADCAST, mac(9)));
    a.send(&frame(BROADCAST, mac(1)));
    let seen: Vec<(String, u16, String)> = switch
        .mac_table()
        .into_iter()
        .map(|station| (station.port, station.vlan, station.mac))
        .collect();
    let expected = [("a", 0, 1), ("a", 0, 9), ("a", 5, 1), ("b", 0, 2)]
        .map(|(port, vlan, number)| (port.to_owned(), vlan, Mac(mac(number)).to_string()));
    assert_eq!(seen, expected);
    // A port whose cable is pulled has no stations.
    assert!(switch.set_cable("a", false));
    assert_eq!(switch.mac_table().len(), 1);
}

#[test]
fn what_is_no_frame_is_dropped_and_counted() {
    let (_switch, a, b, _c) = three();
    a.send(&[]);
    a.send(&frame(mac(2), mac(1))[..13]);
    a.send(&vec![2; MAX_FRAME + 1]);
    a.send(&frame(mac(2), [0x01, 0, 0, 0, 0, 1]));
    a.send(&frame(mac(2), [0; 6]));
    a.send(&frame(PAUSE_ADDRESS.0, mac(1)));
    let dropped = a.port.stats().dropped;
    assert_eq!(
        (
            dropped.too_short,
            dropped.too_long,
            dropped.bad_source,
            dropped.mac_control
        ),
        (2, 1, 2, 1)
    );
    assert!(b.sink.take().is_empty());
    a.send(&frame(mac(2), mac(1))[..MIN_FRAME]);
    a.send(&vec![2; MAX_FRAME]);
    assert_eq!(b.sink.take().len(), 2);
}

#[test]
fn a_frame_to_a_station_behind_its_own_port_is_dropped() {
    let (_switch, a, b, _c) = three();
    a.send(&frame(BROADCAST, mac(7)));
    b.sink.take();
    a.send(&frame(mac(7), mac(1)));
    assert_eq!(a.port.stats().dropped.same_port, 1);
    assert!(b.sink.take().is_empty() && a.sink.take().is_empty());
}

#[test]
fn a_lone_port_talks_to_nobody() {
    let switch = Switch::new();
    let a = Station::new(&switch, "a");
    a.send(&frame(BROADCAST, mac(1)));
    assert_eq!(a.port.stats().dropped.no_destination, 1);
    assert_eq!(a.port.stats().sent.frames, 0);
}

#[test]
fn a_link_that_is_down_passes_nothing_and_forgets_its_stations() {
    let (_switch, a, b, c) = three();
    a.send(&frame(BROADCAST, mac(1)));
    b.sink.take();
    a.port.set_enabled(false);
    assert!(!a.port.link_up());
    a.send(&frame(BROADCAST, mac(1)));
    assert_eq!(a.port.stats().dropped.link_down, 1);
    b.send(&frame(mac(1), mac(2)));
    assert!(a.sink.take().is_empty());
    assert_eq!(c.sink.take().len(), 2, "flooded, for the station is unknown again");
    a.port.set_enabled(true);
    b.send(&frame(mac(1), mac(2)));
    assert_eq!(a.sink.take().len(), 1);
}

#[test]
fn a_pulled_cable_is_told_once_and_holds_though_the_port_is_enabled() {
    let (switch, a, b, _c) = three();
    assert!(switch.set_cable("a", false));
    assert!(switch.set_cable("a", false));
    assert!(!switch.set_cable("nobody", false));
    a.port.set_enabled(true);
    assert!(!a.port.link_up() && !a.port.is_plugged());
    b.send(&frame(BROADCAST, mac(2)));
    assert!(a.sink.take().is_empty());
    switch.set_cable("a", true);
    assert_eq!(*a.sink.cable.lock(), [false, true]);
    b.send(&frame(BROADCAST, mac(2)));
    assert_eq!(a.sink.take().len(), 1);
}

#[test]
fn a_port_that_leaves_is_gone_and_so_are_its_stations() {
    let (switch, a, b, c) = three();
    a.send(&frame(BROADCAST, mac(1)));
    drop(a);
    b.sink.take();
    c.sink.take();
    b.send(&frame(mac(1), mac(2)));
    assert_eq!(c.sink.take().len(), 1);
    let names: Vec<_> = switch.stats().ports.into_iter().map(|port| port.name).collect();
    assert_eq!(names, ["b", "c"]);
    let d = Station::new(&switch, "d");
    b.send(&frame(mac(1), mac(2)));
    assert_eq!(d.sink.take().len(), 1);
}

#[test]
fn a_port_whose_owner_is_gone_does_no_harm() {
    let (_switch, a, b, c) = three();
    let Station { sink, port } = b;
    drop(sink);
    a.send(&frame(BROADCAST, mac(1)));
    assert_eq!(port.stats().dropped.undeliverable, 1);
    assert_eq!(c.sink.take().len(), 1);
}

#[test]
fn the_statistics_can_be_serialised() {
    let (switch, a, _b, _c) = three();
    a.send(&frame(BROADCAST, mac(1)));
    let json = serde_json::to_value(switch.stats()).unwrap();
    assert_eq!(json["ports"][0]["name"], "a");
    assert_eq!(json["ports"][0]["sent"]["broadcast"], 1);
    assert_eq!(json["ports"][0]["dropped"]["too_long"], 0);
}

/// Sends every frame back to its sender, from within its delivery.
struct Mirror {
    port: OnceLock<SwitchPort>,
}

impl Port for Mirror {
    fn receive(&self, frame: Frame<'_>) {
        let mut bytes = frame.to_bytes().unwrap().into_owned();
        bytes[..12].rotate_left(6);
        if let Some(port) = self.port.get() {
            port.send(Frame::new(&bytes));
        }
    }
}

fn mirror(switch: &Arc<Switch>, name: &str) -> Arc<Mirror> {
    let mirror = Arc::new(Mirror { port: OnceLock::new() });
    let attached = mirror
        .port
        .set(switch.attach(name, Arc::downgrade(&mirror) as Weak<dyn Port>));
    assert!(attached.is_ok());
    mirror
}

#[test]
fn a_port_can_answer_from_within_the_delivery() {
    let switch = Switch::new();
    let a = Station::new(&switch, "a");
    let _mirror = mirror(&switch, "mirror");
    a.send(&frame(mac(2), mac(1)));
    assert_eq!(a.sink.take(), [frame(mac(1), mac(2))]);
}

#[test]
fn two_ports_that_answer_each_other_come_to_an_end() {
    let switch = Switch::new();
    let (one, two) = (mirror(&switch, "one"), mirror(&switch, "two"));
    one.port.get().unwrap().send(Frame::new(&frame(mac(2), mac(1))));
    let dropped = [&one, &two].map(|mirror| mirror.port.get().unwrap().stats().dropped.nested);
    assert_eq!(dropped[0] + dropped[1], 1);
    // The limit is on nesting: the next frame passes.
    one.port.get().unwrap().send(Frame::new(&frame(mac(2), mac(1))));
    assert_eq!(two.port.get().unwrap().stats().received.frames, u64::from(MAX_NESTING));
}

#[test]
fn many_threads_send_attach_and_leave_without_loss_or_deadlock() {
    const FRAMES: usize = 2000;
    let switch = Switch::new();
    let stations: Vec<_> = (0..4)
        .map(|number| Station::new(&switch, &number.to_string()))
        .collect();
    for (number, station) in stations.iter().enumerate() {
        station.send(&frame(BROADCAST, mac(number as u8)));
    }
    stations.iter().for_each(|station| drop(station.sink.take()));
    std::thread::scope(|scope| {
        for (number, station) in stations.iter().enumerate() {
            scope.spawn(move || {
                for _ in 0..FRAMES {
                    station.send(&frame(mac((number as u8 + 1) % 4), mac(number as u8)));
                }
            });
        }
        scope.spawn(|| {
            for _ in 0..200 {
                let passer_by = Station::new(&switch, "passer-by");
                passer_by.send(&frame(mac(0), mac(99)));
            }
        });
    });
    for (number, station) in stations.iter().enumerate() {
        let expected = FRAMES + if number == 0 { 200 } else { 0 };
        assert_eq!(station.sink.take().len(), expected);
    }
    assert_eq!(switch.stats().ports.len(), 4);
}

#[test]
fn a_bound_address_is_of_its_port_alone() {
    let (switch, a, b, c) = three();
    assert!(a.port.bind(Mac(mac(1))));
    assert!(!b.port.bind(Mac(mac(1))) && !a.port.bind(Mac(mac(2))));
    // Nobody else is a by sending from its address, in whatever VLAN.
    b.send(&frame(BROADCAST, mac(1)));
    b.send(&tagged(BROADCAST, mac(1), 7));
    assert_eq!(b.port.stats().dropped.spoofed, 2);
    c.send(&tagged(mac(1), mac(3), 7));
    assert_eq!((a.sink.take().len(), b.sink.take().len()), (1, 0));
    // And a is nobody else.
    a.send(&frame(BROADCAST, mac(2)));
    assert_eq!(a.port.stats().dropped.spoofed, 1);
    a.send(&frame(BROADCAST, mac(1)));
    assert_eq!((b.sink.take().len(), c.sink.take().len()), (1, 1));
    // Ports without a bound address are as before.
    b.send(&frame(BROADCAST, mac(9)));
    assert_eq!((a.sink.take().len(), c.sink.take().len()), (1, 1));
    drop(a);
    assert!(b.port.bind(Mac(mac(1))));
    assert_eq!(switch.stats().ports[0].dropped.spoofed, 2);
}

/// A port that panics.
struct Broken;

impl Port for Broken {
    fn receive(&self, _: Frame<'_>) {
        panic!("deliberate");
    }
}

#[test]
fn a_receiver_that_panics_is_no_fault_of_the_sender() {
    let (switch, a, b, _c) = three();
    let broken = Arc::new(Broken);
    let port = switch.attach("broken", Arc::downgrade(&broken) as Weak<dyn Port>);
    let rounds = u64::from(MAX_NESTING) + 1;
    for _ in 0..rounds {
        a.send(&frame(BROADCAST, mac(1)));
    }
    assert_eq!(b.sink.take().len() as u64, rounds);
    assert_eq!(port.stats().dropped.panicked, rounds);
    assert_eq!(a.port.stats().dropped, DropStats::default());
}
