//! The file in which an audit notes where it is.

use std::fs::File;
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::ledger::audit::{Checkpoint, Progress};

/// How often it is written: what an interruption costs.
const EVERY: Duration = Duration::from_secs(5);

/// Where an audit is, on disk.
pub(super) struct Mark {
    path: PathBuf,
    /// What the file said.
    pub(super) from: Option<Checkpoint>,
    next: Instant,
    failed: Option<String>,
}

impl Mark {
    /// Reads the file, which may be missing.
    pub(super) fn open(path: PathBuf, ledger_id: &[u8; 16]) -> Result<Mark, String> {
        let failed = |what: String| format!("{}: {what}", path.display());
        let from = match std::fs::read_to_string(&path) {
            Ok(text) => Some(Checkpoint::parse(&text).map_err(|error| failed(error.to_string()))?),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
                if let Some(folder) = folder.filter(|folder| !folder.is_dir()) {
                    return Err(failed(format!("the folder {} is not there", folder.display())));
                }
                None
            }
            Err(error) => return Err(failed(error.to_string())),
        };
        if from.as_ref().is_some_and(|from| from.ledger_id != *ledger_id) {
            return Err(failed(
                "it is of another ledger; name the ledger that it was made of, or audit without it".to_owned(),
            ));
        }
        Ok(Mark { path, from, next: Instant::now() + EVERY, failed: None })
    }

    /// Writes the file every few seconds.
    pub(super) fn step(&mut self, at: &Progress<'_>) {
        let now = Instant::now();
        if now >= self.next && self.failed.is_none() {
            self.failed = write(&self.path, &at.checkpoint()).err();
            self.next = Instant::now() + EVERY;
        }
    }

    /// Writes the file at the end.
    pub(super) fn keep(self, end: &Checkpoint) -> Result<(), String> {
        self.failed.map_or_else(|| write(&self.path, end), Err)
    }
}

/// The file is the one before or this one, whatever happens.
fn write(path: &Path, checkpoint: &Checkpoint) -> Result<(), String> {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    let new = PathBuf::from(name);
    let written =
        File::options().create(true).write(true).truncate(true).mode(0o600).open(&new).and_then(|mut file| {
            file.write_all(checkpoint.to_text().as_bytes())?;
            file.sync_all()?;
            std::fs::rename(&new, path)
        });
    written.map_err(|error| format!("{}: the checkpoint can't be written: {error}", path.display()))
}
