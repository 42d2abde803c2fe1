//! The open file of the one writer: its state between batches, and everything that it reads.

use std::{collections::HashSet, sync::Arc};

use super::{
    batch::BatchError,
    chain,
    credit::UseKey,
    day::BookZone,
    entry::{Kind, PostingKey},
    faults::Faults,
    file::{self, Book, Head, OpenError},
    location::Location,
    outcomes,
    passes::FIRST_N,
    postgres::{lease::Lease, schema},
    rows,
    sql::{Begin, Row, Session, SqlError, SqlResult, params},
    steps,
    store::Terms,
    targets::KeepTargets,
    void_cap::Voids,
};
use crate::wire::amount::Asset;

/// The floor is written when it has risen by this much, not with every batch of a busy second.
pub(super) const FLOOR_STEP_MS: i64 = 1000;

/// The open ledger of its one writer.
pub(super) struct Books {
    pub(super) connection: Session,
    /// The number of this writer.
    pub(super) slot: i64,
    /// Of a ledger on a server: this process's turn of the slot.
    pub(super) lease: Option<Lease>,
    pub(super) place: Location,
    pub(super) zone: BookZone,
    pub(super) book: Book,
    pub(super) head: Head,
    pub(super) known_keys: HashSet<(Arc<str>, Arc<str>)>,
    /// Captures of this process whose outcome is not written.
    pub(super) open: HashSet<i64>,
    /// Where the chain stands if the commit that failed took place after all.
    pub(super) attempted: Option<Head>,
    /// What of targets is kept.
    pub(super) keep_targets: KeepTargets,
    pub(super) faults: Arc<dyn Faults>,
    pub(super) voids: Voids,
}

impl Books {
    /// Opens the ledger and checks the end of the chain; on a server, in a slot of its own. One that is made gets the replay
    /// floor `floor_ms`.
    pub(super) fn open(
        place: &Location,
        zone: &str,
        sync: bool,
        floor_ms: u64,
        faults: Arc<dyn Faults>,
    ) -> Result<Books, OpenError> {
        let (connection, book) = match place {
            Location::File(path) => file::open_to_write(path, zone, sync, int(floor_ms))?,
            Location::Server(server) => {
                let session = server.connect().map_err(|error| server.error(&error))?;
                server.check(&session)?;
                let book = schema::open_to_write(server, &session, zone, int(floor_ms))?;
                (session, book)
            }
        };
        let sql = |error: SqlError| place.error(&error);
        let lease = match place {
            Location::File(_) => None,
            Location::Server(_) => Some(Lease::take(&connection, &book.ledger_id).map_err(sql)?),
        };
        Books::with(connection, book, lease, place, zone, faults)
    }

    fn with(
        connection: Session,
        book: Book,
        lease: Option<Lease>,
        place: &Location,
        zone: &str,
        faults: Arc<dyn Faults>,
    ) -> Result<Books, OpenError> {
        let sql = |error: SqlError| place.error(&error);
        let slot = match lease {
            Some(lease) => lease.slot,
            None => file::slot(&connection).map_err(sql)?,
        };
        let corrupt = |what: String| OpenError::Corrupt { path: place.shown(), what };
        let head = file::head(&connection, slot).map_err(sql)?;
        let head = head.ok_or_else(|| corrupt(format!("it has no row for writer {slot}")))?;
        let genesis = chain::genesis(&book.ledger_id, slot);
        rows::check_tail(&connection, slot, genesis, &head).map_err(sql)?.map_err(corrupt)?;
        if let Some(file) = connection.sqlite() {
            faults.opened(file).map_err(|error| sql(error.into()))?;
        }
        let zone = BookZone::from_name(zone).ok_or_else(|| OpenError::NoSuchZone(zone.to_owned()))?;
        let (known_keys, open, voids) = (HashSet::new(), HashSet::new(), Voids::default());
        let (place, attempted) = (place.clone(), None);
        let keep_targets = KeepTargets::default();
        Ok(Books {
            connection,
            slot,
            lease,
            place,
            zone,
            book,
            head,
            known_keys,
            open,
            attempted,
            keep_targets,
            faults,
            voids,
        })
    }

    /// Opens the ledger anew after an error, keeping what this process still owes it. On a server it keeps its slot, or takes
    /// another one where that is not its own any more.
    pub(super) fn reopen(&mut self, zone: &str, sync: bool) -> Result<(), OpenError> {
        let place = self.place.clone();
        let sql = |error: SqlError| place.error(&error);
        let books = match &place {
            Location::File(path) => {
                // A file that is gone is not made anew: it would know of no payment.
                std::fs::metadata(path)
                    .map_err(|error| OpenError::Io { path: path.clone(), what: error.to_string() })?;
                Books::open(&place, zone, sync, self.floor_ms(), self.faults.clone())?
            }
            Location::Server(server) => {
                let session = server.connect().map_err(sql)?;
                server.check(&session)?;
                let book = schema::open_to_read(server, &session)?;
                let ours = match self.lease {
                    Some(lease) if lease.renew(&session).map_err(sql)? => lease,
                    _ => Lease::take(&session, &book.ledger_id).map_err(sql)?,
                };
                Books::with(session, book, Some(ours), &place, zone, self.faults.clone())?
            }
        };
        if books.book.ledger_id != self.book.ledger_id {
            let what = "it is another ledger than before".to_owned();
            return Err(OpenError::Corrupt { path: place.shown(), what });
        }
        let mut open = std::mem::take(&mut self.open);
        if books.slot == self.slot {
            // The batch in doubt may have carried outcomes that are about to be written again.
            for record in books.last_outcomes().map_err(sql)? {
                open.remove(&record.n);
            }
        } else {
            // A chain tells of its own captures only: those of the slot that was lost stay unproven.
            open.clear();
        }
        *self = Books { open, voids: self.voids.reopened(), keep_targets: self.keep_targets, ..books };
        Ok(())
    }

    fn last_outcomes(&self) -> SqlResult<Vec<outcomes::Record>> {
        let last = "SELECT outcomes FROM batches WHERE slot = ?1 AND batch_seq = ?2";
        let values = params![self.slot, self.head.batch_seq];
        let row = self.connection.first(last, values, |row| row.get::<Option<Vec<u8>>>(0))?;
        Ok(row.flatten().and_then(|bytes| outcomes::decode(&bytes)).unwrap_or_default())
    }

    /// Raises the floor alone, when no batch does.
    pub(super) fn raise_floor(&mut self, floor_ms: u64) -> Result<(), BatchError> {
        let floor_ms = int(floor_ms);
        if floor_ms < self.book.floor_ms + FLOOR_STEP_MS {
            return Ok(());
        }
        let raise = "UPDATE book SET replay_floor_ms = ?1 WHERE replay_floor_ms < ?1";
        self.connection.execute(raise, params![floor_ms]).map_err(|e| BatchError::Disk(e.to_string()))?;
        self.book.floor_ms = floor_ms;
        Ok(())
    }

    /// Writes as much as a capture may need and takes it away again, to see whether there is room.
    pub(super) fn probe(&mut self) -> Result<(), BatchError> {
        let failed = |error: SqlError| BatchError::Disk(error.to_string());
        if self.connection.sqlite().is_none() {
            // The server tells for each batch.
            return Ok(());
        }
        // No payment has this key, and a ledger with one writer keeps no claims in the file.
        let write = "INSERT OR REPLACE INTO claims (key, slot, epoch, state, account, period, asset, amount, \
                     hard_until_ms, payload) VALUES (x'00', ?1, 0, 'r', '', 0, '', 0, 0, zeroblob(131072))";
        self.connection.execute(write, params![self.slot]).map_err(failed)?;
        self.connection.execute("DELETE FROM claims WHERE key = x'00'", &[]).map_err(failed)?;
        Ok(())
    }

    /// The entry with this posting key, if there is one.
    pub(super) fn find(&self, key: &PostingKey) -> SqlResult<Option<i64>> {
        self.connection.first("SELECT n FROM entries WHERE key = ?1", params![key.as_bytes()], |row| row.get(0))
    }

    /// An outcome will come for this capture.
    pub(super) fn expect_outcome(&mut self, n: i64) {
        self.open.insert(n);
    }

    /// Captures no older than `since_ms`, newest first: posting key, number, posting time, whether its answer may be fetched.
    pub(super) fn captures_since(
        &self,
        since_ms: u64,
        mut each: impl FnMut(PostingKey, i64, i64, bool),
    ) -> SqlResult<()> {
        let (mut owed, mut ended) = (HashSet::new(), HashSet::new());
        let told = self.told_since(since_ms)?;
        let mut statement = self.connection.prepare("SELECT key, n, at_ms FROM entries ORDER BY n DESC")?;
        let mut rows = statement.query(&[])?;
        while let Some(row) = rows.next()? {
            let at_ms: i64 = row.get(2)?;
            if at_ms < int(since_ms) {
                break;
            }
            let Some(key) = PostingKey::from_bytes(row.get(0)?) else { continue };
            // What is posted about a capture comes after it, so on the way back it is met before.
            match key.kind() {
                Kind::Redelivered | Kind::Lapsed | Kind::Void => _ = ended.insert(key.payment()),
                Kind::Owed => _ = owed.insert(key.payment()),
                // Nobody knows whether the answer left: who paid or owes may fetch it once.
                Kind::Capture => {
                    let n = row.get(1)?;
                    let waits =
                        (!told.contains(&n) || owed.contains(&key.payment())) && !ended.contains(&key.payment());
                    each(key, n, at_ms, waits && !steps::is_refunded(&self.connection, &key.payment())?);
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Captures whose outcome is written, of batches no older than `since_ms`.
    fn told_since(&self, since_ms: u64) -> SqlResult<HashSet<i64>> {
        let since = "SELECT outcomes FROM batches WHERE at_ms >= ?1 AND outcomes IS NOT NULL ORDER BY batch_seq DESC";
        let mut statement = self.connection.prepare(since)?;
        let mut rows = statement.query(params![int(since_ms)])?;
        let mut told = HashSet::new();
        while let Some(row) = rows.next()? {
            let records = outcomes::decode(row.get(0)?).unwrap_or_default();
            told.extend(records.iter().map(|record| record.n));
        }
        Ok(told)
    }

    /// What each account used in each period; of passes, of which there may be many, of these alone.
    pub(super) fn account_use(&self, passes: &[UseKey]) -> SqlResult<Vec<(UseKey, i64)>> {
        let select = "SELECT account, asset, period, used FROM account_use WHERE period < ?1";
        let rows = self.connection.all(select, params![FIRST_N], |row| {
            Ok((Asset::parse(row.get(1)?), row.get::<Arc<str>>(0)?, row.get(2)?, row.get(3)?))
        })?;
        let keyed = |(asset, account, period, used): (Option<Asset>, _, _, _)| Some(((account, asset?, period), used));
        let mut found: Vec<(UseKey, i64)> = rows.into_iter().filter_map(keyed).collect();
        let one = "SELECT used FROM account_use WHERE account = ?1 AND asset = ?2 AND period = ?3";
        for key in passes {
            let used = self.connection.first(one, params![&*key.0, key.1.as_str(), key.2], |row| row.get(0))?;
            found.push((key.clone(), used.unwrap_or_default()));
        }
        Ok(found)
    }

    /// Makes offer templates durable.
    pub(super) fn remember_terms(&mut self, terms: &[([u8; 32], Vec<u8>)], now_ms: u64) -> SqlResult<()> {
        let transaction = self.connection.begin(Begin::Write)?;
        for (digest, bytes) in terms {
            transaction.execute(
                "INSERT INTO terms VALUES (?1, ?2, ?3) ON CONFLICT (digest) DO UPDATE SET \
                 loaded_ms = excluded.loaded_ms WHERE terms.loaded_ms < excluded.loaded_ms",
                params![digest, bytes, int(now_ms)],
            )?;
        }
        transaction.commit()
    }

    /// Templates made no earlier than `since_ms`.
    pub(super) fn recent_terms(&self, since_ms: u64) -> SqlResult<Terms> {
        let recent = "SELECT bytes, loaded_ms FROM terms WHERE loaded_ms >= ?1 ORDER BY digest";
        let read = |row: &Row<'_>| Ok((row.get(0)?, row.get::<i64>(1)?.unsigned_abs()));
        self.connection.all(recent, params![int(since_ms)], read)
    }

    pub(super) fn head(&self) -> &Head {
        &self.head
    }

    /// Where the chain stands if the commit that failed took place after all.
    pub(super) fn attempted(&self) -> Option<Head> {
        self.attempted
    }

    pub(super) fn floor_ms(&self) -> u64 {
        self.book.floor_ms.unsigned_abs()
    }
}

/// Times of ours are far below 2⁶³.
pub(super) fn int(ms: u64) -> i64 {
    i64::try_from(ms).unwrap_or(i64::MAX)
}
