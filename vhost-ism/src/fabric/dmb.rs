//! One DMB: who owns it, who may attach it, who holds it.

use std::collections::{HashMap, HashSet};

use super::Refusal;
use crate::abi::{Gid, PERM_ATTACH, PERM_CLEAN_DEFAULT, PERM_READ, PERM_WRITE};
use crate::slab::{Block, SlabId};

/// A DMB and its holders.
#[derive(Debug)]
pub struct Dmb {
    pub owner: Gid,
    /// The owner has not detached: the token is alive.
    pub owner_holds: bool,
    pub attached: HashSet<Gid>,
    pub access: Access,
    pub slab: SlabId,
    pub block: Block,
    /// As asked for; the block may be larger.
    pub size: u64,
}

/// Who may attach.
#[derive(Debug)]
pub enum Access {
    /// Exactly this session.
    Peer(Gid),
    /// Whom the owner granted it.
    Granted(Permissions),
}

/// The draft's permissions: a default, and devices with a grant of their own.
#[derive(Debug, Default)]
pub struct Permissions {
    default: u32,
    by_device: HashMap<u64, u32>,
}

impl Permissions {
    /// Sets the default, or the grant of one device.
    pub fn set(&mut self, devid: Option<u64>, permissions: u32) {
        match devid {
            None => self.default = permissions,
            Some(devid) => {
                self.by_device.insert(devid, permissions);
            }
        }
    }

    /// What a device may do.
    pub fn of(&self, devid: u64) -> u32 {
        match self.by_device.get(&devid) {
            Some(own) if own & PERM_CLEAN_DEFAULT != 0 => own & !PERM_CLEAN_DEFAULT,
            Some(own) => own | self.default,
            None => self.default,
        }
    }
}

impl Dmb {
    pub fn new(owner: Gid, slab: SlabId, block: Block, size: u64, access: Access) -> Self {
        Self {
            owner,
            owner_holds: true,
            attached: HashSet::new(),
            access,
            slab,
            block,
            size,
        }
    }

    pub fn is_held(&self) -> bool {
        self.owner_holds || !self.attached.is_empty()
    }

    pub fn is_held_by(&self, gid: Gid) -> bool {
        (self.owner_holds && self.owner == gid) || self.attached.contains(&gid)
    }

    /// Whether a session may attach with this access. The transport has no read-only mapping and no write-only one.
    pub fn check_attach(&self, gid: Gid, devid: u64, rw_perm: u32) -> Result<(), Refusal> {
        let granted = match &self.access {
            Access::Peer(peer) if *peer == gid => PERM_READ | PERM_WRITE | PERM_ATTACH,
            Access::Peer(_) => 0,
            Access::Granted(table) => table.of(devid),
        };
        if granted & PERM_ATTACH == 0 || self.owner == gid || self.attached.contains(&gid) {
            return Err(Refusal::Attach);
        }
        if rw_perm & granted & PERM_READ == 0 {
            return Err(Refusal::Read);
        }
        if rw_perm & granted & PERM_WRITE == 0 {
            return Err(Refusal::Write);
        }
        Ok(())
    }
}
