//! One batch, one transaction: number, chain and insert the winners, then everything that follows from them.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use rusqlite::{Connection, ErrorCode, OptionalExtension, Transaction, TransactionBehavior};

use super::{
    books::{Books, FLOOR_STEP_MS, int},
    chain::{self, Batch, Hash},
    credit::UseKey,
    day::BookZone,
    entry::{Entry, EntryNumber, Kind, PostingKey},
    faults::Faults,
    file::{self, Head, SLOT},
    outcomes,
    queue::Job,
    rollup::{self, RollupKey, Rollups},
    rows,
    store::{KeyRecord, Outcome, Receipt},
};
use crate::wire::amount::Currency;

/// Keys remembered as written, so that most batches do not touch their table; a full memory is emptied.
const KNOWN_KEYS_MAX: usize = 65_536;

/// The times of a batch.
#[derive(Clone, Copy, Debug)]
pub(super) struct Times {
    /// Process time.
    pub(super) now_ms: u64,
    /// The wall clock.
    pub(super) wall_ms: u64,
    /// Where the replay floor should be.
    pub(super) floor_ms: u64,
}

/// What a batch did, once it is on disk.
#[derive(Debug, Default)]
pub(super) struct Written {
    /// For each capture, in order; `None` for one that lost.
    pub(super) receipts: Vec<Option<Receipt>>,
    /// Credit that voids gave back.
    pub(super) voided: Vec<(UseKey, i64)>,
    /// Outcomes for the next batch.
    pub(super) left: Vec<Outcome>,
}

/// Why a batch was not written.
#[derive(Debug)]
pub(super) enum BatchError {
    /// A row cannot be written; the transaction is undone and the file is well.
    Row(String),
    /// The file or the disk failed: whether the batch is in it is not known.
    Disk(String),
}

impl Books {
    /// Writes a batch. Nothing changes here unless it is on disk.
    pub(super) fn write(&mut self, jobs: &[Job], outcomes: &[Outcome], times: Times) -> Result<Written, BatchError> {
        let faults = self.faults.clone();
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(sort)?;
        let done = fill(
            &transaction,
            Fill {
                before: &self.head,
                floor_ms: self.book.floor_ms,
                zone: &self.zone,
                known_keys: &self.known_keys,
                open: &self.open,
                jobs,
                outcomes,
                times,
                faults: &*faults,
            },
        );
        let filled = match done {
            Ok(filled) => filled,
            // SQLite may have undone it already; the connection is not used again.
            Err(error @ BatchError::Disk(_)) => return Err(error),
            Err(error @ BatchError::Row(_)) => {
                // An undo that fails leaves a file of which nothing is known.
                transaction.rollback().map_err(|e| BatchError::Disk(e.to_string()))?;
                return Err(error);
            }
        };
        let unknown = |error: rusqlite::Error| BatchError::Disk(error.to_string());
        self.attempted = Some(filled.head);
        faults.before_commit().map_err(unknown)?;
        transaction.commit().map_err(unknown)?;
        faults.after_commit().map_err(unknown)?;

        self.attempted = None;
        self.head = filled.head;
        self.book.floor_ms = filled.floor_ms;
        if self.known_keys.len() > KNOWN_KEYS_MAX {
            self.known_keys.clear();
        }
        for record in filled.new_keys {
            self.known_keys.insert((record.thumbprint.clone(), record.agent.clone()));
        }
        self.open.extend(filled.written.receipts.iter().flatten().map(|receipt| receipt.n));
        for n in &filled.closed {
            self.open.remove(n);
        }
        Ok(filled.written)
    }
}

/// What a transaction is filled from.
struct Fill<'b, 'a> {
    before: &'b Head,
    floor_ms: i64,
    zone: &'b BookZone,
    known_keys: &'b HashSet<(Arc<str>, Arc<str>)>,
    open: &'b HashSet<i64>,
    jobs: &'a [Job],
    outcomes: &'a [Outcome],
    times: Times,
    faults: &'b dyn Faults,
}

/// What becomes true when the transaction is on disk.
struct Filled<'a> {
    written: Written,
    head: Head,
    floor_ms: i64,
    new_keys: Vec<&'a KeyRecord>,
    closed: Vec<i64>,
}

/// The columns of a capture that its void repeats.
struct Reversed {
    key: PostingKey,
    account: Arc<str>,
    agent: String,
    agent_key: Option<String>,
    route: String,
    scheme: String,
    asset: String,
    amount: i64,
    period: u32,
}

fn fill<'a>(transaction: &Transaction<'_>, from: Fill<'_, 'a>) -> Result<Filled<'a>, BatchError> {
    // Read again each time: closing a day moves `open_day`, and whoever else wrote here must be noticed.
    let head = file::head(transaction, SLOT).map_err(|e| BatchError::Disk(e.to_string()))?;
    let Some(mut head) = head.filter(|head| (head.seq, head.hash) == (from.before.seq, from.before.hash)) else {
        return Err(BatchError::Disk("another process wrote to the ledger".to_owned()));
    };
    let (at_ms, wall_ms) = (head.at_ms.max(int(from.times.now_ms)), int(from.times.wall_ms));
    let book_day = from.zone.book_day(at_ms.unsigned_abs(), head.open_day);
    head.at_ms = at_ms;
    let n_before = EntryNumber { slot: SLOT, seq: head.seq }.n();
    let mut salts = vec![[0; 16]; from.jobs.len()];
    getrandom::fill(salts.as_flattened_mut()).map_err(|e| BatchError::Row(e.to_string()))?;
    let digests: Vec<(Hash, Hash)> = from
        .jobs
        .iter()
        .zip(&salts)
        .map(|(job, salt)| {
            let posting = &job.posting;
            (chain::target_digest(salt, &posting.target), chain::evidence_digest(&posting.evidence))
        })
        .collect();
    let reversals: Vec<(i64, Option<Reversed>)> = from
        .outcomes
        .iter()
        .filter(|outcome| outcome.void)
        .map(|outcome| Ok((outcome.n, reversed(transaction, outcome.n).map_err(sort)?)))
        .collect::<Result<_, BatchError>>()?;
    let mut post = Poster { transaction, head: &mut head, rollups: Rollups::new(), used: BTreeMap::new() };
    let mut written = Written::default();
    let mut new_keys: Vec<&KeyRecord> = Vec::new();

    for ((job, salt), (target_digest, evidence_digest)) in from.jobs.iter().zip(&salts).zip(&digests) {
        let (request, posting) = (&job.claim.request, &job.posting);
        from.faults.insert(&request.key).map_err(sort)?;
        let posted = post.insert(&Entry {
            n: post.next_n(),
            key: PostingKey::new(Kind::Capture, &request.key, 0),
            kind: Kind::Capture,
            at_ms,
            wall_ms,
            book_day,
            account: &request.account,
            agent: &posting.agent,
            agent_key: Some(&posting.agent_key),
            route: &posting.route,
            scheme: posting.scheme,
            asset: request.amount.currency.as_str(),
            amount: posting.amount.get(),
            list_amount: Some(posting.list_amount.get()),
            period: i64::from(request.period),
            table_hash: Some(&posting.table_hash),
            status: Some(i64::from(posting.status)),
            ref_n: None,
            method: Some(&posting.method),
            target: Some(&posting.target),
            target_salt: Some(salt),
            target_digest: Some(target_digest),
            evidence: Some(&posting.evidence),
            evidence_digest: Some(evidence_digest),
        })?;
        written.receipts.push(posted.map(|n| Receipt { n, at_ms: at_ms.unsigned_abs() }));
        let record = &*posting.key;
        let same = |known: &&KeyRecord| (&known.thumbprint, &known.agent) == (&record.thumbprint, &record.agent);
        if posted.is_some()
            && !from.known_keys.contains(&(record.thumbprint.clone(), record.agent.clone()))
            && !new_keys.iter().any(same)
        {
            insert_key(transaction, record, at_ms).map_err(sort)?;
            new_keys.push(record);
        }
    }

    for (n, capture) in &reversals {
        // Only captures can be voided; an outcome of any other number is a mistake of the caller that costs nothing.
        let Some(capture) = capture else { continue };
        let posted = post.insert(&Entry {
            n: post.next_n(),
            key: PostingKey::new(Kind::Void, &capture.key.payment(), 0),
            kind: Kind::Void,
            at_ms,
            wall_ms,
            book_day,
            account: &capture.account,
            agent: &capture.agent,
            agent_key: capture.agent_key.as_deref(),
            route: &capture.route,
            scheme: &capture.scheme,
            asset: &capture.asset,
            amount: capture.amount,
            list_amount: None,
            period: i64::from(capture.period),
            table_hash: None,
            status: None,
            ref_n: Some(*n),
            method: None,
            target: None,
            target_salt: None,
            target_digest: None,
            evidence: None,
            evidence_digest: None,
        })?;
        if let (Some(_), Ok(currency)) = (posted, Currency::parse(&capture.asset)) {
            written.voided.push(((capture.account.clone(), currency, capture.period), capture.amount));
        }
    }

    let mut seen = HashSet::new();
    let recorded: Vec<Outcome> =
        from.outcomes.iter().filter(|o| from.open.contains(&o.n) && seen.insert(o.n)).copied().collect();
    let (packed, left) = outcomes::encode(&recorded);
    written.left = left;
    let closed = recorded.iter().map(|o| o.n).filter(|n| !written.left.iter().any(|o| o.n == *n)).collect();

    post.finish().map_err(sort)?;
    let floor_ms = if int(from.times.floor_ms) >= from.floor_ms + FLOOR_STEP_MS {
        let raise = "UPDATE book SET replay_floor_ms = max(replay_floor_ms, ?1)";
        transaction.prepare_cached(raise).and_then(|mut s| s.execute([int(from.times.floor_ms)])).map_err(sort)?;
        int(from.times.floor_ms)
    } else {
        from.floor_ms
    };
    let n_last = EntryNumber { slot: SLOT, seq: head.seq }.n();
    let has_entries = n_last > n_before;
    if has_entries || packed.is_some() {
        head.batch_seq += 1;
        let batch = Batch {
            slot: SLOT,
            batch_seq: head.batch_seq,
            n_first: has_entries.then_some(n_before + 1),
            n_last: has_entries.then_some(n_last),
            at_ms,
            outcomes: packed.as_deref(),
        };
        head.hash = chain::batch(&head.hash, &batch);
        rows::insert_batch(transaction, &batch, &head.hash).map_err(sort)?;
        save_head(transaction, &head).map_err(sort)?;
    } else {
        head.at_ms = from.before.at_ms;
    }
    Ok(Filled { written, head, floor_ms, new_keys, closed })
}

/// Numbers, chains and inserts, and keeps the sums of what was inserted.
struct Poster<'t, 'e> {
    transaction: &'t Connection,
    head: &'t mut Head,
    rollups: Rollups<&'e str>,
    used: BTreeMap<(&'e str, &'e str, i64), i64>,
}

impl<'e> Poster<'_, 'e> {
    fn next_n(&self) -> i64 {
        EntryNumber { slot: SLOT, seq: self.head.seq + 1 }.n()
    }

    /// The number, or `None` when the posting key is taken; then nothing has changed, and the number is free.
    fn insert(&mut self, entry: &Entry<'e>) -> Result<Option<i64>, BatchError> {
        let hash: Hash = chain::entry(&self.head.hash, entry);
        if !rows::insert(self.transaction, entry, &hash).map_err(sort)? {
            return Ok(None);
        }
        self.head.hash = hash;
        self.head.seq += 1;
        if rollup::counts(entry.kind) {
            self.rollups.add(RollupKey::of(entry), entry.kind, entry.amount);
        }
        let change = if entry.kind == Kind::Void { -entry.amount } else { entry.amount };
        let key = (entry.account, entry.asset, entry.period);
        let used = self.used.entry(key).or_default();
        *used = used.checked_add(change).ok_or_else(|| BatchError::Row("a sum is too large".to_owned()))?;
        Ok(Some(entry.n))
    }

    fn finish(self) -> rusqlite::Result<()> {
        for ((account, asset, period), change) in &self.used {
            let mut statement = self.transaction.prepare_cached(
                "INSERT INTO account_use VALUES (?1, ?2, ?3, ?4) \
                 ON CONFLICT DO UPDATE SET used = used + excluded.used",
            )?;
            statement.execute((account, asset, period, change))?;
        }
        for (key, sums) in self.rollups.iter() {
            let mut statement = self.transaction.prepare_cached(
                "INSERT INTO rollups (book_day, account, agent, route, scheme, asset, slot, captures, captured, voids, \
                 voided) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11) ON CONFLICT DO UPDATE SET \
                 captures = captures + excluded.captures, captured = captured + excluded.captured, \
                 voids = voids + excluded.voids, voided = voided + excluded.voided",
            )?;
            statement.execute((
                key.book_day,
                key.account,
                key.agent,
                key.route,
                key.scheme,
                key.asset,
                key.slot,
                sums.captures,
                sums.captured,
                sums.voids,
                sums.voided,
            ))?;
        }
        Ok(())
    }
}

fn reversed(connection: &Connection, n: i64) -> rusqlite::Result<Option<Reversed>> {
    let mut statement = connection.prepare_cached(
        "SELECT key, account, agent, agent_key, route, scheme, asset, amount, period FROM entries \
         WHERE n = ?1 AND kind = 1",
    )?;
    let row = statement.query_row([n], |row| {
        let Some(key) = PostingKey::from_bytes(row.get_ref(0)?.as_blob().unwrap_or_default()) else {
            return Ok(None);
        };
        Ok(Some(Reversed {
            key,
            account: row.get(1)?,
            agent: row.get(2)?,
            agent_key: row.get(3)?,
            route: row.get(4)?,
            scheme: row.get(5)?,
            asset: row.get(6)?,
            amount: row.get(7)?,
            period: row.get(8)?,
        }))
    });
    row.optional().map(Option::flatten)
}

fn insert_key(connection: &Connection, record: &KeyRecord, at_ms: i64) -> rusqlite::Result<()> {
    let mut statement =
        connection.prepare_cached("INSERT INTO keys VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT DO NOTHING")?;
    statement.execute((&*record.thumbprint, &*record.agent, &*record.jwk, record.directory_digest, at_ms))?;
    Ok(())
}

fn save_head(connection: &Connection, head: &Head) -> rusqlite::Result<()> {
    let mut statement = connection
        .prepare_cached("UPDATE writers SET seq = ?2, batch_seq = ?3, head = ?4, at_ms = ?5 WHERE slot = ?1")?;
    statement.execute((SLOT, head.seq, head.batch_seq, head.hash, head.at_ms))?;
    Ok(())
}

/// Tells an error of one row from one of the file.
fn sort(error: rusqlite::Error) -> BatchError {
    use ErrorCode::{ConstraintViolation, ParameterOutOfRange, TooBig, TypeMismatch};
    match error.sqlite_error_code() {
        None | Some(ConstraintViolation | ParameterOutOfRange | TooBig | TypeMismatch) => {
            BatchError::Row(error.to_string())
        }
        Some(_) => BatchError::Disk(error.to_string()),
    }
}
