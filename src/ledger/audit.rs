//! Proves the books: every link of every chain, every sum, from nothing but the file.

mod archived;
pub mod checkpoint;
mod claims;
mod closes;
mod corrections;
mod references;
mod report;
mod standing;
mod sums;
mod walk;
mod walked;
mod witnesses;

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    path::PathBuf,
};

use self::archived::Gone;
pub use self::checkpoint::{Checkpoint, CheckpointError};
pub(in crate::ledger) use self::report::Stop;
pub use self::report::{AuditReport, Finding, Place, WriterReport};
use self::report::{finding, hex, same, same_hash};
pub use self::walked::Walked;
use super::{
    day::day_text,
    file,
    read::{LedgerReader, ReadError},
    rollup::Rollups,
    sql::{Begin, Session, Trouble, params},
};
use crate::wire::jwk::PublicKey;

/// What an audit is given besides the books.
#[derive(Clone, Copy, Debug, Default)]
pub struct AuditOptions<'a> {
    /// Closes may be signed under these: one that is signed under another is wrong. Without keys signatures are only counted.
    pub keys: &'a [PublicKey],
    /// The wall clock, Unix ms: nothing may claim to be much later. Without it, the last posting stands for it.
    pub now_ms: Option<u64>,
    /// What an earlier audit came to.
    pub from: Option<&'a Checkpoint>,
    /// Of what an earlier audit has seen, the links are not read again.
    pub only_new: bool,
    /// Archives to audit with the ledger: what was dropped for them is taken on trust without.
    pub archives: &'a [PathBuf],
}

/// Where an audit is; told after each batch.
pub struct Progress<'p> {
    /// Entries that were read.
    pub done: u64,
    /// Entries in all.
    pub total: u64,
    state: &'p Audit<'p>,
}

impl Progress<'_> {
    /// From which another audit can go on.
    pub fn checkpoint(&self) -> Checkpoint {
        self.state.checkpoint(false)
    }
}

impl LedgerReader {
    /// Checks everything that the file can prove about itself, at one moment, while a gateway may go on writing:
    /// each chain from its genesis (entries, batches, outcomes), dense numbers, the writers' rows, one void and one outcome
    /// a capture at most, that what was settled was intended and what is owed or served again was captured, roll-ups and
    /// account use recomputed, closes and statements, that rows of which a chain is
    /// the witness are as it says, keys and terms under their digests, claims, and SQLite's own integrity.
    ///
    /// `progress` is called after each batch with entries checked and entries in all. The first thing wrong ends it.
    ///
    /// # Errors
    /// [`ReadError::Sql`] when the disk fails; damage is a [`Finding`].
    pub fn audit(&self, progress: impl FnMut(u64, u64)) -> Result<AuditReport, ReadError> {
        self.audit_with_keys(&[], progress)
    }

    /// The same, with the keys that closes may be signed under.
    ///
    /// # Errors
    /// As [`LedgerReader::audit`].
    pub fn audit_with_keys(
        &self,
        keys: &[PublicKey],
        mut progress: impl FnMut(u64, u64),
    ) -> Result<AuditReport, ReadError> {
        let options = AuditOptions { keys, ..AuditOptions::default() };
        Ok(self.audit_from(&options, |at| progress(at.done, at.total))?.0)
    }

    /// The same, perhaps from where an earlier audit was. The second value is where the next one may begin, if nothing is wrong.
    ///
    /// # Errors
    /// As [`LedgerReader::audit`].
    pub fn audit_from(
        &self,
        options: &AuditOptions<'_>,
        mut progress: impl FnMut(&Progress<'_>),
    ) -> Result<(AuditReport, Option<Checkpoint>), ReadError> {
        let transaction = self.connection.begin(Begin::Read)?;
        let mut audit = Audit::new(&transaction, &self.book.ledger_id, options);
        match audit.run(&mut progress) {
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
        let end = audit.report.finding.is_none().then(|| audit.checkpoint(true));
        audit.count();
        Ok((audit.report, end))
    }
}

struct Audit<'c> {
    connection: &'c Session,
    ledger_id: &'c [u8; 16],
    options: &'c AuditOptions<'c>,
    report: AuditReport,
    /// What is being looked at, should the file break there.
    place: Place,
    /// The chains that were walked; the last one perhaps in part.
    walked: Vec<Walked>,
    /// What was archived and dropped.
    gone: Gone,
    /// Entries that were read, and those that there are.
    done: u64,
    total: u64,
}

impl<'c> Audit<'c> {
    fn new(connection: &'c Session, ledger_id: &'c [u8; 16], options: &'c AuditOptions<'c>) -> Audit<'c> {
        let (report, place) = (AuditReport::default(), Place::File);
        Audit {
            connection,
            ledger_id,
            options,
            report,
            place,
            walked: Vec::new(),
            gone: Gone::default(),
            done: 0,
            total: 0,
        }
    }

    fn run(&mut self, progress: &mut impl FnMut(&Progress<'_>)) -> Result<(), Stop> {
        let connection = self.connection;
        let closes = closes::read(self)?;
        let open_day = closes.last().map_or(0, |close| close.until);
        let slots: Vec<i64> = connection.all("SELECT slot FROM writers ORDER BY slot", &[], |row| row.get(0))?;
        let total: i64 = connection.cell("SELECT CAST(coalesce(sum(seq), 0) AS BIGINT) FROM writers", &[])?;
        self.total = total.unsigned_abs();
        self.checkpoints_writers(&slots)?;
        self.archives(&closes)?;
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
        let rows = rows - self.left_over()?;
        let entries: u64 = self.walked.iter().map(|walked| walked.entries).sum();
        let gone: u64 = self.gone.parts().values().map(|part| part.state.entries).sum();
        same(Place::File, "entries in all", (entries - gone).to_string(), rows.to_string())?;
        let mut rollups = Rollups::new();
        self.walked
            .iter()
            .flat_map(|walked| walked.rollups.iter())
            .for_each(|(key, sums)| rollups.put(key.clone(), *sums));
        self.report.statements = closes::statements(self, &closes, rollups.iter())?;
        witnesses::check(self)?;
        self.check_rollups(rollups)?;
        claims::check(self)?;
        self.check_use()?;
        self.check_standing()?;
        self.place = Place::File;
        // A server checks its own pages.
        if connection.sqlite().is_none() {
            return Ok(());
        }
        let whole: String = connection.cell("PRAGMA integrity_check(1)", &[])?;
        same(Place::File, "SQLite's integrity check", "ok".to_owned(), whole)
    }

    /// What a checkpoint speaks of must still be there.
    fn checkpoints_writers(&self, slots: &[i64]) -> Result<(), Stop> {
        let known = self.options.from.map_or(&[][..], |from| &from.walked);
        match known.iter().find(|walked| !slots.contains(&walked.slot)) {
            None => Ok(()),
            Some(gone) => {
                Err(finding(Place::Writer(gone.slot), "the row, which an earlier audit has seen", "one", "none"))
            }
        }
    }

    /// Captures of which nobody knows what became.
    fn unproven(&self) -> Result<u64, Stop> {
        let told: HashSet<i64> = self.walked.iter().flat_map(|walked| walked.told.iter().copied()).collect();
        let mut refunded: HashMap<i64, i64> = HashMap::new();
        for (n, units) in self.walked.iter().flat_map(|walked| &walked.refunded) {
            let sum = refunded.entry(*n).or_default();
            *sum = sum.saturating_add(*units);
        }
        let open: BTreeSet<i64> = self.walked.iter().flat_map(|walked| walked.open.iter().copied()).collect();
        // One that was dropped is not asked what it was: some of it went back.
        let amount = |n: &i64| {
            let amount = self.connection.first("SELECT amount FROM entries WHERE n = ?1", params![n], |row| row.get(0));
            amount.map(|amount: Option<i64>| amount.unwrap_or_default())
        };
        let mut unproven = 0;
        for n in open.iter().filter(|n| !told.contains(n)) {
            let given_back = match refunded.get(n) {
                Some(refunded) => *refunded > 0 && *refunded >= amount(n)?,
                None => false,
            };
            unproven += u64::from(!given_back);
        }
        Ok(unproven)
    }

    fn checkpoint(&self, complete: bool) -> Checkpoint {
        // Links that are read again are read to the end, or from the beginning.
        if let Some(from) = self.options.from.filter(|from| from.complete && !self.options.only_new && !complete) {
            return from.clone();
        }
        let mut walked = self.walked.clone();
        // Chains that this audit has not come to are as they were.
        let before = self.options.from.map_or(&[][..], |from| &from.walked);
        let rest = before.iter().filter(|before| !self.walked.iter().any(|now| now.slot == before.slot));
        walked.extend(rest.cloned());
        Checkpoint { ledger_id: *self.ledger_id, complete, walked }
    }

    /// Adds up what was walked.
    fn count(&mut self) {
        let report = &mut self.report;
        for walked in &self.walked {
            report.entries += walked.entries;
            report.captures += walked.captures;
            report.voids += walked.voids;
            report.refunds += walked.refunds;
            report.dropped += walked.dropped;
            for (asset, units) in &walked.charged {
                let charged = report.charged.entry(asset.clone()).or_default();
                *charged = charged.saturating_add(*units);
            }
        }
    }
}
