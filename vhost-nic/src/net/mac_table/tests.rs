use proptest::prelude::*;

use super::*;
use crate::frame::mac::Mac;

fn station(number: u8) -> Station {
    Station::new(0, Mac([2, 0, 0, 0, 0, number]))
}

#[test]
fn a_station_is_found_where_it_was_seen_last() {
    let mut table = Table::new(10, 300);
    assert_eq!(table.find(station(1), 0), None);
    assert_eq!(table.refresh(station(1), 7, 0), Knowledge::Missing);
    assert!(table.learn(station(1), 7, 0));
    assert_eq!(table.find(station(1), 0), Some(7));
    assert_eq!(table.refresh(station(1), 8, 0), Knowledge::Missing);
    assert!(table.learn(station(1), 8, 0));
    assert_eq!(table.find(station(1), 0), Some(8));
    assert_eq!((table.stations(7), table.stations(8)), (0, 1));
}

#[test]
fn a_vlan_has_stations_of_its_own() {
    let mut table = Table::new(10, 300);
    let address = Mac([2, 0, 0, 0, 0, 1]);
    table.learn(Station::new(5, address), 1, 0);
    table.learn(Station::new(6, address), 2, 0);
    assert_eq!(table.find(Station::new(5, address), 0), Some(1));
    assert_eq!(table.find(Station::new(6, address), 0), Some(2));
    assert_eq!(table.find(Station::new(0, address), 0), None);
}

#[test]
fn a_station_is_forgotten_when_it_is_silent() {
    let mut table = Table::new(10, 300);
    table.learn(station(1), 1, 100);
    assert_eq!(table.find(station(1), 400), Some(1));
    assert_eq!(table.find(station(1), 401), None);
    assert_eq!(table.refresh(station(1), 1, 300), Knowledge::Current);
    assert_eq!(table.find(station(1), 600), Some(1));
}

#[test]
fn time_may_wrap() {
    let mut table = Table::new(10, 300);
    table.learn(station(1), 1, u32::MAX);
    assert_eq!(table.find(station(1), 299), Some(1));
    assert_eq!(table.find(station(1), 300), None);
}

#[test]
fn a_port_with_many_stations_takes_no_room_from_others() {
    let mut table = Table::new(3, 300);
    assert!((0..3).all(|number| table.learn(station(number), 1, 0)));
    assert!(!table.learn(station(3), 1, 0));
    assert!(table.learn(station(3), 2, 0));
    assert_eq!((table.stations(1), table.stations(2)), (3, 1));
    // It cannot take over a station of another port.
    assert!(!table.learn(station(3), 1, 0));
    assert_eq!(table.find(station(3), 0), None);
}

#[test]
fn silent_stations_make_room() {
    let mut table = Table::new(2, 300);
    table.learn(station(1), 1, 1);
    table.learn(station(2), 1, 200);
    assert!(!table.learn(station(3), 1, 301));
    assert!(table.learn(station(3), 1, 302));
    assert_eq!(table.find(station(1), 302), None);
    assert_eq!(table.find(station(2), 302), Some(1));
    assert_eq!(table.stations(1), 2);
}

#[test]
fn a_port_that_leaves_takes_its_stations_along() {
    let mut table = Table::new(10, 300);
    table.learn(station(1), 1, 0);
    table.learn(station(2), 2, 0);
    table.forget_port(1);
    assert_eq!(table.find(station(1), 0), None);
    assert_eq!(table.find(station(2), 0), Some(2));
    assert_eq!(table.stations(1), 0);
}

proptest! {
    /// Compared with a model: where each station was seen last, and when.
    #[test]
    fn any_history_leaves_right_counts(
        history in prop::collection::vec((0..6u8, 0..3u32, 0..4u32, any::<bool>()), 1..60),
    ) {
        let mut table = Table::new(2, 5);
        let mut known: HashMap<u8, (PortId, u32)> = HashMap::new();
        let mut now = 0;
        for (number, port, later, leaves) in history {
            now += later;
            if leaves {
                table.forget_port(port);
                known.retain(|_, (other, _)| *other != port);
            } else if table.refresh(station(number), port, now) == Knowledge::Current {
                prop_assert_eq!(known.insert(number, (port, now)).map(|(port, _)| port), Some(port));
            } else if table.learn(station(number), port, now) {
                known.insert(number, (port, now));
            } else {
                known.remove(&number);
            }
            for number in 0..6 {
                let expected = known.get(&number).filter(|(_, seen)| now - seen <= 5).map(|(port, _)| *port);
                prop_assert_eq!(table.find(station(number), now), expected);
            }
            for port in 0..3 {
                let held = table.entries.values().filter(|entry| entry.port == port).count();
                prop_assert_eq!(table.stations(port), held);
                prop_assert!(held <= 2);
            }
            known.retain(|number, _| table.entries.contains_key(&station(*number)));
        }
    }
}

#[test]
fn the_list_has_ages_and_no_old_stations() {
    let mut table = Table::new(8, 300);
    let (old, new) = (Station::new(0, Mac([2; 6])), Station::new(7, Mac([4; 6])));
    assert!(table.learn(old, 1, 100) && table.learn(new, 2, 350));
    assert_eq!(table.list(401), [(new, 2, 51)]);
    assert_eq!((new.vlan(), new.address()), (7, Mac([4; 6])));
    table.refresh(old, 1, 401);
    assert_eq!(table.list(401).len(), 2);
}
