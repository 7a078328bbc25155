//! The folder of a run's results.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

/// Creates the folder: the one that was named, which is empty or absent, or a new one for temporary files.
pub fn create(named: Option<&Path>) -> Result<PathBuf> {
    let Some(folder) = named else {
        let folder = tempfile::Builder::new()
            .prefix("in-guest-")
            .tempdir()
            .context("cannot create a folder for the results")?;
        return Ok(folder.keep());
    };
    let doing = || format!("cannot create the folder {} for the results", folder.display());
    fs::create_dir_all(folder).with_context(doing)?;
    let folder = folder.canonicalize().with_context(doing)?;
    let is_empty = folder.read_dir().with_context(doing)?.next().is_none();
    ensure!(is_empty, "the folder {} for the results is not empty", folder.display());
    Ok(folder)
}

/// Writes a file of the results.
pub fn write(folder: &Path, name: &str, content: impl AsRef<[u8]>) -> Result<()> {
    let path = folder.join(name);
    fs::write(&path, content).with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_do_not_mix_with_other_files() {
        let folder = tempfile::tempdir().unwrap();
        let named = folder.path().join("a/b");
        let created = create(Some(&named)).unwrap();
        write(&created, "x", "content").unwrap();
        assert_eq!(fs::read(named.join("x")).unwrap(), b"content");
        let error = create(Some(&named)).unwrap_err().to_string();
        assert!(error.ends_with("for the results is not empty"), "{error}");
    }
}
