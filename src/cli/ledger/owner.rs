//! Orders to whoever owns the ledger: the gateway that runs, or, without one, this command, which takes the lock.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::clock::Clock;
use crate::config::Config;
use crate::ledger::ledger_store::{LedgerOptions, LedgerStore, OpenError};
use crate::ledger::location::Location;
use crate::payment::gateway_key::GatewayKey;
use crate::server::admin::{self, orders};

/// The gateway may be waiting for its disk.
const PATIENCE: Duration = Duration::from_secs(20);
/// Another command has the lock for a moment, or a gateway that is about to open its socket.
const LOCK_PATIENCE: Duration = Duration::from_secs(10);
/// How often the lock is tried.
const TRY_EVERY: Duration = Duration::from_millis(25);

/// Has an order carried out. The zone is the ledger's; the configuration, where there is one, names the key that signs
/// where no gateway runs.
///
/// # Errors
/// The owner's words, or why there is none.
pub(super) fn order(ledger: &Location, zone: &str, config: Option<&Config>, order: &Value) -> Result<Value, String> {
    let give_up = Instant::now() + LOCK_PATIENCE;
    loop {
        // Of a database this command is one more gateway, for a moment.
        if let Some(path) = ledger.file()
            && let Ok(stream) = UnixStream::connect(admin::socket_of(path))
        {
            return ask(stream, order);
        }
        match LedgerStore::open(LedgerOptions::offline(ledger.clone(), zone.to_owned(), Clock::system())) {
            Ok(store) => {
                store.set_rules(config.map(orders::ledger_rules).unwrap_or_default());
                return carry_out(&store, config, order);
            }
            Err(OpenError::Locked { .. }) if Instant::now() < give_up => thread::sleep(TRY_EVERY),
            Err(error) => return Err(error.to_string()),
        }
    }
}

/// Tells the gateway that runs.
fn ask(mut stream: UnixStream, order: &Value) -> Result<Value, String> {
    let failed = |e: std::io::Error| format!("the gateway did not answer: {e}");
    stream.set_read_timeout(Some(PATIENCE)).map_err(failed)?;
    stream.write_all(format!("{order}\n").as_bytes()).map_err(failed)?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).map_err(failed)?;
    if line.is_empty() {
        return Err("the gateway ended before it answered; look what has become of it, and ask again".to_owned());
    }
    let answer: Value = serde_json::from_str(&line).map_err(|e| format!("the gateway did not answer: {e}"))?;
    match answer["error"].as_str() {
        Some(error) => Err(error.to_owned()),
        None => Ok(answer),
    }
}

/// No gateway runs: the ledger's lock is ours for a moment.
fn carry_out(store: &LedgerStore, config: Option<&Config>, order: &Value) -> Result<Value, String> {
    let answer = gateway_key(config).and_then(|key| {
        let runtime = tokio::runtime::Builder::new_current_thread().build().map_err(|e| e.to_string())?;
        runtime.block_on(orders::carry_out(order, store, key.map(Arc::new), config))
    });
    store.close().map_err(|e| e.to_string())?;
    answer
}

/// The key of the gateway that this configuration is of, where it has one.
pub(super) fn gateway_key(config: Option<&Config>) -> Result<Option<GatewayKey>, String> {
    let Some(path) = config.and_then(|config| config.signing.key_file.as_deref()) else { return Ok(None) };
    let failed = |reason: String| format!("{} (signing.key_file): {reason}", path.display());
    let text = std::fs::read_to_string(path).map_err(|e| failed(e.to_string()))?;
    GatewayKey::parse(&text).map(Some).map_err(failed)
}
