//! What is known of a writer's chain up to one of its batches: where it stands, and everything that its entries add up to.

use std::collections::{BTreeMap, BTreeSet};

use super::{Place, Stop, finding, hex};
use crate::ledger::{
    chain::{Batch, Hash},
    entry::{Entry, Kind},
    evidence, outcomes,
    rollup::{self, RollupKey, Rollups},
    top_up,
    witness::{self, Subject},
};

/// A chain up to the end of a batch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Walked {
    /// The writer.
    pub slot: i64,
    /// The last batch; 0 before the first.
    pub batch_seq: i64,
    /// Its last entry's sequence number, or that of an earlier batch.
    pub seq: i64,
    /// Its time.
    pub at_ms: i64,
    /// Its head, or the genesis.
    pub head: Hash,
    /// Entries.
    pub entries: u64,
    /// Captures among them.
    pub captures: u64,
    /// Voids among them.
    pub voids: u64,
    /// Refunds, less those that failed.
    pub refunds: i64,
    /// Entries of which retention has dropped something.
    pub dropped: u64,
    /// Captured less voided and refunded of each asset.
    pub charged: BTreeMap<String, i64>,
    pub(super) rollups: Rollups<String>,
    /// Account, asset, period.
    pub(super) used: BTreeMap<(String, String, i64), i64>,
    /// Captures whose outcome has not been met.
    pub(super) open: BTreeSet<i64>,
    /// Captures that were voided, by what.
    pub(super) voided: BTreeMap<i64, i64>,
    /// Captures of which a later posting says what became of their answer.
    pub(super) told: BTreeSet<i64>,
    /// What of a capture was given back.
    pub(super) refunded: BTreeMap<i64, i64>,
    /// Who signed, and with which key.
    pub(super) signers: BTreeSet<(String, String)>,
    /// How many requests each pass has, 0 for any number, by the entry that bought it.
    pub(super) passes: BTreeMap<i64, i64>,
    /// Templates that something was sold under, by digest, each with the first such entry.
    pub(super) templates: BTreeMap<Hash, i64>,
    /// Rows that are not its own, by their digests.
    pub(super) witnesses: BTreeMap<Subject, Hash>,
}

impl Walked {
    /// A chain before its first batch.
    pub(in crate::ledger) fn begin(slot: i64, genesis: Hash) -> Walked {
        Walked { slot, head: genesis, ..Walked::default() }
    }

    /// Whether captures of it are signed with this key of this agent.
    pub(in crate::ledger) fn has_signer(&self, thumbprint: &str, agent: &str) -> bool {
        self.signers.contains(&(thumbprint.to_owned(), agent.to_owned()))
    }

    /// The last day on which something was charged or given back.
    pub(in crate::ledger) fn last_day(&self) -> Option<i64> {
        self.rollups.iter().map(|(key, _)| key.book_day).max()
    }

    /// Whether an archive that says `other` of the same entries is right: earlier versions did not note the templates.
    pub(in crate::ledger) fn is_as_noted(&self, other: &Walked) -> bool {
        if !other.templates.is_empty() {
            return self == other;
        }
        Walked { templates: BTreeMap::new(), ..self.clone() } == *other
    }

    /// Adds an entry.
    pub(in crate::ledger) fn count(&mut self, entry: &Entry<'_>) -> Result<(), Stop> {
        self.entries += 1;
        let dropped = |kept: Option<&[u8]>, digest: Option<&[u8]>| kept.is_none() && digest.is_some();
        // A salt without a target: only its digest was kept from the start.
        if dropped(entry.target.map(str::as_bytes).or(entry.target_salt), entry.target_digest)
            || dropped(entry.evidence, entry.evidence_digest)
        {
            self.dropped += 1;
        }
        if let Some(digest) = entry.evidence.and_then(evidence::template_digest) {
            self.templates.entry(digest).or_insert(entry.n);
        }
        let change = match entry.kind {
            Kind::Capture => {
                self.captures += 1;
                self.open.insert(entry.n);
                if let Some(key) = entry.agent_key.filter(|_| entry.evidence_digest.is_some()) {
                    self.signers.insert((key.to_owned(), entry.agent.to_owned()));
                }
                entry.amount
            }
            Kind::Void => {
                self.voids += 1;
                if let Some(other) = self.voided.insert(entry.ref_n.unwrap_or_default(), entry.n) {
                    let expected = format!("only entry {other}");
                    return Err(finding(Place::Entry(entry.n), "voids of one capture", expected, "a second one"));
                }
                -entry.amount
            }
            Kind::Topup => top_up::change(entry),
            Kind::Pass => {
                let n = entry.n - 1;
                if entry.ref_n != Some(n) || !self.open.contains(&n) {
                    let expected = format!("entry {n}, the capture before it");
                    return Err(finding(
                        Place::Entry(entry.n),
                        "what bought it",
                        expected,
                        format!("{:?}", entry.ref_n),
                    ));
                }
                self.passes.insert(n, entry.amount);
                0
            }
            _ => 0,
        };
        if matches!(entry.kind, Kind::Void | Kind::Owed | Kind::Redelivered) {
            self.told.extend(entry.ref_n);
        }
        if let Some(change) = rollup::change(entry) {
            self.rollups.add(RollupKey::of(entry).to_owned(), change);
            let charged = self.charged.entry(entry.asset.to_owned()).or_default();
            if change.kind == Kind::Capture {
                *charged = charged.saturating_add(change.amount);
            } else {
                *charged = charged.saturating_sub(change.amount);
            }
            if change.kind == Kind::Refund {
                self.refunds += change.count;
                let refunded = self.refunded.entry(entry.ref_n.unwrap_or_default()).or_default();
                *refunded = refunded.saturating_add(change.amount);
            }
        }
        if matches!(entry.kind, Kind::Capture | Kind::Void | Kind::Topup) {
            let key = (entry.account.to_owned(), entry.asset.to_owned(), entry.period);
            let used = self.used.entry(key).or_default();
            *used = used.saturating_add(change);
        }
        Ok(())
    }

    /// Ends a batch: its outcomes are each of an earlier capture, its witnesses each of another row, and the chain stands at its
    /// head.
    pub(in crate::ledger) fn end(&mut self, batch: &Batch<'_>, seq: i64, head: Hash) -> Result<(), Stop> {
        let place = Place::Batch { slot: batch.slot, batch_seq: batch.batch_seq };
        if let Some(bytes) = batch.outcomes.filter(|bytes| witness::are_in(bytes)) {
            let Some(witnesses) = witness::decode(bytes) else {
                return Err(finding(place, "its witnesses", "records of 49 bytes", hex(bytes)));
            };
            for witness in witnesses {
                if self.witnesses.insert(witness.of, witness.digest).is_some() {
                    let found = format!("a second one of {:?}", witness.of);
                    return Err(finding(place, "its witnesses", "one of each row", found));
                }
            }
        } else if let Some(bytes) = batch.outcomes {
            let Some(records) = outcomes::decode(bytes) else {
                return Err(finding(place, "its outcomes", "records of 16 bytes", hex(bytes)));
            };
            for record in records {
                if !self.open.remove(&record.n) {
                    let found = format!("one for entry {}", record.n);
                    return Err(finding(place, "its outcomes", "one for each earlier capture", found));
                }
            }
        }
        (self.batch_seq, self.seq, self.at_ms, self.head) = (batch.batch_seq, seq, batch.at_ms, head);
        Ok(())
    }
}
