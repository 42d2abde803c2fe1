//! Opening the ledger, by the thread that will write it: at once, or, while it is out of reach, again and again.

use std::{
    sync::{Arc, mpsc::SyncSender},
    time::Duration,
};

use super::{
    books::Books,
    clock_rule::ClockRule,
    credit::is_before,
    faults::Faults,
    file::{OpenError, Owner},
    ledger_store::LedgerOptions,
    place::Place,
    settlements,
    shared::Shared,
    sql::SqlResult,
    store::Unavailable,
    writer::{BACKOFF, Writer},
};
use crate::payment::key::KeyKind;

/// The largest clock skew that a configuration may allow: captures are posted at most this long before the time that
/// their payment names.
pub(super) const SKEW_MAX_MS: u64 = 300_000;
/// A lock is tried this often at least: who waits for a hand-over waits for a process that is ending.
const HAND_OVER: Duration = Duration::from_millis(200);

/// A ledger that is not open yet.
pub(super) struct Opening {
    pub(super) options: LedgerOptions,
    pub(super) faults: Arc<dyn Faults>,
    pub(super) shared: Arc<Shared>,
}

impl Opening {
    /// Opens the ledger, tells how the first attempt went, then writes until the queue is closed.
    ///
    /// A `patient` one tries again what [`OpenError::is_unreachable`]. The first attempt's error is told to who waits for
    /// it and ends this; where nobody waits any longer, or a later attempt finds it, priced routes stay closed.
    pub(super) fn run(self, patient: bool, first: &SyncSender<Result<(), OpenError>>) {
        let mut wait = BACKOFF.0;
        let mut said: Option<String> = None;
        loop {
            let error = match self.attempt() {
                Ok(writer) => {
                    self.shared.opened();
                    // Nobody waits: priced routes were closed until now.
                    if first.send(Ok(())).is_err() {
                        tracing::info!("the ledger is open");
                    }
                    return writer.run();
                }
                Err(error) => error,
            };
            let text = error.to_string();
            self.shared.set_closed(|closed| closed.disk = Some(text.as_str().into()));
            if !(patient && error.is_unreachable()) {
                if said.is_none() && first.send(Err(error)).is_ok() {
                    return;
                }
                tracing::error!(error = text, "priced routes stay closed until the gateway is restarted");
                return self.wait_for_the_end();
            }
            let most = if matches!(error, OpenError::Locked { .. }) { HAND_OVER } else { BACKOFF.1 };
            if said.as_ref() != Some(&text) {
                if matches!(error, OpenError::Locked { .. }) {
                    // Mostly the process before this one, which is ending.
                    tracing::warn!(
                        "priced routes wait for the ledger, which another process has still open; trying again"
                    );
                } else {
                    tracing::error!(
                        error = text,
                        "priced routes are closed until the ledger can be opened; trying again"
                    );
                }
                // The second time nobody waits; a channel without capacity tells.
                let _ = first.send(Ok(()));
                said = Some(text);
            }
            if self.shared.queue.wait_or_closing(wait.min(most)) {
                return self.end();
            }
            wait = (wait * 2).min(BACKOFF.1);
        }
    }

    /// Locks and opens the ledger, checks the end of its chain, and fills memory.
    fn attempt(&self) -> Result<Writer, OpenError> {
        let LedgerOptions { place, zone, sync, since_ms, .. } = &self.options;
        let owner = place.file().map(Owner::lock).transpose()?;
        let asked_ms = self.shared.clock.now_ms();
        let books = Books::open(place, zone, *sync, *since_ms, self.faults.clone())?;
        // The secret for a database is made before it. That of a file is made with it: then this one was lost, or moved.
        if books.book.made && *since_ms > 0 && place.file().is_some() {
            tracing::warn!(
                ledger = %place.shown().display(),
                "a new ledger was made although there was a secret file: no offer from before now is taken, since it may \
                 have been used; if the ledger was moved, stop the gateway and put it back"
            );
        }
        if let Some(path) = place.file() {
            let io = |error: std::io::Error| OpenError::Io { path: path.to_owned(), what: error.to_string() };
            let open = Place::of(path).map_err(io)?;
            // A later attempt opens the same path, perhaps another file.
            self.shared.place.get_or_init(|| open).opened();
        }
        self.shared.set_rule(ClockRule::new(books.head().at_ms.unsigned_abs(), books.floor_ms()));
        match (books.lease, &self.shared.desk) {
            // The database knows every payment, and is asked.
            (Some(lease), Some(desk)) => {
                self.shared.claims.raise_floor(books.floor_ms());
                self.shared.compare_clocks(&books.connection).map_err(|error| place.error(&error))?;
                let prints = self.shared.secret_prints();
                if !prints.is_empty() {
                    let published = lease.publish(&books.connection, &prints);
                    published.map_err(|error| place.error(&error))?;
                }
                desk.held().set(lease, asked_ms);
            }
            _ => load(&self.shared, &books).map_err(|error| place.error(&error))?,
        }
        Ok(Writer::new(self.shared.clone(), books, zone.clone(), *sync, owner))
    }

    fn wait_for_the_end(&self) {
        while !self.shared.queue.wait_or_closing(BACKOFF.1) {}
        self.end();
    }

    /// What waits for an open ledger waits for nothing.
    fn end(&self) {
        let reason: Arc<str> = "the ledger is closed".into();
        let left = self.shared.queue.refuse(&reason);
        left.asks.into_iter().for_each(|ask| ask.refuse(Unavailable(reason.clone())));
    }
}

/// Fills memory with captures above the floor and with the credit of recent periods. Doing it twice is doing it once.
fn load(shared: &Shared, books: &Books) -> SqlResult<()> {
    let floor_ms = books.floor_ms();
    shared.claims.raise_floor(floor_ms);
    // A payment may name a time up to the skew after its posting, so the walk goes on that much longer.
    books.captures_since(floor_ms.saturating_sub(SKEW_MAX_MS), |key, n, at_ms, owed| {
        let payment = key.payment();
        let paid_at_ms = match payment.as_bytes() {
            [kind, time @ .., _, _, _, _, _, _, _, _, _, _] if *kind == KeyKind::OfferId as u8 => {
                time.iter().fold(0, |ms, byte| ms << 8 | u64::from(*byte))
            }
            _ => at_ms.unsigned_abs().saturating_add(SKEW_MAX_MS),
        };
        if paid_at_ms >= floor_ms {
            shared.claims.load(payment, n, owed, paid_at_ms);
        }
    })?;
    let oldest = shared.oldest_periods();
    let mut used = books.account_use(&[])?;
    used.retain(|((_, _, period), _)| !is_before(*period, oldest));
    shared.claims.credit.load(used);
    for unresolved in settlements::open_settlements(&books.connection)? {
        tracing::warn!(payment = %unresolved.request.key, "whether this payment moved money is not known");
        shared.claims.load_unresolved(unresolved);
    }
    Ok(())
}
