//! Listings: entries of all writers, newest first, each capture with what became of it.
//!
//! Each writer's chain is read backwards, a page at a time; of the entries at their ends the latest by posting time is next. So
//! memory holds a page for each writer, whatever there is to list.

use std::collections::{HashMap, HashSet, VecDeque};

use super::{
    correction,
    entry::{Entry, EntryNumber, Kind, PostingKey},
    outcomes::{self, Record},
    read::{Fate, Filter, LedgerReader, Listed, ReadError},
    rows,
    sql::{Begin, Session, SqlResult, Value, params},
    top_up,
};

/// Entries, and batches, that a page has.
const PAGE: i64 = 256;

impl LedgerReader {
    /// Entries, newest first.
    ///
    /// # Errors
    /// [`ReadError::Sql`].
    pub fn list(&self, filter: &Filter) -> Result<Vec<Listed>, ReadError> {
        let transaction = self.connection.begin(Begin::Read)?;
        let slots: Vec<i64> = transaction.all("SELECT slot FROM writers", &[], |row| row.get(0))?;
        let mut tails = Vec::with_capacity(slots.len());
        for slot in slots {
            let mut tail = Tail::of(slot);
            tail.fill(&transaction)?;
            tails.push(tail);
        }
        let since_ms = filter.since_ms.map_or(i64::MIN, |ms| i64::try_from(ms).unwrap_or(i64::MAX));
        let mut found = Vec::new();
        let mut later = Later::default();
        let mut waiting: Vec<Met> = Vec::new();
        while found.len() < filter.limit {
            let next = next(&transaction, &mut tails)?.filter(|met| met.listed.at_ms >= since_ms);
            let is_last = next.is_none();
            match next {
                // Of one writer, what is posted about a capture comes after it, so on the way back it was met before.
                Some(met) if transaction.sqlite().is_some() => {
                    let met = later.meet(met);
                    found.extend(Some(met.listed).filter(|row| filter.takes(row)));
                }
                Some(met) => waiting.push(met),
                None => {}
            }
            if waiting.len() == PAGE as usize || is_last {
                look_up(&transaction, &mut waiting)?;
                found.extend(waiting.drain(..).map(|met| met.listed).filter(|row| filter.takes(row)));
            }
            if is_last {
                break;
            }
        }
        found.truncate(filter.limit);
        Ok(found)
    }
}

impl Filter {
    fn takes(&self, row: &Listed) -> bool {
        let account = self.account.as_deref().is_none_or(|account| account == row.account);
        account && self.state.is_none_or(|state| row.fate.is_some_and(|fate| fate.is(state)))
    }
}

/// An entry that was met on the way back. A capture has its outcome already.
struct Met {
    listed: Listed,
    key: PostingKey,
    status: Option<i64>,
}

/// A writer's chain, read backwards.
struct Tail {
    slot: i64,
    entries: VecDeque<Met>,
    /// Entries from this number on were read.
    below: i64,
    batches: VecDeque<BatchEnd>,
    below_batch: i64,
    /// Outcomes that stand behind the entries from this one on were met.
    reached: i64,
    outcomes: HashMap<i64, Record>,
}

/// What of a batch is met on the way back.
struct BatchEnd {
    batch_seq: i64,
    n_first: Option<i64>,
    records: Vec<Record>,
}

impl Tail {
    fn of(slot: i64) -> Tail {
        let end = EntryNumber { slot: slot + 1, seq: 0 }.n();
        let (entries, batches, outcomes) = (VecDeque::new(), VecDeque::new(), HashMap::new());
        Tail { slot, entries, below: end, batches, below_batch: i64::MAX, reached: end, outcomes }
    }

    /// Sees to it that the next entry is there, if there is one, with its outcome.
    fn fill(&mut self, connection: &Session) -> SqlResult<()> {
        if self.entries.is_empty() {
            // What was signed is not listed, and may be large.
            let columns = rows::COLUMNS.replace("evidence, evidence_digest", "NULL, evidence_digest");
            let page = format!("SELECT {columns} FROM entries WHERE n > ?1 AND n < ?2 ORDER BY n DESC LIMIT ?3");
            let first = EntryNumber { slot: self.slot, seq: 0 }.n();
            self.entries.extend(connection.all(&page, params![first, self.below, PAGE], |row| {
                let (entry, _) = rows::read(row)?;
                Ok(Met { listed: listed(&entry, None), key: entry.key, status: entry.status })
            })?);
            self.below = self.entries.back().map_or(first, |met| met.listed.n);
        }
        let Some(n) = self.entries.front().map(|met| met.listed.n) else { return Ok(()) };
        while self.reached > n {
            let Some(BatchEnd { n_first, records, .. }) = self.batch(connection)? else { break };
            self.reached = n_first.unwrap_or(self.reached);
            self.outcomes.extend(records.into_iter().map(|record| (record.n, record)));
        }
        let outcome = self.outcomes.remove(&n);
        if let Some(fate) = self.entries.front_mut().and_then(|met| met.listed.fate.as_mut()) {
            fate.outcome = outcome;
        }
        Ok(())
    }

    /// The batch before.
    fn batch(&mut self, connection: &Session) -> SqlResult<Option<BatchEnd>> {
        if self.batches.is_empty() {
            let page = "SELECT batch_seq, n_first, outcomes FROM batches WHERE slot = ?1 AND batch_seq < ?2 \
                        ORDER BY batch_seq DESC LIMIT ?3";
            self.batches.extend(connection.all(page, params![self.slot, self.below_batch, PAGE], |row| {
                let records = row.get::<Option<&[u8]>>(2)?.and_then(outcomes::decode);
                Ok(BatchEnd { batch_seq: row.get(0)?, n_first: row.get(1)?, records: records.unwrap_or_default() })
            })?);
            self.below_batch = self.batches.back().map_or(0, |batch| batch.batch_seq);
        }
        Ok(self.batches.pop_front())
    }
}

/// The latest entry that was not met yet, of all writers; of two at one time the one with the larger number.
fn next(connection: &Session, tails: &mut [Tail]) -> SqlResult<Option<Met>> {
    let at = |tail: &Tail| tail.entries.front().map(|met| (met.listed.at_ms, met.listed.n));
    let latest = tails.iter_mut().filter(|tail| !tail.entries.is_empty()).max_by_key(|tail| at(tail));
    let Some(tail) = latest else { return Ok(None) };
    let met = tail.entries.pop_front();
    tail.fill(connection)?;
    Ok(met)
}

/// Of several writers, one may have posted about another's capture, by a clock that is behind that one's: what became of
/// captures is looked up, of many at once.
fn look_up(connection: &Session, waiting: &mut [Met]) -> SqlResult<()> {
    let payments: Vec<Vec<u8>> = waiting
        .iter()
        .filter(|met| met.listed.kind == Kind::Capture)
        .map(|met| met.listed.payment.as_bytes().to_vec())
        .collect();
    if payments.is_empty() {
        return Ok(());
    }
    let payments: Vec<Option<&[u8]>> = payments.iter().map(|payment| Some(&payment[..])).collect();
    // Kinds 2, 6, 9 and 10 once for each payment, 3 and 8 with a number of two bytes at the end.
    let columns = "e.n, e.key, e.status, e.amount, e.ref_n FROM unnest(?1::bytea[]) AS p(payment) JOIN entries e ON";
    let numbered = |kind: Kind| {
        let byte = kind as u8;
        format!(
            "SELECT {columns} e.key >= '\\x{byte:02x}'::bytea || p.payment || '\\x0000'::bytea \
                 AND e.key <= '\\x{byte:02x}'::bytea || p.payment || '\\xffff'::bytea"
        )
    };
    let once = [Kind::Void, Kind::Owed, Kind::Redelivered, Kind::Lapsed]
        .map(|kind| format!("'\\x{:02x}'::bytea || p.payment", kind as u8))
        .join(", ");
    let select = format!(
        "SELECT {columns} e.key = ANY(ARRAY[{once}]) UNION ALL {} UNION ALL {}",
        numbered(Kind::Refund),
        numbered(Kind::Dispute)
    );
    let mut later = Later::default();
    let read = connection.all(&select, &[Value::Blobs(&payments)], |row| {
        let (n, status, amount, ref_n) = (row.get(0)?, row.get(2)?, row.get(3)?, row.get(4)?);
        Ok(PostingKey::from_bytes(row.get(1)?).map(|key| Posted { n, key, status, amount, ref_n }))
    })?;
    let mut posted: Vec<Posted> = read.into_iter().flatten().collect();
    // The last one of each kind first, and ends before their beginnings.
    posted.sort_by_key(|posted| std::cmp::Reverse(posted.key));
    posted.iter().for_each(|posted| later.posted(posted));
    for met in waiting.iter_mut().filter(|met| met.listed.kind == Kind::Capture) {
        later.take(met);
    }
    Ok(())
}

/// A posting about a capture.
struct Posted {
    n: i64,
    key: PostingKey,
    status: Option<i64>,
    amount: i64,
    ref_n: Option<i64>,
}

/// Postings whose capture is still to be met.
#[derive(Default)]
struct Later {
    postings: HashMap<(i64, Kind), i64>,
    /// Refunds that failed, by their capture and number.
    failed: HashSet<(i64, u8)>,
    refunded: HashMap<i64, i64>,
    disputes: HashMap<i64, correction::State>,
}

impl Later {
    /// Takes an entry on the way back; a capture gets what became of it.
    fn meet(&mut self, mut met: Met) -> Met {
        if met.listed.kind == Kind::Capture {
            self.take(&mut met);
        } else {
            let Listed { n, amount, ref_n, .. } = met.listed;
            self.posted(&Posted { n, key: met.key, status: met.status, amount, ref_n });
        }
        met
    }

    /// What became of a capture.
    fn take(&mut self, capture: &mut Met) {
        let (n, amount) = (capture.listed.n, capture.listed.amount);
        let mut later = |kind| self.postings.remove(&(n, kind));
        let fate = Fate {
            outcome: capture.listed.fate.and_then(|fate| fate.outcome),
            void_n: later(Kind::Void),
            owed_n: later(Kind::Owed),
            redelivered_n: later(Kind::Redelivered),
            lapsed_n: later(Kind::Lapsed),
            dispute: self.disputes.remove(&n),
            ..Fate::default()
        };
        capture.listed.fate = Some(fate.with_refunds(self.refunded.remove(&n).unwrap_or_default(), amount));
    }

    fn posted(&mut self, posted: &Posted) {
        let Some(capture_n) = posted.ref_n else { return };
        match posted.key.kind() {
            Kind::Refund | Kind::Dispute => self.step(posted, capture_n),
            kind @ (Kind::Void | Kind::Owed | Kind::Redelivered | Kind::Lapsed) => {
                self.postings.insert((capture_n, kind), posted.n);
            }
            _ => {}
        }
    }

    /// A step of a refund or dispute: its end is met before its beginning.
    fn step(&mut self, posted: &Posted, capture_n: i64) {
        let (kind, number) = (posted.key.kind(), posted.key.number());
        let Some(state) = correction::State::from_code(kind, posted.status.unwrap_or_default()) else { return };
        let (which, is_end) = ((number >> 8) as u8, number & 1 == 1);
        match kind {
            Kind::Dispute => _ = self.disputes.entry(capture_n).or_insert(state),
            _ if state == correction::State::Failed => _ = self.failed.insert((capture_n, which)),
            _ if is_end || self.failed.remove(&(capture_n, which)) => {}
            _ => *self.refunded.entry(capture_n).or_default() += posted.amount,
        }
    }
}

/// What a refund, a dispute or a top-up is, by the column `status`; `None` for other kinds.
pub fn step(entry: &Entry<'_>) -> Option<&'static str> {
    let code = entry.status.unwrap_or_default();
    match entry.kind {
        Kind::Topup => top_up::Way::from_code(code).map(top_up::Way::name),
        kind => correction::State::from_code(kind, code).map(correction::State::name),
    }
}

/// An entry as a listing shows it.
pub(super) fn listed(entry: &Entry<'_>, fate: Option<Fate>) -> Listed {
    Listed {
        n: entry.n,
        kind: entry.kind,
        payment: entry.key.payment(),
        at_ms: entry.at_ms,
        book_day: entry.book_day,
        account: entry.account.to_owned(),
        agent: entry.agent.to_owned(),
        route: entry.route.to_owned(),
        scheme: entry.scheme.to_owned(),
        asset: entry.asset.to_owned(),
        amount: entry.amount,
        status: entry.status.filter(|_| !matches!(entry.kind, Kind::Refund | Kind::Dispute | Kind::Topup)),
        step: step(entry),
        ref_n: entry.ref_n,
        method: entry.method.map(str::to_owned),
        target: entry.target.map(str::to_owned),
        fate: fate.or((entry.kind == Kind::Capture).then(Fate::default)),
    }
}
