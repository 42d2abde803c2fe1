//! Witnesses: what a writer's chain says of rows that are not its own, so that they can't be changed or taken away unseen.
//!
//! A close, a step of a statement and a note of an archive are rows that no posting stands for and nothing recomputes. The
//! transaction that writes such a row appends an empty batch to its writer's chain, and the batch's column `outcomes` has:
//!
//! ```text
//! witnesses = FFFFFFFFFFFFFFFF ‖ (of 1 ‖ a 8 ‖ b 8 ‖ digest 32)*      integers big-endian, two's complement
//! digest    = SHA-256(of as column ‖ column ‖ column ‖ …)             columns as chains have them, see `chain.rs`
//! ```
//!
//! | of | the row | a | b | its columns |
//! |---|---|---|---|---|
//! | 1 | of `closes` | until | 0 | until, from_day, at_ms, heads, signature |
//! | 2 | of `statement_events`, a step that somebody took | number | i | number, i, state, at_ms, reason |
//! | 3 | of `archives` that drops evidence | slot | last_batch | all but done_seq: slot, last_batch, first_batch, first_seq, last_seq, at_ms, head_before, head, digest, state |
//! | 4 | of `archives` that drops rows | slot | last_batch | the same |
//!
//! Outcomes begin with a number that is not negative, so that the two can't be mistaken. The rows of `statements`, and the
//! events that a close makes itself, are what entries and the close say they must be: they need no witness.

use super::{
    chain::{Columns, Hash},
    close::Close,
};

/// What outcomes never begin with.
const MARK: [u8; 8] = [0xff; 8];
const RECORD_BYTES: usize = 49;

/// Which row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    /// A close.
    Close {
        /// The first day that it left open.
        until: i64,
    },
    /// A step of a statement.
    Event {
        /// Which statement.
        number: i64,
        /// Which of its events.
        i: i64,
    },
    /// A note that targets and evidence are dropped.
    Evidence {
        /// Whose.
        slot: i64,
        /// Up to this batch.
        last_batch: i64,
    },
    /// A note that rows are dropped.
    Rows {
        /// Whose.
        slot: i64,
        /// Up to this batch.
        last_batch: i64,
    },
}

/// A row and its digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Witness {
    /// Which row.
    pub of: Subject,
    /// Over its columns.
    pub digest: Hash,
}

impl Subject {
    /// Code and place, as the bytes have them.
    pub fn code(self) -> (u8, i64, i64) {
        match self {
            Subject::Close { until } => (1, until, 0),
            Subject::Event { number, i } => (2, number, i),
            Subject::Evidence { slot, last_batch } => (3, slot, last_batch),
            Subject::Rows { slot, last_batch } => (4, slot, last_batch),
        }
    }

    /// Reads [`Subject::code`].
    pub fn from_code(of: u8, a: i64, b: i64) -> Option<Subject> {
        Some(match (of, a, b) {
            (1, until, 0) => Subject::Close { until },
            (2, number, i) => Subject::Event { number, i },
            (3, slot, last_batch) => Subject::Evidence { slot, last_batch },
            (4, slot, last_batch) => Subject::Rows { slot, last_batch },
            _ => return None,
        })
    }

    fn begin(self) -> Columns {
        let mut columns = Columns::begin();
        columns.int(self.code().0.into());
        columns
    }
}

impl Witness {
    /// Of a close.
    pub fn of_close(close: &Close) -> Witness {
        let of = Subject::Close { until: close.until };
        let mut columns = of.begin();
        for number in [close.until, close.from_day, close.at_ms] {
            columns.int(number);
        }
        columns.bytes(&close.encode_heads());
        columns.maybe_bytes(close.signature.map(|by| by.encode()).as_ref().map(|bytes| &bytes[..]));
        Witness { of, digest: columns.finish() }
    }

    /// Of a step of a statement.
    pub fn of_event(number: i64, i: i64, state: &str, at_ms: i64, reason: Option<&str>) -> Witness {
        let of = Subject::Event { number, i };
        let mut columns = of.begin();
        columns.int(number);
        columns.int(i);
        columns.bytes(state.as_bytes());
        columns.int(at_ms);
        columns.maybe_bytes(reason.map(str::as_bytes));
        Witness { of, digest: columns.finish() }
    }

    /// Of a note of an archive.
    pub fn of_archive(of: Subject, numbers: [i64; 6], hashes: [&Hash; 3], state: &str) -> Witness {
        let mut columns = of.begin();
        numbers.into_iter().for_each(|number| columns.int(number));
        hashes.into_iter().for_each(|hash| columns.bytes(hash));
        columns.bytes(state.as_bytes());
        Witness { of, digest: columns.finish() }
    }
}

/// Whether a batch's column `outcomes` has witnesses instead.
pub fn are_in(bytes: &[u8]) -> bool {
    bytes.starts_with(&MARK)
}

/// Packs witnesses for a batch's row.
pub fn encode(witnesses: &[Witness]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(MARK.len() + witnesses.len() * RECORD_BYTES);
    bytes.extend_from_slice(&MARK);
    for witness in witnesses {
        let (of, a, b) = witness.of.code();
        bytes.push(of);
        bytes.extend_from_slice(&a.to_be_bytes());
        bytes.extend_from_slice(&b.to_be_bytes());
        bytes.extend_from_slice(&witness.digest);
    }
    bytes
}

/// Reads them back; `None` for any other shape.
pub fn decode(bytes: &[u8]) -> Option<Vec<Witness>> {
    let (records, rest) = bytes.strip_prefix(&MARK)?.as_chunks::<RECORD_BYTES>();
    if records.is_empty() || !rest.is_empty() {
        return None;
    }
    let read = |record: &[u8; RECORD_BYTES]| {
        let (of, rest) = record.split_first()?;
        let (a, rest) = rest.split_first_chunk::<8>()?;
        let (b, digest) = rest.split_first_chunk::<8>()?;
        let of = Subject::from_code(*of, i64::from_be_bytes(*a), i64::from_be_bytes(*b))?;
        Some(Witness { of, digest: digest.try_into().ok()? })
    };
    records.iter().map(read).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ledger::{close::HeadRecord, outcomes};

    #[test]
    fn every_column_is_covered() {
        let heads = vec![HeadRecord { slot: 1, seq: 7, batch_seq: 5, head: [0xaa; 32] }];
        let close = Close { from_day: 1, until: 2, at_ms: 3, heads, signature: None };
        let event = |state, at_ms, reason| Witness::of_event(1, 2, state, at_ms, reason);
        let archive = |of, numbers, state| Witness::of_archive(of, numbers, [&[1; 32], &[2; 32], &[3; 32]], state);
        let (evidence, rows) = (Subject::Evidence { slot: 1, last_batch: 2 }, Subject::Rows { slot: 1, last_batch: 2 });
        let all = [
            Witness::of_close(&close),
            Witness::of_close(&Close { from_day: 0, ..close.clone() }),
            Witness::of_close(&Close { at_ms: 4, ..close.clone() }),
            Witness::of_close(&Close { heads: Vec::new(), ..close }),
            event("sent", 1, Some("a")),
            event("paid", 1, Some("a")),
            event("sent", 2, Some("a")),
            event("sent", 1, Some("b")),
            event("sent", 1, None),
            archive(evidence, [1; 6], ""),
            archive(rows, [1; 6], ""),
            archive(rows, [2; 6], ""),
            archive(rows, [1; 6], "{}"),
        ];
        let digests: std::collections::BTreeSet<Hash> = all.iter().map(|witness| witness.digest).collect();
        assert_eq!(digests.len(), all.len());
    }

    proptest! {
        #[test]
        fn witnesses_read_back_and_no_bytes_panic(
            rows in proptest::collection::vec((1_u8..=4, any::<i64>(), any::<i64>(), any::<[u8; 32]>()), 1..8),
            tail in proptest::collection::vec(any::<u8>(), 0..120),
        ) {
            let witness = |(of, a, b, digest): (u8, i64, i64, Hash)| {
                Witness { of: Subject::from_code(of, a, if of == 1 { 0 } else { b }).unwrap(), digest }
            };
            let witnesses: Vec<Witness> = rows.into_iter().map(witness).collect();
            let bytes = encode(&witnesses);
            prop_assert!(are_in(&bytes));
            prop_assert_eq!(decode(&bytes), Some(witnesses));
            prop_assert_eq!(outcomes::decode(&bytes), Some(Vec::new()));
            let marked = [&MARK[..], &tail].concat();
            prop_assert_eq!(decode(&marked).is_some(), outcomes::decode(&marked).is_some());
            let _ = decode(&tail);
        }
    }
}
