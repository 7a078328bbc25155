//! Files in and out of the guest.

use std::fs::{File, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;

use guest_agent::{CHUNK, PutRequest, Reply, WINDOW};

use crate::channel::{Channel, Event, Inbox};

/// Writes a file received on the channel.
pub fn receive(request: &PutRequest, channel: Channel, inbox: &Inbox) {
    match write_file(request, &channel, inbox) {
        Ok(Some(length)) => channel.finish(Reply::Done(length)),
        Ok(None) => {}
        Err(error) => {
            let reason = format!("cannot write {}: {error}", request.path);
            channel.finish(Reply::Error(reason));
        }
    }
}

/// Returns the number of bytes written, or `None` if the harness cancelled.
fn write_file(request: &PutRequest, channel: &Channel, inbox: &Inbox) -> io::Result<Option<u64>> {
    let mut file = File::create(&request.path)?;
    let mut length = 0;
    loop {
        match inbox.next() {
            Event::Data(data) => {
                file.write_all(&data)?;
                length += data.len() as u64;
                channel.send(Reply::Credit(data.len() as u32));
            }
            Event::End => break,
            Event::Cancel => return Ok(None),
            Event::Credit(_) | Event::Signal(_) | Event::Exited(_) => {}
        }
    }
    // Files of the kernel's own file systems accept no permissions.
    if file.metadata()?.is_file() && request.mode != 0 {
        file.set_permissions(Permissions::from_mode(request.mode))?;
    }
    Ok(Some(length))
}

/// Sends a file on the channel.
pub fn send(path: &str, channel: Channel, inbox: &Inbox) {
    match read_file(path, &channel, inbox) {
        Ok(Some(length)) => channel.finish(Reply::Done(length)),
        Ok(None) => {}
        Err(error) => channel.finish(Reply::Error(format!("cannot read {path}: {error}"))),
    }
}

/// Returns the number of bytes sent, or `None` if the harness cancelled.
fn read_file(path: &str, channel: &Channel, inbox: &Inbox) -> io::Result<Option<u64>> {
    let mut file = File::open(path)?;
    let mut buffer = vec![0; CHUNK];
    let mut credit = u64::from(WINDOW);
    let mut length = 0;
    loop {
        while credit < CHUNK as u64 {
            match inbox.next() {
                Event::Credit(bytes) => credit += u64::from(bytes),
                Event::Cancel => return Ok(None),
                Event::Data(_) | Event::End | Event::Signal(_) | Event::Exited(_) => {}
            }
        }
        let count = match file.read(&mut buffer) {
            Ok(0) => return Ok(Some(length)),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        channel.send(Reply::Data(buffer[..count].to_vec()));
        credit -= count as u64;
        length += count as u64;
    }
}
