//! Whether the ledger's path still names the file that is open: what is written into an unlinked one, nobody finds again.

use std::{
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

/// A path, and the file that was opened there.
#[derive(Debug)]
pub(super) struct Place {
    path: PathBuf,
    file: Mutex<FileId>,
    /// The newest part of the ledger, once it has been seen.
    wal: Mutex<Option<FileId>>,
}

/// Device and inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct FileId(u64, u64);

impl FileId {
    fn of(path: &Path) -> io::Result<FileId> {
        fs::metadata(path).map(|found| FileId(found.dev(), found.ino()))
    }
}

impl Place {
    /// The path of a file that was just opened.
    pub(super) fn of(path: &Path) -> io::Result<Place> {
        Ok(Place { path: path.to_owned(), file: Mutex::new(FileId::of(path)?), wal: Mutex::default() })
    }

    /// The path was just opened again.
    pub(super) fn opened(&self) {
        // One that is gone already is noticed by the next check.
        if let Ok(file) = FileId::of(&self.path) {
            *self.file.lock().unwrap_or_else(PoisonError::into_inner) = file;
            *self.wal.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
    }

    /// Why what is written now would be lost, or `None`. Asks the file system.
    pub(super) fn problem(&self) -> Option<String> {
        let file = *self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let path = self.path.display();
        match FileId::of(&self.path) {
            Ok(found) if found == file => self.wal_problem(),
            Ok(_) => {
                Some(format!("{path} is another file than the open ledger; put that back, or restart the gateway"))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Some(format!("the open ledger is gone from {path}; put it back"))
            }
            Err(error) => Some(format!("{path} can't be looked at: {error}")),
        }
    }
}

impl Place {
    /// The same for the write-ahead log beside it, which stays for as long as the ledger is open.
    fn wal_problem(&self) -> Option<String> {
        let mut name = self.path.as_os_str().to_owned();
        name.push("-wal");
        let found = FileId::of(Path::new(&name)).ok();
        let mut known = self.wal.lock().unwrap_or_else(PoisonError::into_inner);
        match *known {
            None => *known = found,
            Some(wal) if found == Some(wal) => {}
            Some(_) => {
                let name = Path::new(&name).display().to_string();
                return Some(format!(
                    "{name}, the newest part of the ledger, is gone; put it back, or restart the gateway"
                ));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_file_at_the_same_path_will_do() {
        let folder = tempfile::tempdir().unwrap();
        let (path, away) = (folder.path().join("a"), folder.path().join("b"));
        fs::write(&path, "ledger").unwrap();
        let place = Place::of(&path).unwrap();
        assert_eq!(place.problem(), None);
        fs::rename(&path, &away).unwrap();
        assert!(place.problem().unwrap().contains("is gone from"));
        place.opened();
        assert!(place.problem().is_some());
        fs::copy(&away, &path).unwrap();
        assert!(place.problem().unwrap().contains("another file"));
        fs::rename(&away, &path).unwrap();
        assert_eq!(place.problem(), None);
        fs::copy(&path, &away).unwrap();
        fs::rename(&away, &path).unwrap();
        place.opened();
        assert_eq!(place.problem(), None);
        let wal = folder.path().join("a-wal");
        fs::write(&wal, "newest").unwrap();
        assert_eq!(place.problem(), None);
        fs::rename(&wal, &away).unwrap();
        assert!(place.problem().unwrap().contains("-wal"));
        fs::rename(&away, &wal).unwrap();
        assert_eq!(place.problem(), None);
    }
}
