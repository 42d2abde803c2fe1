//! The owner's door: a Unix socket beside the ledger, mode 0600. A line of JSON in, a line of JSON out.
//!
//! ```text
//! {"do":"resolve","payment":"03…","moved":true,"transaction":"0x…","reason":"…"}  ->  {"n":"281474976710657"} | {"error":"…"}
//! ```

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;

use crate::ledger::resolve::{Resolution, resolve};
use crate::ledger::sqlite::SqliteStore;
use crate::payment::key::PaymentKey;

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
                tracing::warn!(%error, %socket, "the admin socket can't be opened; `ledger resolve` will not reach this process");
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

/// Serves the door until this is dropped. Without one yet, the ledger is still another process's: its door too.
pub(super) async fn serve(door: Option<Door>, store: Arc<SqliteStore>, ledger: PathBuf) {
    let door = match door {
        Some(door) => Some(door),
        None => {
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
                let store = store.clone();
                tokio::task::spawn_local(async move {
                    let _ = tokio::time::timeout(PATIENCE, converse(stream, &store)).await;
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

async fn converse(stream: UnixStream, store: &SqliteStore) -> io::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut line = String::new();
    BufReader::new(read.take(LINE_BYTES_MAX)).read_line(&mut line).await?;
    let answer = match answer(&line, store).await {
        Ok(answer) => answer,
        Err(error) => json!({"error": error}),
    };
    write.write_all(format!("{answer}\n").as_bytes()).await
}

async fn answer(line: &str, store: &SqliteStore) -> Result<Value, String> {
    let now_ms = store.now_ms();
    let asked: Value = serde_json::from_str(line).map_err(|e| format!("this is no line of JSON: {e}"))?;
    if asked["do"] != "resolve" {
        return Err("expected `do` to be `resolve`".to_owned());
    }
    let text = |name: &str| asked[name].as_str().unwrap_or_default().to_owned();
    let key = PaymentKey::from_hex(&text("payment")).ok_or("expected `payment` to be a payment key in hex")?;
    let moved = asked["moved"].as_bool().ok_or("expected `moved` to be true or false")?;
    let not_before_ms = (asked["force"] != true).then_some(now_ms);
    let resolution =
        Resolution { moved, transaction: text("transaction"), by: "operator", reason: text("reason"), not_before_ms };
    let receipt = resolve(store, key, &resolution).await.map_err(|e| e.to_string())?;
    tracing::info!(payment = %key, moved, n = receipt.n, "the operator resolved a payment");
    Ok(json!({"n": receipt.n.to_string()}))
}
