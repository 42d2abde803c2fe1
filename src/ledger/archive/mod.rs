//! Archives: closed days in a file of their own, so that the ledger can let go of their evidence or their rows.
//!
//! ```text
//! {"schema":"tollgate.archive/1","ledger":"hex 16","zone":"UTC","until":"2026-12-01","made_ms":…}
//! {"entry":{…}} …  {"batch":{…}}          each batch after its entries, each writer after the one before
//! {"key":{…}} …                           the public keys of who signed
//! {"parts":[{…}],"seen":[[slot,seq]]}     for each writer what is in it, and the chain before and after
//! {"end":{"digest":"hex 32","signature":…}}
//! ```
//!
//! A line of JSON each. Entries are in full, their columns by their names; numbers of entries are text, since readers of JSON
//! round such numbers. `digest` is SHA-256 over the lines before; where the gateway has a key it signs `"tollgate archive 1\n" ‖
//! ledger_id 16 ‖ digest 32`.
//!
//! | step of `ledger archive --drop …` | a crash here leaves |
//! |---|---|
//! | `FILE.new` is written | a part of it, which the next one replaces; nothing dropped |
//! | it is on disk, and read back: chain, digests, sums | the same |
//! | renamed to FILE | a whole archive; nothing dropped. The same command finds it, and goes on |
//! | rows of `archives` are written, by the ledger's owner: from here on what they name counts as dropped | a whole archive; everything still there |
//! | the owner drops some thousand rows at a time | a whole archive; a part dropped. The same command, or any later one, drops the rest |
//!
//! What stays, whatever is asked for: postings above the replay floor or of the last 24 hours, which answers and clients may still
//! ask about; the last entry and the last two batches of a writer; everything from the first posting on whose payment is not settled,
//! whose answer is owed, or which has a refund or dispute without an end.

pub mod lines;
pub mod read;
pub(super) mod rows;
mod selection;
pub(super) mod store;
pub mod write;

pub use self::rows::ArchiveError;
use super::{audit::Walked, chain::Hash, entry::PostingKey};

/// The layout of files that this version makes.
pub const SCHEMA: &str = "tollgate.archive/1";

/// What the ledger lets go of once it is archived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drops {
    /// Nothing.
    Nothing,
    /// Targets and evidence: what is personal, and most of the bytes. The chain holds by their digests.
    Evidence,
    /// Entries and batches.
    Rows,
}

impl Drops {
    /// As the ledger keeps it.
    pub fn name(self) -> &'static str {
        match self {
            Drops::Nothing => "nothing",
            Drops::Evidence => "evidence",
            Drops::Rows => "rows",
        }
    }

    /// Reads a name.
    pub fn from_name(name: &str) -> Option<Drops> {
        [Drops::Nothing, Drops::Evidence, Drops::Rows].into_iter().find(|drops| drops.name() == name)
    }
}

/// What of a writer's chain is in an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// The writer.
    pub slot: i64,
    /// Its batches, from and to.
    pub batches: (i64, i64),
    /// Its entries, from and to; the second is less by one where there are none.
    pub seqs: (i64, i64),
    /// Time of the last batch.
    pub at_ms: i64,
    /// The head before, or the genesis.
    pub before: Hash,
    /// The last head.
    pub after: Hash,
    /// What the chain adds up to, from its beginning.
    pub state: Walked,
    /// Postings that later ones, which stay, are about.
    pub referred: Vec<Referred>,
}

/// A posting that is archived, and that one which is not builds on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Referred {
    /// Its number.
    pub n: i64,
    /// Its key.
    pub key: PostingKey,
    /// Its amount.
    pub amount: i64,
    /// The public price.
    pub list_amount: Option<i64>,
    /// Its scheme.
    pub scheme: String,
    /// Of a refund or dispute, what it is.
    pub status: Option<i64>,
}

/// What an archive says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Of which ledger.
    pub ledger_id: [u8; 16],
    /// The first day that is not in it.
    pub until: i64,
    /// What is in it.
    pub parts: Vec<Part>,
    /// Up to which entry each writer had posted when it was made.
    pub seen: Vec<(i64, i64)>,
    /// SHA-256 of the file without its last line.
    pub digest: Hash,
    /// By the gateway's key: thumbprint, signature.
    pub signature: Option<([u8; 32], [u8; 64])>,
}

impl Summary {
    /// Entries in it.
    pub fn entries(&self) -> i64 {
        self.parts.iter().map(|part| part.seqs.1 - part.seqs.0 + 1).sum()
    }

    /// What the gateway's key signs.
    pub fn signed_bytes(ledger_id: &[u8; 16], digest: &Hash) -> Vec<u8> {
        [&b"tollgate archive 1\n"[..], ledger_id, digest].concat()
    }
}
