//! A DMB: its owner, its holders, and the permission to attach it.

use std::collections::{BTreeSet, HashMap, HashSet};

use serde::{Serialize, Serializer};

use super::refusal::Refusal;
use crate::abi::{Gid, PERM_ATTACH, PERM_CLEAN_DEFAULT, PERM_MANAGE, PERM_READ, PERM_WRITE};
use crate::slab::{Block, SlabId};

/// A DMB and its holders.
#[derive(Debug, Serialize)]
pub struct Dmb {
    pub owner: Gid,
    /// The owner has not detached: the token is alive.
    pub owner_holds: bool,
    pub attached: BTreeSet<Gid>,
    pub access: Access,
    /// Sessions of which a move was refused: their later moves are refused as well.
    pub broken: HashSet<Gid>,
    /// Moves in progress.
    pub moves: u32,
    pub slab: SlabId,
    #[serde(flatten)]
    pub block: Block,
    /// As requested; the block may be larger.
    pub size: u64,
}

/// Permission to attach.
#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Access {
    /// For exactly this session.
    Peer(Gid),
    /// As granted by the owner.
    Granted(Permissions),
}

/// The draft's permissions: a default, and grants of individual devices.
#[derive(Debug, Default, Serialize)]
pub struct Permissions {
    default: u32,
    #[serde(serialize_with = "grants")]
    by_device: HashMap<u64, u32>,
}

fn grants<S: Serializer>(by_device: &HashMap<u64, u32>, serializer: S) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct Grant {
        #[serde(serialize_with = "crate::inspect::hex")]
        devid: u64,
        permissions: u32,
    }
    serializer.collect_seq(
        by_device
            .iter()
            .map(|(&devid, &permissions)| Grant { devid, permissions }),
    )
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

    /// Returns whether a device has a grant of its own.
    pub fn has(&self, devid: u64) -> bool {
        self.by_device.contains_key(&devid)
    }

    /// Removes the grants of single devices. Returns their number.
    pub fn clear(&mut self) -> u32 {
        std::mem::take(&mut self.by_device).len() as u32
    }

    /// Returns the permissions of a device.
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
            attached: BTreeSet::new(),
            access,
            broken: HashSet::new(),
            moves: 0,
            slab,
            block,
            size,
        }
    }

    pub fn is_held(&self) -> bool {
        self.owner_holds || !self.attached.is_empty() || self.moves > 0
    }

    pub fn is_held_by(&self, gid: Gid) -> bool {
        (self.owner_holds && self.owner == gid) || self.attached.contains(&gid)
    }

    /// Whether a session may change the permissions.
    pub fn may_manage(&self, gid: Gid, devid: u64) -> bool {
        let granted = match &self.access {
            Access::Peer(_) => 0,
            Access::Granted(table) => table.of(devid),
        };
        self.owner == gid || granted & PERM_MANAGE != 0
    }

    /// Checks whether a session may move data into this range.
    pub fn check_move(&self, gid: Gid, devid: u64, offset: u64, length: u64) -> Result<(), Refusal> {
        if self.broken.contains(&gid) {
            return Err(Refusal::Broken);
        }
        let granted = match &self.access {
            Access::Peer(peer) => *peer == gid,
            Access::Granted(table) => table.of(devid) & PERM_WRITE != 0,
        };
        if self.owner == gid || !granted {
            return Err(Refusal::Write);
        }
        match offset.checked_add(length) {
            Some(end) if end <= self.size => Ok(()),
            _ => Err(Refusal::Outside),
        }
    }

    /// Checks whether a session may attach with this access. The transport has no read-only or write-only mapping.
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
