//! The driver: control requests, doorbells and events.

use std::time::Duration;

use vhost_ism::abi::*;
use zerocopy::{FromBytes, IntoBytes};

use super::super::memory::{HIGH, LOW};
use super::super::ring::{INDIRECT, NEXT, WRITE, descriptor};
use super::super::{BRIEF, PATIENCE};
use super::*;

/// Fill pattern of writable buffers, which shows the bytes that the device leaves alone.
const UNTOUCHED: u8 = 0xee;
/// Address of requests in guest RAM.
pub const SCRATCH: u64 = LOW + 0x4_0000;
/// Distance of event buffers, from [`HIGH`].
const EVENT_STRIDE: u64 = 4096;

impl TestGuest {
    /// Submits the chain that begins with descriptor 0, and waits for the answer.
    #[track_caller]
    pub fn transact(&mut self) -> usize {
        self.window.set_asking(true);
        self.control.publish(0);
        let Some((head, used)) = self.control.wait_used(PATIENCE) else {
            panic!("a control request was never answered");
        };
        self.window.set_asking(false);
        assert_eq!(head, 0);
        self.check();
        used as usize
    }

    /// Lays parts out in guest RAM; returns their descriptors and the writable ranges.
    fn lay_out(&self, parts: &[Part<'_>]) -> (Vec<Desc>, Vec<(u64, usize)>) {
        let mut at = SCRATCH;
        let mut room = Vec::new();
        let mut table = Vec::new();
        for (index, part) in parts.iter().enumerate() {
            let (len, flags) = match part {
                Part::Ask(bytes) => {
                    self.ram.write(at, bytes);
                    (bytes.len(), 0)
                }
                Part::Room(len) => {
                    self.ram.write(at, &vec![UNTOUCHED; *len]);
                    room.push((at, *len));
                    (*len, WRITE)
                }
            };
            let more = if index + 1 < parts.len() { NEXT } else { 0 };
            table.push(Desc {
                addr: at,
                len: len as u32,
                flags: flags | more,
                next: index as u16 + 1,
            });
            // A gap, so that an overrun by the device is seen.
            at += len as u64 + 3;
        }
        (table, room)
    }

    fn collect(&self, used: usize, room: &[(u64, usize)]) -> Answer {
        let bytes: Vec<u8> = room.iter().flat_map(|&(at, len)| self.ram.read(at, len)).collect();
        assert!(
            used <= bytes.len(),
            "{used} bytes were used where there is room for {}",
            bytes.len()
        );
        assert!(
            bytes[used..].iter().all(|byte| *byte == UNTOUCHED),
            "bytes beyond the used length were written"
        );
        Answer { used, room: bytes }
    }

    /// Submits these parts, one descriptor each.
    #[track_caller]
    pub fn submit(&mut self, parts: &[Part<'_>]) -> Answer {
        let (table, room) = self.lay_out(parts);
        let used = self.submit_table(&table);
        self.collect(used, &room)
    }

    /// Submits these parts in an indirect table.
    #[track_caller]
    pub fn submit_indirect(&mut self, parts: &[Part<'_>]) -> Answer {
        const TABLE: u64 = SCRATCH + 0x2_0000;
        let (table, room) = self.lay_out(parts);
        for (index, desc) in table.iter().enumerate() {
            self.ram.write(
                TABLE + 16 * index as u64,
                &descriptor(desc.addr, desc.len, desc.flags, desc.next),
            );
        }
        let used = self.submit_table(&[Desc {
            addr: TABLE,
            len: 16 * table.len() as u32,
            flags: INDIRECT,
            next: 0,
        }]);
        self.collect(used, &room)
    }

    /// Submits exactly these descriptors; returns the used length.
    #[track_caller]
    pub fn submit_table(&mut self, table: &[Desc]) -> usize {
        for (index, desc) in table.iter().enumerate() {
            self.control
                .describe(index as u16, desc.addr, desc.len, desc.flags, desc.next);
        }
        self.transact()
    }

    /// Posts a request with a readable and a writable descriptor, and does not wait for the answer.
    pub fn post_request(&mut self, request: &[u8], room: usize) {
        let (table, _) = self.lay_out(&[Part::Ask(request), Part::Room(room)]);
        for (index, desc) in table.iter().enumerate() {
            self.control
                .describe(index as u16, desc.addr, desc.len, desc.flags, desc.next);
        }
        self.window.set_asking(true);
        self.control.publish(0);
    }

    /// Waits for the answer to an ALLOC from [`TestGuest::post_request`]; returns the DMB.
    #[track_caller]
    pub fn take_allocated(&mut self, size: u64, timeout: Duration) -> Option<Dmb> {
        let (_, used) = self.control.wait_used(timeout)?;
        self.window.set_asking(false);
        assert_eq!(used as usize, 1 + size_of::<AllocReply>());
        let room = SCRATCH + (2 + size_of::<Alloc>()) as u64 + 3;
        let answer = self.ram.read(room, used as usize);
        assert_eq!(status(answer[0]), Status::Ok);
        Some(self.allocated(&answer[1..], size))
    }

    /// Submits a request with a readable and a writable descriptor.
    #[track_caller]
    pub fn request(&mut self, request: &[u8], room: usize) -> Answer {
        self.submit(&[Part::Ask(request), Part::Room(room)])
    }

    #[track_caller]
    fn command(
        &mut self,
        command: (u8, u8),
        body: &(impl IntoBytes + zerocopy::Immutable + ?Sized),
        reply: usize,
    ) -> Result<Vec<u8>, Refused> {
        let answer = self.request(&encode(command, body), 1 + reply);
        match answer.status() {
            Some(Status::Ok) => {
                assert_eq!(answer.used, 1 + reply);
                Ok(answer.room[1..].to_vec())
            }
            Some(refused) => {
                assert_eq!(answer.used, 1);
                Err(refused)
            }
            None => panic!("no status was written"),
        }
    }

    #[track_caller]
    fn allocated(&self, reply: &[u8], size: u64) -> Dmb {
        let reply = AllocReply::read_from_bytes(reply).unwrap();
        assert_eq!(reply.num.get(), 1);
        assert_ne!(reply.token.0.get(), 0);
        assert_eq!(reply.area.size.get(), size);
        let offset = reply.area.offset.get();
        assert!(offset.is_multiple_of(size.next_power_of_two().max(CHUNK_SIZE)));
        assert!(offset + size <= self.config.window_size.get());
        Dmb {
            token: reply.token,
            offset,
            size,
        }
    }

    /// Submits ALLOC_FOR_PEER.
    #[track_caller]
    pub fn alloc_for_peer(&mut self, peer: Gid, size: u64) -> Result<Dmb, Refused> {
        let body = AllocForPeer {
            size: size.into(),
            peer_gid: peer,
        };
        let reply = self.command(CMD_ALLOC_FOR_PEER, &body, size_of::<AllocReply>())?;
        Ok(self.allocated(&reply, size))
    }

    /// Submits ALLOC with room for this number of areas. Returns token and areas, or the number of areas that there
    /// are.
    #[track_caller]
    pub fn alloc_areas(&mut self, size: u64, room: usize) -> Result<(Token, Vec<Area>), u64> {
        let request = encode(CMD_ALLOC, &Alloc { size: size.into() });
        let answer = self.request(&request, 17 + room * size_of::<Area>());
        let (token, rest) = Token::read_from_prefix(&answer.written()[1..]).unwrap();
        let areas = areas(&answer, rest);
        if areas.is_err() {
            assert_eq!(token.0.get(), 0);
        }
        areas.map(|areas| (token, areas))
    }

    /// Submits ATTACH for reading and writing with room for this number of areas. Returns the areas, or their number.
    #[track_caller]
    pub fn attach_areas(&mut self, token: Token, room: usize) -> Result<Vec<Area>, u64> {
        let rw_perm = (PERM_READ | PERM_WRITE).into();
        let request = encode(CMD_ATTACH, &Attach { token, rw_perm });
        let answer = self.request(&request, 9 + room * size_of::<Area>());
        areas(&answer, &answer.written()[1..])
    }

    /// Writes to the DMB in these areas, from its start.
    #[track_caller]
    pub fn write_areas(&self, areas: &[Area], mut bytes: &[u8]) {
        for area in areas {
            let (part, rest) = bytes.split_at(area.size.get() as usize);
            self.window.write(area.offset.get(), part);
            bytes = rest;
        }
        assert!(bytes.is_empty());
    }

    /// Reads the DMB in these areas.
    #[track_caller]
    pub fn read_areas(&self, areas: &[Area]) -> Vec<u8> {
        let read = |area: &Area| self.window.read(area.offset.get(), area.size.get());
        areas.iter().flat_map(read).collect()
    }

    /// Submits ALLOC.
    #[track_caller]
    pub fn alloc(&mut self, size: u64) -> Result<Dmb, Refused> {
        let body = Alloc { size: size.into() };
        let reply = self.command(CMD_ALLOC, &body, size_of::<AllocReply>())?;
        Ok(self.allocated(&reply, size))
    }

    /// Submits ATTACH for reading and writing.
    #[track_caller]
    pub fn attach(&mut self, token: Token) -> Result<Dmb, Refused> {
        self.attach_as(token, PERM_READ | PERM_WRITE)
    }

    /// Submits ATTACH with any access.
    #[track_caller]
    pub fn attach_as(&mut self, token: Token, rw_perm: u32) -> Result<Dmb, Refused> {
        let body = Attach {
            token,
            rw_perm: rw_perm.into(),
        };
        let reply = self.command(CMD_ATTACH, &body, size_of::<AttachReply>())?;
        let reply = AttachReply::read_from_bytes(&reply).unwrap();
        assert_eq!(reply.num.get(), 1);
        Ok(Dmb {
            token,
            offset: reply.area.offset.get(),
            size: reply.area.size.get(),
        })
    }

    /// Submits DETACH.
    #[track_caller]
    pub fn detach(&mut self, token: Token) -> Result<(), Refused> {
        self.command(CMD_DETACH, &Detach { token }, 0).map(drop)
    }

    /// Submits GRANT for every device, or for one.
    #[track_caller]
    pub fn grant(&mut self, token: Token, devid: Option<u64>, permissions: u64) -> Result<(), Refused> {
        let permissions = permissions.into();
        match devid {
            None => self.command(CMD_GRANT_DEFAULT, &GrantDefault { token, permissions }, 0),
            Some(devid) => {
                let body = GrantDevice {
                    token,
                    permissions,
                    peer_devid: devid.into(),
                };
                self.command(CMD_GRANT_DEVICE, &body, 0)
            }
        }
        .map(drop)
    }

    /// Submits QUERY_GID.
    #[track_caller]
    pub fn query_gid(&mut self, gid: Gid) -> Result<(), Refused> {
        self.command(CMD_QUERY_GID, &QueryGid { gid }, 0).map(drop)
    }

    /// Submits QUERY_SLAB; returns offset and length of the slab, and this guest's side.
    #[track_caller]
    pub fn query_slab(&mut self, token: Token) -> Result<(u64, u64, u32), Refused> {
        let reply = self.command(CMD_QUERY_SLAB, &QuerySlab { token }, size_of::<SlabReply>())?;
        let reply = SlabReply::read_from_bytes(&reply).unwrap();
        assert_eq!(reply.reserved.get(), 0);
        Ok((reply.area.offset.get(), reply.area.size.get(), reply.side.get()))
    }

    /// Submits SUBSCRIBE.
    #[track_caller]
    pub fn subscribe(&mut self, events: u64) -> Result<(), Refused> {
        let events = events.into();
        self.command(CMD_SUBSCRIBE, &Subscribe { events }, 0).map(drop)
    }

    /// Submits SEND_MESSAGE.
    #[track_caller]
    pub fn send_message(&mut self, peer: Gid, code: u32, info: u64) -> Result<(), Refused> {
        let body = SendMessage {
            peer_gid: peer,
            code: code.into(),
            reserved: 0.into(),
            info: info.into(),
        };
        self.command(CMD_SEND_MESSAGE, &body, 0).map(drop)
    }

    /// Checks that the device answers a valid request.
    #[track_caller]
    pub fn ping(&mut self) {
        let gid = self.gid();
        assert_eq!(self.query_gid(gid), Ok(()));
    }

    /// Rings the DMB at an offset. Returns whether that took a kick.
    #[track_caller]
    pub fn ring(&self, offset: u64) -> bool {
        let kick = self.window.bell(offset).ring();
        if kick {
            self.doorbell.notify();
        }
        kick
    }

    /// Posts one event buffer.
    pub fn post_event(&mut self, size: u32) {
        let slot = self
            .event_slots
            .pop()
            .expect("not more buffers than the queue has descriptors");
        self.post_event_at(slot, size);
    }

    /// Address of the event buffer of a slot.
    pub fn event_buffer(&self, slot: u16) -> u64 {
        HIGH + EVENT_STRIDE * u64::from(slot)
    }

    fn post_event_at(&mut self, slot: u16, size: u32) {
        assert!(u64::from(size) <= EVENT_STRIDE);
        let at = self.event_buffer(slot);
        self.events.describe(slot, at, size, WRITE, 0);
        self.events.publish(slot);
    }

    /// Takes the next event and posts its buffer again.
    #[track_caller]
    pub fn next_event(&mut self, timeout: Duration) -> Option<Event> {
        let (slot, event) = self.take_event(timeout)?;
        self.post_event_at(slot, self.options.event_size);
        Some(event)
    }

    /// Takes the next event without posting its buffer again.
    #[track_caller]
    pub fn last_event(&mut self, timeout: Duration) -> Option<Event> {
        let (slot, event) = self.take_event(timeout)?;
        self.event_slots.push(slot);
        Some(event)
    }

    #[track_caller]
    fn take_event(&mut self, timeout: Duration) -> Option<(u16, Event)> {
        let (slot, used) = self.events.wait_used(timeout)?;
        let bytes = self.ram.read(HIGH + EVENT_STRIDE * u64::from(slot), used as usize);
        Some((slot as u16, parse_event(&bytes)))
    }

    /// Takes the next event; fails if none comes.
    #[track_caller]
    pub fn expect_event(&mut self) -> Event {
        self.next_event(PATIENCE).expect("an event")
    }

    /// Takes the next event, which must be one of doorbells; returns their chunks.
    #[track_caller]
    pub fn expect_event_of_doorbells(&mut self) -> Vec<u32> {
        match self.expect_event() {
            Event::Doorbells(chunks) => chunks,
            other => panic!("{other:?} is not of doorbells"),
        }
    }

    /// Fails if an event comes.
    #[track_caller]
    pub fn expect_silence(&mut self) {
        let event = self.next_event(BRIEF);
        assert_eq!(event, None);
    }
}

/// Decodes the areas of a DMB, or with E2BIG their number.
#[track_caller]
fn areas(answer: &Answer, bytes: &[u8]) -> Result<Vec<Area>, u64> {
    let (number, areas) = bytes.split_first_chunk::<8>().unwrap();
    let number = u64::from_le_bytes(*number);
    match answer.status() {
        Some(Status::TooBig) => {
            assert!(areas.is_empty());
            Err(number)
        }
        status => {
            assert_eq!(status, Some(Status::Ok));
            let areas = areas.chunks(size_of::<Area>());
            let areas: Vec<Area> = areas.map(|area| Area::read_from_bytes(area).unwrap()).collect();
            assert_eq!(areas.len() as u64, number);
            Ok(areas)
        }
    }
}
