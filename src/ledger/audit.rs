//! Proves the books: every link of every chain, every sum, from nothing but the file.

mod closes;
mod corrections;
mod references;
mod sums;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fmt,
};

use self::closes::Passed;
use super::{
    chain::{self, Hash},
    close::Close,
    day::day_text,
    entry::{Entry, EntryNumber, Kind, PostingKey},
    file::{self, Head},
    outcomes,
    read::{LedgerReader, ReadError},
    rollup::{self, RollupKey, Rollups},
    rows,
    sql::{Begin, Rows, Session, SqlError, Trouble, params},
};
use crate::wire::jwk::PublicKey;

/// What an audit saw, up to the first thing that is wrong.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuditReport {
    /// Each writer's chain, as far as it holds.
    pub writers: Vec<WriterReport>,
    /// Entries checked.
    pub entries: u64,
    /// Captures among them.
    pub captures: u64,
    /// Voids among them.
    pub voids: u64,
    /// Refunds among them, less those that failed.
    pub refunds: i64,
    /// Captures without an outcome, as listings have it: answers on their way, or a gateway that died over them, and no later
    /// posting says what became of them.
    pub unproven: u64,
    /// Entries whose target or evidence was dropped by retention.
    pub dropped: u64,
    /// Closes of book days.
    pub closes: u64,
    /// Those with a signature.
    pub signed: u64,
    /// Those whose signature was checked.
    pub verified: u64,
    /// Statements.
    pub statements: u64,
    /// Captured less voided and refunded of each asset, ledger units.
    pub charged: BTreeMap<String, i64>,
    /// The first thing that is wrong; `None`: the books are whole.
    pub finding: Option<Finding>,
}

/// One writer's chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WriterReport {
    /// Which.
    pub slot: i64,
    /// Its entries.
    pub entries: i64,
    /// Its batches.
    pub batches: i64,
    /// The last link; compare it with a statement or a copy kept elsewhere.
    pub head: Hash,
}

/// Something wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Where.
    pub place: Place,
    /// What was looked at.
    pub what: &'static str,
    /// What the rest of the books says it must be.
    pub expected: String,
    /// What is there.
    pub found: String,
}

/// Where something is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// The entry of this number.
    Entry(i64),
    /// A batch.
    Batch {
        /// Its writer.
        slot: i64,
        /// Its number.
        batch_seq: i64,
    },
    /// A writer's row.
    Writer(i64),
    /// A row of `rollups`, by its key.
    Rollup(String),
    /// A row of `account_use`, by its key.
    AccountUse(String),
    /// A close, by the first day that it left open.
    Close(i64),
    /// A statement, by its number.
    Statement(i64),
    /// The file as SQLite sees it.
    File,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: expected {}, found {}", self.place, self.what, self.expected, self.found)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Entry(n) => write!(f, "entry {n}"),
            Place::Batch { slot, batch_seq } => write!(f, "batch {batch_seq} of writer {slot}"),
            Place::Writer(slot) => write!(f, "writer {slot}"),
            Place::Rollup(key) => write!(f, "roll-up {key}"),
            Place::AccountUse(key) => write!(f, "account use {key}"),
            Place::Close(until) => write!(f, "close of the days before {}", day_text(*until)),
            Place::Statement(number) => write!(f, "statement {number}"),
            Place::File => f.write_str("the file"),
        }
    }
}

impl LedgerReader {
    /// Checks everything that the file can prove about itself, at one moment, while a gateway may go on writing:
    /// each chain from its genesis (entries, batches, outcomes), dense numbers, the writers' rows, one void and one outcome
    /// a capture at most, that what was settled was intended and what is owed or served again was captured, roll-ups and account use recomputed, closes and statements, and SQLite's own integrity.
    ///
    /// `progress` is called after each batch with entries checked and entries in all. The first thing wrong ends it.
    ///
    /// # Errors
    /// [`ReadError::Sql`] when the disk fails; damage is a [`Finding`].
    pub fn audit(&self, progress: impl FnMut(u64, u64)) -> Result<AuditReport, ReadError> {
        self.audit_with_keys(&[], progress)
    }

    /// The same, with the keys that closes may be signed under: one that is signed under another fails. Without keys signatures
    /// are only counted.
    ///
    /// # Errors
    /// As [`LedgerReader::audit`].
    pub fn audit_with_keys(
        &self,
        keys: &[PublicKey],
        mut progress: impl FnMut(u64, u64),
    ) -> Result<AuditReport, ReadError> {
        let transaction = self.connection.begin(Begin::Read)?;
        let mut audit = Audit::new(&transaction, &self.book.ledger_id);
        match audit.run(keys, &mut progress) {
            Ok(()) => {}
            Err(Stop::Finding(finding)) => audit.report.finding = Some(*finding),
            Err(Stop::Sql(error)) => {
                if !matches!(error.trouble, Trouble::Shape | Trouble::Damaged | Trouble::Foreign) {
                    return Err(error.into());
                }
                audit.report.finding = Some(Finding {
                    place: audit.place.clone(),
                    what: "the row",
                    expected: "readable".to_owned(),
                    found: error.to_string(),
                });
            }
        }
        Ok(audit.report)
    }
}

enum Stop {
    Finding(Box<Finding>),
    Sql(SqlError),
}

impl From<SqlError> for Stop {
    fn from(error: SqlError) -> Stop {
        Stop::Sql(error)
    }
}

struct Audit<'c> {
    connection: &'c Session,
    ledger_id: &'c [u8; 16],
    report: AuditReport,
    /// What is being looked at, should the file break there.
    place: Place,
    rollups: Rollups<String>,
    used: BTreeMap<(String, String, i64), i64>,
    /// Captures whose outcome has not been met.
    open: HashSet<i64>,
    voided: HashMap<i64, i64>,
    /// Captures of which a later posting says what became of their answer.
    told: HashSet<i64>,
    /// What of a capture was given back.
    refunded: HashMap<i64, i64>,
    total: u64,
}

impl<'c> Audit<'c> {
    fn new(connection: &'c Session, ledger_id: &'c [u8; 16]) -> Audit<'c> {
        Audit {
            connection,
            ledger_id,
            report: AuditReport::default(),
            place: Place::File,
            rollups: Rollups::new(),
            used: BTreeMap::new(),
            open: HashSet::new(),
            voided: HashMap::new(),
            told: HashSet::new(),
            refunded: HashMap::new(),
            total: 0,
        }
    }

    fn run(&mut self, keys: &[PublicKey], progress: &mut impl FnMut(u64, u64)) -> Result<(), Stop> {
        let connection = self.connection;
        let closes = closes::read(self, keys)?;
        let open_day = closes.last().map_or(0, |close| close.until);
        let slots: Vec<i64> = connection.all("SELECT slot FROM writers ORDER BY slot", &[], |row| row.get(0))?;
        let total: i64 = connection.cell("SELECT CAST(coalesce(sum(seq), 0) AS BIGINT) FROM writers", &[])?;
        self.total = total.unsigned_abs();
        for slot in slots {
            self.place = Place::Writer(slot);
            if let Some(head) = file::head(connection, slot)? {
                self.writer(slot, &head, &closes, progress)?;
                same(Place::Writer(slot), "its first open day", day_text(open_day), day_text(head.open_day))?;
            }
        }
        self.report.unproven = self.unproven()?;
        self.place = Place::File;
        let rows: i64 = connection.cell("SELECT count(*) FROM entries", &[])?;
        same(Place::File, "entries in all", self.report.entries.to_string(), rows.to_string())?;
        let sums = std::mem::take(&mut self.rollups);
        self.report.statements = closes::statements(self, &closes, sums.iter())?;
        self.rollups = sums;
        self.check_rollups()?;
        self.check_use()?;
        self.place = Place::File;
        // A server checks its own pages.
        if connection.sqlite().is_none() {
            return Ok(());
        }
        let whole: String = connection.cell("PRAGMA integrity_check(1)", &[])?;
        same(Place::File, "SQLite's integrity check", "ok".to_owned(), whole)
    }

    fn writer(
        &mut self,
        slot: i64,
        head: &Head,
        closes: &[Close],
        progress: &mut impl FnMut(u64, u64),
    ) -> Result<(), Stop> {
        let connection = self.connection;
        let first = EntryNumber { slot, seq: 0 }.n();
        let next_slot = EntryNumber { slot: slot + 1, seq: 0 }.n();
        let entries = format!("SELECT {} FROM entries WHERE n >= ?1 AND n < ?2 ORDER BY n", rows::COLUMNS);
        let batches = format!("SELECT {} FROM batches WHERE slot = ?1 ORDER BY batch_seq", rows::BATCH_COLUMNS);
        let (mut entries, mut batches) = (connection.prepare(&entries)?, connection.prepare(&batches)?);
        let (mut entries, mut batches) = (entries.query(params![first, next_slot])?, batches.query(params![slot])?);
        let mut hash = chain::genesis(self.ledger_id, slot);
        let (mut last_n, mut batch_seq, mut at_ms) = (first, 0, 0);
        let mut passed = Passed::new(closes, slot);
        passed.batch(batch_seq, 0, &hash, at_ms)?;
        self.place = Place::Batch { slot, batch_seq: 1 };
        while let Some(row) = batches.next()? {
            let (batch, stored) = rows::read_batch(&row)?;
            let place = Place::Batch { slot, batch_seq: batch_seq + 1 };
            same(place.clone(), "the next batch's number", batch_seq + 1, batch.batch_seq)?;
            batch_seq += 1;
            if let Some(n_last) = batch.n_last {
                let expected = Some(last_n + 1);
                same(place.clone(), "its first entry", format!("{expected:?}"), format!("{:?}", batch.n_first))?;
                while last_n < n_last {
                    hash = self.entry(last_n + 1, &mut entries, hash, (at_ms, passed.open_day))?;
                    last_n += 1;
                }
            }
            if batch.at_ms < at_ms {
                return Err(finding(place, "its time", format!("at least {at_ms}"), batch.at_ms));
            }
            at_ms = batch.at_ms;
            hash = chain::batch(&hash, &batch);
            same_hash(place.clone(), "its head", &hash, &stored)?;
            self.outcomes(place, batch.outcomes)?;
            passed.batch(batch_seq, EntryNumber::from_n(last_n).seq, &hash, at_ms)?;
            progress(self.report.entries, self.total);
            self.place = Place::Batch { slot, batch_seq: batch_seq + 1 };
        }
        self.place = Place::Entry(last_n + 1);
        if let Some(row) = entries.next()? {
            let n: i64 = row.get(0)?;
            return Err(finding(Place::Entry(n), "an entry after the last batch", "none", n));
        }
        let place = Place::Writer(slot);
        same(place.clone(), "its batches", batch_seq, head.batch_seq)?;
        same(place.clone(), "its entries", EntryNumber::from_n(last_n).seq, head.seq)?;
        same_hash(place, "its head", &hash, &head.hash)?;
        passed.end(batch_seq)?;
        let entries = EntryNumber::from_n(last_n).seq;
        self.report.writers.push(WriterReport { slot, entries, batches: batch_seq, head: hash });
        Ok(())
    }

    /// Checks the entry that must come next, after a time and no earlier than the open day, and returns its hash.
    fn entry(
        &mut self,
        n: i64,
        rows: &mut Rows<'_>,
        previous: Hash,
        (at_ms, open_day): (i64, i64),
    ) -> Result<Hash, Stop> {
        let place = Place::Entry(n);
        self.place = place.clone();
        let Some(row) = rows.next()? else { return Err(finding(place, "the entry", n, "none")) };
        let found: i64 = row.get(0)?;
        same(place.clone(), "the next entry's number", n, found)?;
        let (entry, stored) = rows::read(&row)?;
        match (entry.target, entry.target_salt, entry.target_digest) {
            (Some(target), Some(salt), Some(digest)) => {
                same_hash(place.clone(), "its target's digest", digest, &chain::target_digest(salt, target))?;
            }
            (Some(_), ..) => return Err(finding(place, "its target", "salt and digest beside it", "none")),
            (None, ..) => {}
        }
        match (entry.evidence, entry.evidence_digest) {
            (Some(evidence), Some(digest)) => {
                same_hash(place.clone(), "its evidence's digest", digest, &chain::evidence_digest(evidence))?;
            }
            (Some(_), None) => return Err(finding(place, "its evidence", "a digest beside it", "none")),
            (None, _) => {}
        }
        let hash = chain::entry(&previous, &entry);
        same_hash(place.clone(), "the hash of its columns", &hash, &stored)?;
        same(place.clone(), "the kind in its key", entry.kind.name(), entry.key.kind().name())?;
        if entry.at_ms < at_ms {
            return Err(finding(place, "its time", format!("at least {at_ms}"), entry.at_ms));
        }
        if entry.book_day < open_day {
            let expected = format!("{} or later, for the days before are closed", day_text(open_day));
            return Err(finding(place, "its book day", expected, day_text(entry.book_day)));
        }
        if entry.amount < 0 {
            return Err(finding(place, "its amount", "not negative", entry.amount));
        }
        self.count(&entry)?;
        Ok(hash)
    }

    fn count(&mut self, entry: &Entry<'_>) -> Result<(), Stop> {
        references::check(self.connection, entry)?;
        self.report.entries += 1;
        let dropped = |kept: Option<&[u8]>, digest: Option<&[u8]>| kept.is_none() && digest.is_some();
        if dropped(entry.target.map(str::as_bytes), entry.target_digest)
            || dropped(entry.evidence, entry.evidence_digest)
        {
            self.report.dropped += 1;
        }
        let change = match entry.kind {
            Kind::Capture => {
                self.report.captures += 1;
                self.open.insert(entry.n);
                entry.amount
            }
            Kind::Void => {
                self.report.voids += 1;
                self.check_void(entry)?;
                -entry.amount
            }
            _ => 0,
        };
        if matches!(entry.kind, Kind::Void | Kind::Owed | Kind::Redelivered) {
            self.told.extend(entry.ref_n);
        }
        if let Some(change) = rollup::change(entry) {
            self.rollups.add(RollupKey::of(entry).to_owned(), change);
            let charged = self.report.charged.entry(entry.asset.to_owned()).or_default();
            if change.kind == Kind::Capture {
                *charged = charged.saturating_add(change.amount);
            } else {
                *charged = charged.saturating_sub(change.amount);
            }
            if change.kind == Kind::Refund {
                self.report.refunds += change.count;
                let refunded = self.refunded.entry(entry.ref_n.unwrap_or_default()).or_default();
                *refunded = refunded.saturating_add(change.amount);
            }
        }
        if change != 0 || matches!(entry.kind, Kind::Capture | Kind::Void) {
            let key = (entry.account.to_owned(), entry.asset.to_owned(), entry.period);
            let used = self.used.entry(key).or_default();
            *used = used.saturating_add(change);
        }
        Ok(())
    }

    /// Captures of which nobody knows what became.
    fn unproven(&self) -> Result<u64, Stop> {
        let amount = |n: &i64| self.connection.cell::<i64>("SELECT amount FROM entries WHERE n = ?1", params![n]);
        let mut unproven = 0;
        for n in self.open.difference(&self.told) {
            let given_back = match self.refunded.get(n) {
                Some(refunded) => *refunded > 0 && *refunded >= amount(n)?,
                None => false,
            };
            unproven += u64::from(!given_back);
        }
        Ok(unproven)
    }

    /// A void names an earlier capture of its payment and gives back what that charged, once.
    fn check_void(&mut self, void: &Entry<'_>) -> Result<(), Stop> {
        let place = Place::Entry(void.n);
        let n = void.ref_n.unwrap_or_default();
        if let Some(other) = self.voided.insert(n, void.n) {
            return Err(finding(place, "voids of one capture", format!("only entry {other}"), "a second one"));
        }
        let find = "SELECT key, amount FROM entries WHERE n = ?1 AND n < ?2";
        let mut statement = self.connection.prepare(find)?;
        let mut rows = statement.query(params![n, void.n])?;
        let Some(row) = rows.next()? else {
            return Err(finding(place, "the capture that it voids", "an earlier entry", format!("number {n}")));
        };
        let key = PostingKey::from_bytes(row.get(0)?);
        let expected = PostingKey::new(Kind::Capture, &void.key.payment(), 0);
        if key != Some(expected) {
            return Err(finding(place, "the key of what it voids", format!("{expected:?}"), format!("{key:?}")));
        }
        let amount: i64 = row.get(1)?;
        same(place, "its amount", amount, void.amount)
    }

    fn outcomes(&mut self, place: Place, bytes: Option<&[u8]>) -> Result<(), Stop> {
        let Some(bytes) = bytes else { return Ok(()) };
        let Some(records) = outcomes::decode(bytes) else {
            return Err(finding(place, "its outcomes", "records of 16 bytes", hex(bytes)));
        };
        for record in records {
            if !self.open.remove(&record.n) {
                let found = format!("one for entry {}", record.n);
                return Err(finding(place, "its outcomes", "one for each earlier capture", found));
            }
        }
        Ok(())
    }
}

fn same<T: PartialEq + fmt::Display>(place: Place, what: &'static str, expected: T, found: T) -> Result<(), Stop> {
    if expected == found { Ok(()) } else { Err(finding(place, what, expected, found)) }
}

fn same_hash(place: Place, what: &'static str, expected: &[u8], found: &[u8]) -> Result<(), Stop> {
    if expected == found { Ok(()) } else { Err(finding(place, what, hex(expected), hex(found))) }
}

fn finding(place: Place, what: &'static str, expected: impl fmt::Display, found: impl fmt::Display) -> Stop {
    Stop::Finding(Box::new(Finding { place, what, expected: expected.to_string(), found: found.to_string() }))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
