//! Connections of one socket, one after the other.

use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::{Duration, Instant};

use rustix::net;
use rustix::process::{Resource, Rlimit, setrlimit};

use crate::client::*;
use crate::common::Purpose;
use crate::host::Host;

#[test]
fn nothing_of_a_client_is_left_when_it_is_gone() {
    let host = Host::new();
    let (ours, theirs) = UnixStream::pair().unwrap();
    let mut client = host.driver();
    let file = memory(0x1000);
    client.dma_map(3, 0, 0x1000, 0x1000, &[file.as_fd()]).unwrap();
    // Refused: it is no eventfd.
    let refused = client.call_with(SET_IRQS, &words(&[20, 0x24, 2, 0, 1]), &[theirs.as_fd()]);
    assert_eq!(refused, Err(22));
    drop((client, theirs));
    // Reads the end of the stream once the server has closed its descriptor.
    assert!(Client::new(ours).is_closed());
    host.wait_for("memory is unmapped", |host| {
        host.parts.dma.read(Purpose::Gather, 0x1000, &mut [0]).is_err()
    });
    host.parts.msix.raise(0);
    let mut client = host.client();
    assert_eq!(*host.device.resets.lock().unwrap(), 1);
    assert_eq!(client.read(CONFIG, 4, 2), Ok(vec![0, 0]));
    assert!(!host.parts.bus_master.enabled());
}

#[test]
fn five_hundred_clients_one_after_the_other() {
    let host = Host::new();
    for n in 0..500_u32 {
        let mut client = host.driver();
        client.write(BAR0, 0x1_0000, &n.to_ne_bytes()).unwrap();
        assert_eq!(client.read(BAR0, 0x2b, 2), Ok(vec![0x2b, 0x2c]));
    }
    assert_eq!(host.writes().len(), 500);
    let stats = host.server.stats();
    assert_eq!((stats.connections, stats.errors, stats.broken_connections), (500, 0, 0));
}

#[test]
fn a_second_client_is_served_when_the_first_is_gone() {
    let host = Host::new();
    let first = host.driver();
    let mut second = host.stranger();
    let id = second.send(VERSION, 0, &version(0, 0, QEMU_PROPOSAL), &[]);
    second
        .stream
        .set_read_timeout(Some(Duration::from_millis(100)))
        .unwrap();
    let early = std::io::Read::read(&mut second.stream, &mut [0; 16]);
    assert!(early.is_err(), "it has to wait");
    drop(first);
    second.stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    second.reply(id, VERSION).unwrap();
    assert_eq!(second.read(CONFIG, 0, 2), Ok(vec![0xb3, 0x15]));
}

#[test]
fn stopping_ends_the_connection_and_the_thread() {
    let mut host = Host::new();
    let mut client = host.driver();
    let start = Instant::now();
    host.server.stop();
    assert!(start.elapsed() < Duration::from_secs(5));
    assert!(client.is_closed());
    assert_eq!(*host.device.resets.lock().unwrap(), 1);
    assert!(UnixStream::connect(host.path()).is_err());
    host.server.stop();
}

#[test]
fn stopping_without_a_client_returns() {
    let mut host = Host::new();
    host.server.stop();
    assert_eq!(host.server.stats().connections, 0);
}

#[test]
fn stopping_at_any_moment_returns() {
    for n in 0..100 {
        let mut host = Host::new();
        let path = host.path().to_owned();
        let clients = thread::spawn(move || {
            // Until the listener is gone. Half a message, then none: the server waits, or is stopped.
            while let Ok(mut stream) = UnixStream::connect(&path) {
                let _ = stream.write_all(&message(1, VERSION, 0, &version(0, 0, QEMU_PROPOSAL))[..20]);
            }
        });
        thread::sleep(Duration::from_micros(n * 20));
        host.server.stop();
        clients.join().unwrap();
    }
}

#[test]
fn a_server_without_free_descriptors_goes_on_when_there_are_some() {
    // A process of its own: the limit is the whole process's.
    let me = std::env::current_exe().unwrap();
    let status = std::process::Command::new(me)
        .args(["connections::out_of_descriptors", "--exact", "--ignored"])
        .status()
        .unwrap();
    assert!(status.success());
}

/// Opens files until the limit is reached.
fn hoard() -> Vec<File> {
    let limit = Rlimit {
        current: Some(64),
        maximum: Some(64),
    };
    setrlimit(Resource::Nofile, limit).unwrap();
    std::iter::from_fn(|| File::open("/dev/null").ok()).collect()
}

#[test]
#[ignore = "the test above runs it, alone in its process"]
fn out_of_descriptors() {
    let host = Host::new();
    let socket = net::socket(net::AddressFamily::UNIX, net::SocketType::STREAM, None).unwrap();
    let address = net::SocketAddrUnix::new(host.path()).unwrap();
    let files = hoard();
    net::connect(&socket, &address).unwrap();
    thread::sleep(Duration::from_millis(250));
    assert_eq!(host.server.stats().connections, 0, "there is no descriptor for it");
    drop(files);
    let mut client = Client::new(UnixStream::from(socket));
    client.negotiate();

    // The descriptor that comes with a message cannot be received: the message fails, and is not taken for one without.
    let files = hoard();
    let payload = [words(&[32, 3]), longs(&[0, 0x1000, 0x1000])].concat();
    assert_eq!(client.call_with(DMA_MAP, &payload, &[files[0].as_fd()]), Err(24));
    assert_eq!(client.read(CONFIG, 0, 2), Ok(vec![0xb3, 0x15]));
}
