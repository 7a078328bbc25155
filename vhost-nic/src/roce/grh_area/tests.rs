use super::area;
use crate::frame::view::FrameView;
use crate::roce::packet::tests::{head, ipv4_path, ipv6_path, v1_vlan_path};

#[test]
fn an_ipv4_header_stands_behind_zeros() {
    let head = head(&ipv4_path(), 0x64, 6);
    let area = area(&FrameView::new(&head).expect("a frame"));
    assert_eq!(area[..20], [0; 20]);
    assert_eq!(area[20..], head[14..34]);
    assert_eq!(area[20..24], [0x45, 0x6a, 0, 60]);
}

#[test]
fn an_ipv6_header_fills_the_area() {
    let head = head(&ipv6_path(), 0x64, 6);
    let area = area(&FrameView::new(&head).expect("a frame"));
    assert_eq!(area[..], head[14..54]);
    assert_eq!(area[0], 0x66);
}

#[test]
fn the_header_of_version_1_is_delivered_as_it_came() {
    let head = head(&v1_vlan_path(), 0x64, 6);
    let area = area(&FrameView::new(&head).expect("a frame"));
    assert_eq!(area[..], head[18..58]);
    assert_eq!(area[..8], [0x66, 0xa5, 0x43, 0x21, 0, 32, 0x1b, 64]);
}

#[test]
fn what_is_not_ip_leaves_zeros() {
    let view = FrameView::new(&[0xff; 60]).expect("a frame");
    assert_eq!(area(&view), [0; 40]);
}
