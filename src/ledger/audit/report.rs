//! What an audit tells, and how it stops.

use std::{collections::BTreeMap, fmt};

use crate::ledger::{chain::Hash, day::day_text, sql::SqlError};

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
    /// Archives that were audited with the books.
    pub archives: u64,
    /// Entries that are in archives and not in the ledger any more; counted above.
    pub archived: u64,
    /// Those whose archive was not there to be audited.
    pub trusted: u64,
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
    /// The row of `book`.
    Book,
    /// A row of `keys`, by its key.
    Key(String),
    /// A row of `terms`, by its digest.
    Terms(String),
    /// A row of `claims`, by its payment.
    Claim(String),
    /// An archive, by its file or its row.
    Archive(String),
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
            Place::Book => f.write_str("the book's row"),
            Place::Key(key) => write!(f, "key {key}"),
            Place::Terms(digest) => write!(f, "terms {digest}"),
            Place::Claim(payment) => write!(f, "claim of payment {payment}"),
            Place::Archive(which) => write!(f, "archive {which}"),
            Place::File => f.write_str("the file"),
        }
    }
}

/// Why an audit does not go on.
pub(in crate::ledger) enum Stop {
    Finding(Box<Finding>),
    Sql(SqlError),
}

impl From<SqlError> for Stop {
    fn from(error: SqlError) -> Stop {
        Stop::Sql(error)
    }
}

pub(super) fn same<T: PartialEq + fmt::Display>(
    place: Place,
    what: &'static str,
    expected: T,
    found: T,
) -> Result<(), Stop> {
    if expected == found { Ok(()) } else { Err(finding(place, what, expected, found)) }
}

pub(super) fn same_hash(place: Place, what: &'static str, expected: &[u8], found: &[u8]) -> Result<(), Stop> {
    if expected == found { Ok(()) } else { Err(finding(place, what, hex(expected), hex(found))) }
}

pub(super) fn finding(place: Place, what: &'static str, expected: impl fmt::Display, found: impl fmt::Display) -> Stop {
    Stop::Finding(Box::new(Finding { place, what, expected: expected.to_string(), found: found.to_string() }))
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
