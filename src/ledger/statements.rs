//! Statements: what an account owes of an asset for the days of one close, and what became of it.
//!
//! ```text
//! closed ──► sent ──► paid                what moved on a chain when it was bought is paid from the start
//!             │ ▲
//!             ▼ │
//!          disputed ──► paid
//! ```
//!
//! Numbers are dense from 1. Rows never change; each step is an event with its time and reason, posted by the writer in one
//! transaction that reads the state first: of two steps at once the second is held against what the first has made of it. The
//! same transaction appends the event's digest to the writer's chain ([`super::witness`]). A crash leaves both or neither;
//! whoever was not told looks.

use super::{
    batch::{BatchError, sort},
    books::{Books, int},
    chain::Hash,
    close::Close,
    closing::{CLOSE_COLUMNS, read_close},
    entry::Kind,
    read::{LedgerReader, ReadError},
    sql::{Begin, Row, Session, SqlError, SqlResult, params},
    store::Unavailable,
    witness::Witness,
    witnessed,
};
use crate::wire::amount::Asset;

/// Why a statement of transfers is paid from the start. It stands in ledgers, and audits look for it.
const PAID_AT_ONCE: &str = "settled on chain when it was bought";
/// The same of what was paid in beforehand, and of requests without charge.
const PAID_BEFORE: &str = "taken from the account's balance";
const NOT_CHARGED: &str = "given by an allowance or a pass";

/// Why a statement of this is paid from the start, where it is; `at_once` if all of it moved when it was bought.
pub(super) fn why_paid(asset: &str, at_once: bool) -> Option<&'static str> {
    match Asset::parse(asset) {
        Some(Asset::Prepaid(_)) => Some(PAID_BEFORE),
        Some(Asset::Requests) => Some(NOT_CHARGED),
        _ => at_once.then_some(PAID_AT_ONCE),
    }
}

/// Longest reason that is kept, bytes.
pub const REASON_BYTES_MAX: usize = 500;

/// What became of a statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StatementState {
    /// Made, final.
    Closed,
    /// The account has it.
    Sent,
    /// Paid.
    Paid,
    /// The account contests it.
    Disputed,
}

impl StatementState {
    /// All of them.
    pub const ALL: [StatementState; 4] =
        [StatementState::Closed, StatementState::Sent, StatementState::Paid, StatementState::Disputed];

    /// As the ledger keeps it.
    pub fn name(self) -> &'static str {
        match self {
            StatementState::Closed => "closed",
            StatementState::Sent => "sent",
            StatementState::Paid => "paid",
            StatementState::Disputed => "disputed",
        }
    }

    /// Reads a name.
    pub fn from_name(name: &str) -> Option<StatementState> {
        StatementState::ALL.into_iter().find(|state| state.name() == name)
    }

    /// What may follow.
    pub fn next(self) -> &'static [StatementState] {
        match self {
            StatementState::Closed => &[StatementState::Sent],
            StatementState::Sent => &[StatementState::Paid, StatementState::Disputed],
            StatementState::Disputed => &[StatementState::Sent, StatementState::Paid],
            StatementState::Paid => &[],
        }
    }
}

/// A step that an operator takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// Which statement.
    pub number: i64,
    /// What it becomes.
    pub state: StatementState,
    /// For whoever reads the books later; 1 to [`REASON_BYTES_MAX`] bytes of text.
    pub reason: String,
}

/// Why a step is not taken; nothing has changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MarkError {
    /// No such statement.
    #[error("no statement {0}; `tollgate ledger statements` lists them")]
    NoStatement(i64),
    /// The reason is not what is kept.
    #[error("the reason must be a line of 1 to {REASON_BYTES_MAX} bytes of text")]
    Reason,
    /// Not from where it is.
    #[error("statement {number} is {}: {}", from.name(), allowed(*from))]
    NotAllowed {
        /// Which.
        number: i64,
        /// What it is.
        from: StatementState,
    },
    /// The file refused it.
    #[error("the statement could not be marked: {0}")]
    Refused(String),
    /// The ledger is closed, or its disk failed: the statement itself tells whether it is marked.
    #[error("{0}; look at the statement before you mark it again")]
    Unavailable(Unavailable),
}

fn allowed(from: StatementState) -> String {
    let names: Vec<&str> = from.next().iter().map(|state| state.name()).collect();
    if names.is_empty() { "that is its end".to_owned() } else { format!("it can become {}", names.join(" or ")) }
}

impl Books {
    /// Adds an event to a statement.
    pub(super) fn mark(&mut self, mark: &Mark, now_ms: u64) -> Result<Result<(), MarkError>, BatchError> {
        let reason = mark.reason.trim();
        if !is_reason(reason) {
            return Ok(Err(MarkError::Reason));
        }
        let faults = self.faults.clone();
        let transaction = self.connection.begin(Begin::Write).map_err(sort)?;
        let mut head = witnessed::own_head(&transaction, self.slot, self.lease, &self.head)?;
        let number = mark.number;
        let Some((i, from, at_ms)) = last_event(&transaction, number).map_err(sort)? else {
            return Ok(Err(MarkError::NoStatement(number)));
        };
        if !from.next().contains(&mark.state) {
            return Ok(Err(MarkError::NotAllowed { number, from }));
        }
        let (i, at_ms) = (i + 1, at_ms.max(int(now_ms)));
        insert_event(&transaction, number, i, mark.state, at_ms, Some(reason)).map_err(sort)?;
        head.at_ms = head.at_ms.max(int(now_ms));
        let witness = Witness::of_event(number, i, mark.state.name(), at_ms, Some(reason));
        witnessed::append(&transaction, self.slot, &mut head, &[witness]).map_err(sort)?;
        witnessed::commit(transaction, head, (&mut self.head, &mut self.attempted), &*faults)?;
        Ok(Ok(()))
    }
}

/// Whether it is a line that says something, of the length that is kept.
pub(super) fn is_reason(reason: &str) -> bool {
    (1..=REASON_BYTES_MAX).contains(&reason.len()) && !reason.contains(char::is_control)
}

/// The last event of a statement: its place, state and time.
fn last_event(connection: &Session, number: i64) -> SqlResult<Option<(i64, StatementState, i64)>> {
    let last = "SELECT i, state, at_ms FROM statement_events WHERE number = ?1 ORDER BY i DESC LIMIT 1";
    connection.first(last, params![number], |row| Ok((row.get(0)?, state(row, 1)?, row.get(2)?)))
}

/// A row of `statements`, with its days and its last event. Amounts are ledger units.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement {
    /// From 1.
    pub number: i64,
    /// Who owes.
    pub account: String,
    /// `USD`, or a token's CAIP-19 name.
    pub asset: String,
    /// The first day.
    pub from_day: i64,
    /// The day after the last.
    pub until: i64,
    /// When the days were closed, Unix ms.
    pub closed_ms: i64,
    /// What was captured.
    pub gross: i64,
    /// What was given back: voids and refunds posted in these days, of earlier captures too; negative where more refunds of
    /// earlier days failed.
    pub corrections: i64,
    /// `gross` less `corrections`; negative where more was given back than bought.
    pub total: i64,
    /// Where the chain stood, see [`super::close::Close::head`].
    pub head: Hash,
    /// What became of it.
    pub state: StatementState,
}

/// A row of `statement_events`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatementEvent {
    /// What it became.
    pub state: StatementState,
    /// When, Unix ms.
    pub at_ms: i64,
    /// Why.
    pub reason: Option<String>,
}

/// A statement in full.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatementSheet {
    /// What every listing has.
    pub statement: Statement,
    /// What was bought, by day and route.
    pub captures: Vec<StatementLine>,
    /// What was given back, by day, route and kind.
    pub corrections: Vec<StatementLine>,
    /// All that became of it, oldest first.
    pub events: Vec<StatementEvent>,
    /// Thumbprint of the key that signed the close.
    pub signer: Option<[u8; 32]>,
}

/// A line of a statement: some postings of a day.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatementLine {
    /// When they were posted.
    pub day: i64,
    /// For what.
    pub route: String,
    /// [`Kind::Capture`], [`Kind::Void`] or [`Kind::Refund`].
    pub kind: Kind,
    /// How many.
    pub count: i64,
    /// What they add to the total, ledger units: less than zero for corrections.
    pub amount: i64,
}

pub(super) fn insert_event(
    connection: &Session,
    number: i64,
    i: i64,
    state: StatementState,
    at_ms: i64,
    reason: Option<&str>,
) -> SqlResult<()> {
    let insert = "INSERT INTO statement_events (number, i, state, at_ms, reason) VALUES (?1, ?2, ?3, ?4, ?5)";
    connection.execute(insert, params![number, i, state.name(), at_ms, reason])?;
    Ok(())
}

fn state(row: &Row<'_>, column: usize) -> SqlResult<StatementState> {
    let name: &str = row.get(column)?;
    StatementState::from_name(name).ok_or_else(|| SqlError::shape(format!("`{name}` is no state of a statement")))
}

impl LedgerReader {
    /// The close that left `until` open; `None` when there is none.
    ///
    /// # Errors
    /// [`ReadError::Sql`].
    pub fn close(&self, until: i64) -> Result<Option<Close>, ReadError> {
        let find = format!("SELECT {CLOSE_COLUMNS} FROM closes WHERE until = ?1");
        Ok(self.connection.first(&find, params![until], read_close)?)
    }

    /// Statements in order of their numbers, of one account or all.
    ///
    /// # Errors
    /// [`ReadError::Sql`].
    pub fn statements(&self, account: Option<&str>) -> Result<Vec<Statement>, ReadError> {
        Ok(select(&self.connection, account, None)?)
    }

    /// One statement in full; `None` when there is none of this number.
    ///
    /// # Errors
    /// [`ReadError::Sql`].
    pub fn statement(&self, number: i64) -> Result<Option<StatementSheet>, ReadError> {
        let transaction = self.connection.begin(Begin::Read)?;
        let Some(statement) = select(&transaction, None, Some(number))?.pop() else { return Ok(None) };
        let (captures, corrections) = lines(&transaction, &statement)?;
        let events = "SELECT state, at_ms, reason FROM statement_events WHERE number = ?1 ORDER BY i";
        let event =
            |row: &Row<'_>| Ok(StatementEvent { state: state(row, 0)?, at_ms: row.get(1)?, reason: row.get(2)? });
        let events = transaction.all(events, params![number], event)?;
        let signer = self.close(statement.until)?.and_then(|close| close.signature).map(|by| by.thumbprint);
        Ok(Some(StatementSheet { statement, captures, corrections, events, signer }))
    }
}

/// The latest statements of an account, latest first.
pub(super) fn latest(connection: &Session, account: &str, most: i64) -> SqlResult<Vec<Statement>> {
    connection.all(&select_of("s.account = ?1 ORDER BY s.number DESC LIMIT ?2"), params![account, most], read)
}

fn select(connection: &Session, account: Option<&str>, number: Option<i64>) -> SqlResult<Vec<Statement>> {
    let which = "(CAST(?1 AS TEXT) IS NULL OR s.account = ?1) AND (CAST(?2 AS BIGINT) IS NULL OR s.number = ?2) \
                 ORDER BY s.number";
    connection.all(&select_of(which), params![account, number], read)
}

fn select_of(which: &str) -> String {
    format!(
        "SELECT s.number, s.account, s.asset, c.from_day, s.until, c.at_ms, s.gross, s.corrections, s.total, s.head, \
             e.state FROM statements s JOIN closes c ON c.until = s.until \
             JOIN statement_events e ON e.number = s.number \
             AND e.i = (SELECT max(i) FROM statement_events WHERE number = s.number) WHERE {which}"
    )
}

fn read(row: &Row<'_>) -> SqlResult<Statement> {
    Ok(Statement {
        number: row.get(0)?,
        account: row.get(1)?,
        asset: row.get(2)?,
        from_day: row.get(3)?,
        until: row.get(4)?,
        closed_ms: row.get(5)?,
        gross: row.get(6)?,
        corrections: row.get(7)?,
        total: row.get(8)?,
        head: row.get(9)?,
        state: state(row, 10)?,
    })
}

/// What was bought, and what was given back, from the roll-ups of a statement's days.
fn lines(connection: &Session, statement: &Statement) -> SqlResult<(Vec<StatementLine>, Vec<StatementLine>)> {
    let mut sums = connection.prepare(
        "SELECT book_day, route, CAST(SUM(captures) AS BIGINT), CAST(SUM(captured) AS BIGINT), \
         CAST(SUM(voids) AS BIGINT), CAST(SUM(voided) AS BIGINT), CAST(SUM(refunds) AS BIGINT), CAST(SUM(refunded) AS BIGINT) \
         FROM rollups WHERE book_day >= ?1 AND book_day < ?2 AND account = ?3 AND asset = ?4 \
         GROUP BY book_day, route ORDER BY book_day, route",
    )?;
    let mut rows = sums.query(params![statement.from_day, statement.until, &statement.account, &statement.asset])?;
    let (mut captures, mut corrections) = (Vec::new(), Vec::new());
    while let Some(row) = rows.next()? {
        for (kind, column, sign) in [(Kind::Capture, 2, 1), (Kind::Void, 4, -1), (Kind::Refund, 6, -1)] {
            let (count, sum): (i64, i64) = (row.get(column)?, row.get(column + 1)?);
            let line = StatementLine { day: row.get(0)?, route: row.get(1)?, kind, count, amount: sign * sum };
            match kind {
                _ if (count, sum) == (0, 0) => {}
                Kind::Capture => captures.push(line),
                _ => corrections.push(line),
            }
        }
    }
    Ok((captures, corrections))
}
