//! The files that a daemon reaches after its set-up, for Landlock.

use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, PathBeneath, PathFd, RestrictionStatus, Ruleset, RulesetAttr,
    RulesetCreated, RulesetCreatedAttr, RulesetError, Scope,
};

/// Version of the kernel's interface whose restrictions are asked for; an older kernel makes those that it knows.
const VERSION: ABI = ABI::V6;

/// Files that a daemon reaches after its set-up, beside those that are open.
#[derive(Clone, Debug, Default)]
pub struct FileAccess(Vec<(PathBuf, BitFlags<AccessFs>)>);

impl FileAccess {
    /// Allows the removal of the socket at a path, and so of other files in its directory.
    pub fn remove_socket(&mut self, socket: &Path) {
        let directory = match socket.parent() {
            Some(parent) if parent != Path::new("") => parent,
            _ => Path::new("."),
        };
        self.allow(directory, AccessFs::RemoveFile);
    }

    /// Allows reading a file.
    pub fn read(&mut self, file: &Path) {
        self.allow(file, AccessFs::ReadFile);
    }

    /// Allows creating and replacing files beneath a directory.
    pub fn write_beneath(&mut self, directory: &Path) {
        self.allow(directory, AccessFs::MakeReg | AccessFs::WriteFile | AccessFs::Truncate);
    }

    /// Allows numbered files in a directory: to list, create, rename and remove them.
    pub fn rotate(&mut self, directory: &Path) {
        let files = AccessFs::ReadDir | AccessFs::MakeReg | AccessFs::WriteFile | AccessFs::RemoveFile;
        self.allow(directory, files);
    }

    fn allow(&mut self, path: &Path, access: impl Into<BitFlags<AccessFs>>) {
        self.0.push((path.to_owned(), access.into()));
    }

    /// Prepares the restriction, while all paths can be looked up.
    pub(super) fn prepare(&self) -> Result<RulesetCreated, RulesetError> {
        let mut rules = Ruleset::default()
            .handle_access(AccessFs::from_all(VERSION))?
            .handle_access(AccessNet::from_all(VERSION))?
            .scope(Scope::from_all(VERSION))?
            .create()?;
        for (path, access) in &self.0 {
            // Whoever opens a path that does not exist reports it.
            if let Ok(file) = PathFd::new(path) {
                rules = rules.add_rule(PathBeneath::new(file, *access))?;
            }
        }
        Ok(rules)
    }
}

/// Restricts the calling thread, and all that it starts, to the files of the rules. No TCP socket can be bound or
/// connected, and no process or abstract socket outside reached.
pub(super) fn restrict(rules: RulesetCreated) -> Result<RestrictionStatus, RulesetError> {
    rules.restrict_self()
}
