//! The owner's door: a Unix socket beside the ledger, mode 0600. A line of JSON in, a line of JSON out.
//!
//! What can be asked for is in [`orders`]; without a running gateway a command carries out the same orders itself.

mod corrections;
pub mod orders;

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;
use tokio::sync::watch;

use super::core_thread::Serving;
use crate::ledger::ledger_store::LedgerStore;
use crate::proxy::core::Shared;

/// Longest line that is read.
const LINE_BYTES_MAX: u64 = 8 * 1024;
/// For a whole conversation.
const PATIENCE: Duration = Duration::from_secs(15);
/// How often it is looked whether the ledger has become ours.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Where the socket of a ledger is: `books.sqlite.admin`.
pub fn socket_of(ledger: &Path) -> PathBuf {
    let mut name = ledger.as_os_str().to_owned();
    name.push(".admin");
    name.into()
}

/// A socket that is open, and taken away when this is dropped.
pub(super) struct Door {
    listener: UnixListener,
    path: PathBuf,
}

impl Door {
    /// Opens the door of a ledger whose lock is ours; one that can't be opened is said in the log and missed by nobody else.
    pub(super) fn open(ledger: &Path) -> Option<Door> {
        let path = socket_of(ledger);
        match open(&path) {
            Ok(listener) => Some(Door { listener, path }),
            Err(error) => {
                let socket = path.display();
                tracing::warn!(%error, %socket, "the admin socket can't be opened; commands that write to the ledger will not reach this process");
                None
            }
        }
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// Serves the door until this is dropped. Without one yet, the ledger is still another process's: its door too. Whoever can
/// open a database needs nobody to do it for him.
pub(super) async fn serve(door: Option<Door>, store: Arc<LedgerStore>, serving: watch::Receiver<Serving>) {
    let ledger = serving.borrow().shared.config.ledger.location.file().map(Path::to_owned);
    let door = match (door, ledger) {
        (Some(door), _) => Some(door),
        (None, None) => None,
        (None, Some(ledger)) => {
            while !store.has_opened() {
                tokio::time::sleep(LOOK_EVERY).await;
            }
            Door::open(&ledger)
        }
    };
    let Some(door) = door else { return };
    let Ok(()) = door.listener.set_nonblocking(true) else { return };
    let Ok(listener) = door.listener.try_clone().and_then(tokio::net::UnixListener::from_std) else { return };
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let (store, serving) = (store.clone(), serving.borrow().shared.clone());
                tokio::task::spawn_local(async move {
                    let _ = tokio::time::timeout(PATIENCE, converse(stream, &store, &serving)).await;
                });
            }
            // Out of descriptors: the next try is soon enough.
            Err(_) => tokio::time::sleep(Duration::from_secs(1)).await,
        }
    }
}

/// Only its owner may connect: the socket is made in a folder that others can't enter, then moved.
fn open(path: &Path) -> io::Result<UnixListener> {
    // The ledger's lock is ours, so a socket that is there is left over.
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let folder = path.with_extension(format!("admin-{}", std::process::id()));
    fs::create_dir(&folder)?;
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o700))?;
    let inside = folder.join("s");
    let opened = UnixListener::bind(&inside).and_then(|listener| {
        fs::set_permissions(&inside, fs::Permissions::from_mode(0o600))?;
        fs::rename(&inside, path)?;
        Ok(listener)
    });
    let _ = fs::remove_file(&inside);
    let _ = fs::remove_dir(&folder);
    opened
}

async fn converse(stream: UnixStream, store: &LedgerStore, serving: &Shared) -> io::Result<()> {
    let key = serving.key.clone().map(Arc::new);
    let (read, mut write) = stream.into_split();
    let mut line = String::new();
    BufReader::new(read.take(LINE_BYTES_MAX)).read_line(&mut line).await?;
    let answer = match serde_json::from_str(&line) {
        Ok(order) => orders::carry_out(&order, store, key, Some(&serving.config)).await,
        Err(error) => Err(format!("this is no line of JSON: {error}")),
    };
    let answer = answer.unwrap_or_else(|error| json!({"error": error}));
    write.write_all(format!("{answer}\n").as_bytes()).await
}
