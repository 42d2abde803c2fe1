//! A copy of a ledger's file, while a gateway writes it.
//!
//! | step | a crash here leaves |
//! |---|---|
//! | copied into `FILE.new`, everything as it was at one moment | a part of `FILE.new`, which the next copy replaces |
//! | made durable, and audited by whoever asked | a whole `FILE.new` |
//! | renamed | the copy |

use std::{
    fs::{self, File},
    io,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use super::{
    file::{self, OpenError},
    sql::{SqlError, params},
};

/// Why there is no copy.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The ledger can't be read.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// A copy replaces nothing.
    #[error("{} is there already; name a new file", .0.display())]
    Exists(PathBuf),
    /// The copy can't be made.
    #[error("{}: the copy can't be made: {what}", .path.display())]
    Copy {
        /// Where.
        path: PathBuf,
        /// The system's words, or SQLite's.
        what: String,
    },
}

/// A copy that has no name of its own yet; without one it is removed.
pub struct Copy {
    new: PathBuf,
    to: PathBuf,
    named: bool,
}

impl Copy {
    /// Copies the ledger `from`, whole and at one moment; only its owner may read the copy.
    ///
    /// # Errors
    /// See [`BackupError`].
    pub fn make(from: &Path, to: &Path) -> Result<Copy, BackupError> {
        let (session, _) = file::open_to_read(from)?;
        let copy = Copy::begin(to)?;
        let failed = |error: &dyn std::fmt::Display| copy.failed(error);
        let name = copy.new.to_str().ok_or_else(|| failed(&"its name is no UTF-8"))?;
        // Else pages of the copy keep rows that were moved on while it was filled: what is dropped later would stay in it.
        session.run("PRAGMA secure_delete = ON").map_err(|error| failed(&error))?;
        session.execute("VACUUM INTO ?1", params![name]).map_err(|error: SqlError| failed(&error))?;
        // SQLite leaves it to the system when a copy reaches the disk.
        File::open(&copy.new).and_then(|file| file.sync_all()).map_err(|error| failed(&error))?;
        Ok(copy)
    }

    fn begin(to: &Path) -> Result<Copy, BackupError> {
        if to.exists() {
            return Err(BackupError::Exists(to.to_owned()));
        }
        let copy = Copy { new: new_name(to), to: to.to_owned(), named: false };
        // SQLite takes an empty file as it is, with its mode.
        File::options()
            .create(true)
            .write(true)
            .truncate(true)
            .mode(0o600)
            .open(&copy.new)
            .map_err(|error| copy.failed(&error))?;
        Ok(copy)
    }

    /// Where it is for now.
    pub fn path(&self) -> &Path {
        &self.new
    }

    /// Gives it its name.
    ///
    /// # Errors
    /// See [`BackupError`].
    pub fn name(mut self) -> Result<u64, BackupError> {
        if self.to.exists() {
            return Err(BackupError::Exists(self.to.clone()));
        }
        let bytes = fs::metadata(&self.new).map_err(|error| self.failed(&error))?.len();
        fs::rename(&self.new, &self.to).and_then(|()| sync_folder(&self.to)).map_err(|error| self.failed(&error))?;
        self.named = true;
        Ok(bytes)
    }

    fn failed(&self, error: &dyn std::fmt::Display) -> BackupError {
        BackupError::Copy { path: self.to.clone(), what: error.to_string() }
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        if !self.named {
            let _ = fs::remove_file(&self.new);
        }
    }
}

/// `FILE.new`
pub(super) fn new_name(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    name.into()
}

/// Makes a rename durable.
pub(super) fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}
