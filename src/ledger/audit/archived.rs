//! What archives have taken over: their rows hold with the chains that go on, and with the files that are named.

use std::collections::{BTreeMap, HashMap};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

use super::{Audit, Place, Stop, closes::Passed, finding, hex, same, same_hash};
use crate::ledger::{
    archive::{
        ArchiveError, Drops, Part, Referred, Summary,
        read::{Item, verify},
        rows::{self, Kept},
    },
    chain::{self, Hash},
    close::Close,
    entry::{EntryNumber, PostingKey},
    sql::params,
};

/// What is known of dropped rows.
#[derive(Default)]
pub(super) struct Gone {
    pub(super) kept: Vec<Kept>,
    /// Postings that are dropped, and that others build on.
    pub(super) referred: HashMap<PostingKey, Referred>,
}

impl Gone {
    /// The end of what was dropped of a writer.
    pub(super) fn of(&self, slot: i64) -> Option<&Part> {
        let rows = self.kept.iter().filter(|kept| kept.drops == Drops::Rows && kept.part.slot == slot);
        rows.max_by_key(|kept| kept.part.batches.1).map(|kept| &kept.part)
    }

    /// Whether an archive was noted that took over what is personal of this entry.
    pub(super) fn lets_go(&self, n: i64) -> bool {
        let at = EntryNumber::from_n(n);
        let mut evidence = self.kept.iter().filter(|kept| kept.drops == Drops::Evidence && kept.part.slot == at.slot);
        evidence.any(|kept| (kept.part.seqs.0..=kept.part.seqs.1).contains(&at.seq))
    }

    /// Of all writers.
    pub(super) fn parts(&self) -> BTreeMap<i64, &Part> {
        let slots = self.kept.iter().map(|kept| kept.part.slot);
        slots.filter_map(|slot| Some((slot, self.of(slot)?))).collect()
    }
}

impl Audit<'_> {
    /// Reads the rows, checks what they say of each other, and the files.
    pub(super) fn archives(&mut self, closes: &[Close]) -> Result<(), Stop> {
        self.place = Place::Archive("first".to_owned());
        let kept = rows::all(self.connection)?;
        for one in &kept {
            self.row(one, &kept)?;
        }
        let files = self.options.archives;
        let mut seen: Vec<Hash> = Vec::new();
        for file in files {
            let place = Place::Archive(file.display().to_string());
            self.place = place.clone();
            let mut passed: HashMap<i64, Passed> = HashMap::new();
            let start = |slot: i64, first: i64| {
                let before = kept.iter().find(|kept| kept.part.slot == slot && kept.part.batches.1 + 1 == first);
                before.map(|kept| kept.part.state.clone())
            };
            let mut wrong = None;
            let summary = verify(file, start, |item| {
                let Item::Batch(line, walked) = item else { return Ok(()) };
                let slot = walked.slot;
                let of = passed.entry(slot).or_insert_with(|| {
                    let mut of = Passed::new(closes, slot);
                    of.skip(walked.batch_seq);
                    of
                });
                if let Err(stop) = of.batch(walked.batch_seq, walked.seq, &line.head, line.batch().at_ms) {
                    wrong.get_or_insert(stop);
                }
                Ok(())
            });
            let summary = match summary {
                Ok(summary) => summary,
                Err(ArchiveError::Sql(error)) => return Err(error.into()),
                Err(error) => return Err(finding(place, "the archive", "whole", error)),
            };
            if let Some(stop) = wrong {
                return Err(stop);
            }
            self.file(&summary, &kept, place)?;
            self.report.archives += 1;
            seen.push(summary.digest);
        }
        for one in kept.iter().filter(|kept| kept.drops == Drops::Rows) {
            let entries = (one.part.seqs.1 - one.part.seqs.0 + 1).unsigned_abs();
            self.report.archived += entries;
            if !seen.contains(&one.digest) {
                self.report.trusted += entries;
            }
            for posting in &one.part.referred {
                self.gone.referred.insert(posting.key, posting.clone());
            }
        }
        self.gone.kept = kept;
        Ok(())
    }

    /// A row follows the one before, and its end is in the chain, where that is still there.
    fn row(&self, one: &Kept, all: &[Kept]) -> Result<(), Stop> {
        let part = &one.part;
        let place = Place::Archive(format!("row of writer {}, up to batch {}", part.slot, part.batches.1));
        let before = all.iter().filter(|kept| {
            kept.part.slot == part.slot
                && kept.part.batches.1 < part.batches.0
                && (one.drops == Drops::Evidence || kept.drops == Drops::Rows)
        });
        let before = before.max_by_key(|kept| kept.part.batches.1).map(|kept| &kept.part);
        let genesis = chain::genesis(self.ledger_id, part.slot);
        let (batch, seq, head) = before.map_or((0, 0, genesis), |part| (part.batches.1, part.seqs.1, part.after));
        same(place.clone(), "its first batch", batch + 1, part.batches.0)?;
        same(place.clone(), "its first entry", seq + 1, part.seqs.0)?;
        same_hash(place.clone(), "the head before it", &head, &part.before)?;
        if part.batches.1 < part.batches.0 || part.seqs.1 < part.seqs.0 - 1 {
            return Err(finding(place, "its last batch and entry", "after its first", format!("{:?}", part.batches)));
        }
        let state = &part.state;
        let found = (state.slot, state.batch_seq, state.seq, state.at_ms);
        let expected = (part.slot, part.batches.1, part.seqs.1, part.at_ms);
        same(place.clone(), "where its state stands", format!("{expected:?}"), format!("{found:?}"))?;
        same_hash(place.clone(), "the head of its state", &part.after, &state.head)?;
        if !(part.seqs.0 - 1..=part.seqs.1).contains(&one.done_seq) {
            let expected = format!("{} to {}", part.seqs.0 - 1, part.seqs.1);
            return Err(finding(place, "how much is dropped", expected, one.done_seq));
        }
        self.in_chain(part, place)
    }

    fn in_chain(&self, part: &Part, place: Place) -> Result<(), Stop> {
        let head = "SELECT head FROM batches WHERE slot = ?1 AND batch_seq = ?2";
        let found: Option<Hash> = self.connection.first(head, params![part.slot, part.batches.1], |row| row.get(0))?;
        match found {
            Some(found) => same_hash(place, "its last head, in the ledger's chain", &found, &part.after),
            None => Ok(()),
        }
    }

    /// A file is of this ledger, signed by whom it says, and what the ledger says that it is.
    fn file(&mut self, summary: &Summary, kept: &[Kept], place: Place) -> Result<(), Stop> {
        same(place.clone(), "its ledger", hex(self.ledger_id), hex(&summary.ledger_id))?;
        if let (Some((thumbprint, signature)), false) = (&summary.signature, self.options.keys.is_empty()) {
            let name = URL_SAFE_NO_PAD.encode(thumbprint);
            let Some(key) = self.options.keys.iter().find(|key| key.thumbprint() == name) else {
                return Err(finding(place, "the key that signed it", "one that is named", name));
            };
            if !key.verifies(&Summary::signed_bytes(self.ledger_id, &summary.digest), signature) {
                return Err(finding(place, "its signature", format!("one of {name} over it"), "another"));
            }
        }
        for part in &summary.parts {
            match kept.iter().find(|kept| kept.digest == summary.digest && kept.part.slot == part.slot) {
                Some(kept) => {
                    let place = || place.clone();
                    same(place(), "its batches", format!("{:?}", kept.part.batches), format!("{:?}", part.batches))?;
                    same_hash(place(), "its last head", &kept.part.after, &part.after)?;
                    same(place(), "what it adds up to", true, kept.part.state == part.state)?;
                    same(place(), "what others build on", true, kept.part.referred == part.referred)?;
                }
                // Nothing was dropped for it, so what it has is in the chain.
                None => {
                    let find = "SELECT 1 FROM batches WHERE slot = ?1 AND batch_seq = ?2";
                    let there = self.connection.first(find, params![part.slot, part.batches.1], |_| Ok(()))?;
                    if there.is_none() {
                        let found = hex(&summary.digest);
                        return Err(finding(place, "its digest", "one that the ledger was told of", found));
                    }
                    self.in_chain(part, place.clone())?;
                }
            }
        }
        Ok(())
    }

    /// Rows that are still there although an archive has taken them over.
    pub(super) fn left_over(&self) -> Result<i64, Stop> {
        let mut left = 0;
        for (slot, part) in self.gone.parts() {
            let n = |seq: i64| EntryNumber { slot, seq }.n();
            let count = "SELECT count(*) FROM entries WHERE n > ?1 AND n <= ?2";
            left += self.connection.cell::<i64>(count, params![n(0), n(part.seqs.1)])?;
        }
        Ok(left)
    }
}
