//! The chain: each entry's hash covers the one before it, so a changed, missing or exchanged row shows.
//!
//! ```text
//! genesis     = SHA-256(ledger_id 16 ‖ slot 8)
//! entry hash  = SHA-256(previous 32 ‖ column ‖ column ‖ …)      previous: the last entry's hash, or the last batch's head
//! batch head  = SHA-256(last entry's hash 32 ‖ column ‖ …)      an empty batch follows the head before it
//! column      = length 4 ‖ bytes, or FFFFFFFF for null
//! ```
//!
//! Every integer is big-endian; a column of integers is 8 bytes, two's complement. The columns of an entry are those of the
//! table in its order, except that `target`, `target_salt`, `evidence` and `hash` are left out: their digests stand for
//! them, so that retention can drop them and the chain still holds. The columns of a batch are slot, batch_seq, n_first,
//! n_last, at_ms, outcomes. `tests/ledger/golden/chain.txt` is the reference.

use sha2::{Digest, Sha256};

use super::entry::Entry;

/// A SHA-256 link of the chain.
pub type Hash = [u8; 32];

/// What the first link of a writer's chain follows.
pub fn genesis(ledger_id: &[u8; 16], slot: i64) -> Hash {
    let mut hash = Sha256::new();
    hash.update(ledger_id);
    hash.update(slot.to_be_bytes());
    hash.finalize().into()
}

/// The link of an entry.
pub fn entry(previous: &Hash, entry: &Entry<'_>) -> Hash {
    let mut columns = Columns::after(previous);
    columns.int(entry.n);
    columns.bytes(entry.key.as_bytes());
    columns.int(entry.kind as i64);
    columns.int(entry.at_ms);
    columns.int(entry.wall_ms);
    columns.int(entry.book_day);
    columns.bytes(entry.account.as_bytes());
    columns.bytes(entry.agent.as_bytes());
    columns.maybe_bytes(entry.agent_key.map(str::as_bytes));
    columns.bytes(entry.route.as_bytes());
    columns.bytes(entry.scheme.as_bytes());
    columns.bytes(entry.asset.as_bytes());
    columns.int(entry.amount);
    columns.maybe_int(entry.list_amount);
    columns.int(entry.period);
    columns.maybe_bytes(entry.table_hash);
    columns.maybe_int(entry.status);
    columns.maybe_int(entry.ref_n);
    columns.maybe_bytes(entry.method.map(str::as_bytes));
    columns.maybe_bytes(entry.target_digest);
    columns.maybe_bytes(entry.evidence_digest);
    columns.finish()
}

/// A row of `batches` without its head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Batch<'a> {
    /// The writer.
    pub slot: i64,
    /// Dense from 1.
    pub batch_seq: i64,
    /// First entry; `None` in a batch that only carries outcomes.
    pub n_first: Option<i64>,
    /// Last entry.
    pub n_last: Option<i64>,
    /// Posting time.
    pub at_ms: i64,
    /// [`super::outcomes`].
    pub outcomes: Option<&'a [u8]>,
}

/// The link of a batch, after its entries.
pub fn batch(previous: &Hash, batch: &Batch<'_>) -> Hash {
    let mut columns = Columns::after(previous);
    columns.int(batch.slot);
    columns.int(batch.batch_seq);
    columns.maybe_int(batch.n_first);
    columns.maybe_int(batch.n_last);
    columns.int(batch.at_ms);
    columns.maybe_bytes(batch.outcomes);
    columns.finish()
}

/// SHA-256(salt ‖ target).
pub fn target_digest(salt: &[u8], target: &str) -> Hash {
    let mut hash = Sha256::new();
    hash.update(salt);
    hash.update(target.as_bytes());
    hash.finalize().into()
}

/// SHA-256(evidence).
pub fn evidence_digest(evidence: &[u8]) -> Hash {
    Sha256::digest(evidence).into()
}

/// Feeds columns to the hash, each with its length.
pub(super) struct Columns(Sha256);

impl Columns {
    /// Columns that nothing stands before.
    pub(super) fn begin() -> Columns {
        Columns(Sha256::new())
    }

    fn after(previous: &Hash) -> Columns {
        let mut hash = Sha256::new();
        hash.update(previous);
        Columns(hash)
    }

    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        // No column is near 4 GiB: the store refuses rows over about 100 KiB.
        self.0.update((bytes.len() as u32).to_be_bytes());
        self.0.update(bytes);
    }

    pub(super) fn int(&mut self, value: i64) {
        self.bytes(&value.to_be_bytes());
    }

    pub(super) fn maybe_bytes(&mut self, bytes: Option<&[u8]>) {
        match bytes {
            Some(bytes) => self.bytes(bytes),
            None => self.0.update(u32::MAX.to_be_bytes()),
        }
    }

    fn maybe_int(&mut self, value: Option<i64>) {
        self.maybe_bytes(value.map(i64::to_be_bytes).as_ref().map(|b| &b[..]));
    }

    pub(super) fn finish(self) -> Hash {
        self.0.finalize().into()
    }
}
