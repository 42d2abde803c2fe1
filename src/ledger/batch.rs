//! One batch, one transaction: number, chain and insert the winners, then everything that follows from them.

use std::{
    borrow::Cow,
    collections::{HashMap, HashSet},
    mem,
    sync::Arc,
};

use super::{
    books::{Books, FLOOR_STEP_MS, int},
    captured::{Captured, captured},
    chain::{self, Batch, Hash},
    credit::UseKey,
    day::BookZone,
    entry::{Entry, EntryNumber, Kind, PostingKey, is_settled_at_once},
    faults::Faults,
    file::{self, Head},
    observation, observed, outcomes,
    passes::{self, Granted},
    poster::Poster,
    postgres::{
        fence::{Fence, Pass},
        lease::Lease,
    },
    queue::{Act, Job, Redelivery},
    rows, settlements,
    sql::{Begin, Session, SqlError, SqlResult, Trouble, params},
    store::{KeyRecord, Outcome, Receipt},
    targets::KeepTargets,
    turns,
    void_cap::Voids,
};
use crate::{payment::key::PaymentKey, wire::amount::Asset};

/// Keys remembered as written, so that most batches do not touch their table; a full memory is emptied.
const KNOWN_KEYS_MAX: usize = 65_536;

/// What goes into one transaction.
pub(super) struct Part {
    pub(super) jobs: Vec<Job>,
    pub(super) redeliveries: Vec<Redelivery>,
    pub(super) outcomes: Vec<Outcome>,
    pub(super) observed: Vec<observation::Row>,
}

impl Part {
    pub(super) fn len(&self) -> usize {
        self.jobs.len() + self.redeliveries.len() + self.outcomes.len() + self.observed.len()
    }

    /// Keeps about half, of one sort if there are several.
    pub(super) fn split(&mut self) -> Part {
        let sorts = [self.jobs.len(), self.redeliveries.len(), self.outcomes.len(), self.observed.len()];
        if let Some(first) = sorts.iter().position(|n| *n > 0).filter(|first| sorts[first + 1..].iter().any(|n| *n > 0))
        {
            let redeliveries = if first < 1 { mem::take(&mut self.redeliveries) } else { Vec::new() };
            let outcomes = if first < 2 { mem::take(&mut self.outcomes) } else { Vec::new() };
            return Part { jobs: Vec::new(), redeliveries, outcomes, observed: mem::take(&mut self.observed) };
        }
        Part {
            jobs: self.jobs.split_off(sorts[0] / 2),
            redeliveries: self.redeliveries.split_off(sorts[1] / 2),
            outcomes: self.outcomes.split_off(sorts[2] / 2),
            observed: self.observed.split_off(sorts[3] / 2),
        }
    }
}

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
    /// For each job, in order.
    pub(super) receipts: Vec<Posted>,
    /// For each end of a turn, in order; `None` where the capture had one before.
    pub(super) redelivered: Vec<Option<Receipt>>,
    /// Credit that voids gave back.
    pub(super) voided: Vec<(UseKey, i64)>,
    /// Captures whose answer is owed from now on.
    pub(super) owed: Vec<(PaymentKey, i64)>,
    /// Outcomes for the next batch.
    pub(super) left: Vec<Outcome>,
}

/// What became of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Posted {
    /// It is in the books.
    Done(Receipt),
    /// Another posting of the payment was first.
    Lost,
    /// The claim is not this gateway's any more: nothing is posted, or what is posted is owed to whoever comes for it.
    Withheld,
}

/// Why a batch was not written.
#[derive(Debug)]
pub(super) enum BatchError {
    /// A row cannot be written; the transaction is undone and the file is well.
    Row(String),
    /// The file or the disk failed: whether the batch is in it is not known.
    Disk(String),
    /// Other writers were in the way; nothing is written, and the same may be tried again.
    Conflict(String),
}

impl BatchError {
    pub(super) fn into_text(self) -> String {
        match self {
            BatchError::Row(what) | BatchError::Disk(what) | BatchError::Conflict(what) => what,
        }
    }
}

impl Books {
    /// Writes a batch. Nothing changes here unless it is on disk.
    pub(super) fn write(&mut self, part: &Part, times: Times) -> Result<Written, BatchError> {
        let Part { jobs, redeliveries, outcomes, observed } = part;
        let faults = self.faults.clone();
        let transaction = self.connection.begin(Begin::Write).map_err(sort)?;
        let done = fill(
            &transaction,
            Fill {
                slot: self.slot,
                lease: self.lease,
                before: &self.head,
                floor_ms: self.book.floor_ms,
                zone: &self.zone,
                known_keys: &self.known_keys,
                open: &self.open,
                voids: &mut self.voids,
                keep_targets: self.keep_targets,
                jobs,
                redeliveries,
                outcomes,
                observed,
                times,
                faults: &*faults,
            },
        );
        let filled = match done {
            Ok(filled) => filled,
            // SQLite may have undone it already; the connection is not used again.
            Err(error @ BatchError::Disk(_)) => return Err(error),
            Err(error @ (BatchError::Row(_) | BatchError::Conflict(_))) => {
                // An undo that fails leaves a file of which nothing is known.
                transaction.rollback().map_err(|e| BatchError::Disk(e.to_string()))?;
                return Err(error);
            }
        };
        let unknown = |error: SqlError| match error.trouble {
            // The server says that it did not take place.
            Trouble::Conflict => BatchError::Conflict(error.to_string()),
            _ => BatchError::Disk(error.to_string()),
        };
        self.attempted = Some(filled.head);
        faults.before_commit().map_err(|e| unknown(e.into()))?;
        transaction.commit().map_err(unknown)?;
        faults.after_commit().map_err(|e| unknown(e.into()))?;

        self.attempted = None;
        self.head = filled.head;
        self.book.floor_ms = filled.floor_ms;
        if self.known_keys.len() > KNOWN_KEYS_MAX {
            self.known_keys.clear();
        }
        for record in filled.new_keys {
            self.known_keys.insert((record.thumbprint.clone(), record.agent.clone()));
        }
        // Only captures have an answer whose delivery is reported; what is owed was not given one.
        let captures = jobs.iter().zip(&filled.written.receipts);
        let answered = captures.filter(|(job, _)| matches!(job.act, Act::Capture | Act::Settle { owed: false, .. }));
        self.open.extend(answered.filter_map(|(_, posted)| match posted {
            Posted::Done(receipt) => Some(receipt.n),
            _ => None,
        }));
        for n in &filled.closed {
            self.open.remove(n);
        }
        for (n, account) in &filled.voids {
            if self.voids.counts(*n) {
                self.voids.posted(account, 1);
            }
            self.voids.told(*n);
        }
        for account in &filled.capped {
            self.voids.warn(account);
        }
        Ok(filled.written)
    }
}

/// What a transaction is filled from.
struct Fill<'b, 'a> {
    slot: i64,
    lease: Option<Lease>,
    before: &'b Head,
    floor_ms: i64,
    zone: &'b BookZone,
    known_keys: &'b HashSet<(Arc<str>, Arc<str>)>,
    open: &'b HashSet<i64>,
    voids: &'b mut Voids,
    keep_targets: KeepTargets,
    jobs: &'a [Job],
    redeliveries: &'a [Redelivery],
    outcomes: &'a [Outcome],
    observed: &'a [observation::Row],
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
    /// Captures that were voided, with their accounts.
    voids: Vec<(i64, Arc<str>)>,
    /// Accounts of which a charge stands although it was to be voided.
    capped: Vec<Arc<str>>,
}

fn fill<'a>(transaction: &Session, from: Fill<'_, 'a>) -> Result<Filled<'a>, BatchError> {
    // Read again each time: closing a day moves `open_day`, and whoever else wrote here must be noticed.
    let head = match from.lease {
        None => file::head(transaction, from.slot),
        Some(lease) => lease.lock_head(transaction),
    };
    let head = head.map_err(|e| BatchError::Disk(e.to_string()))?;
    let Some(mut head) = head.filter(|head| (head.seq, head.hash) == (from.before.seq, from.before.hash)) else {
        return Err(BatchError::Disk("another process wrote to the ledger".to_owned()));
    };
    let (at_ms, wall_ms) = (head.at_ms.max(int(from.times.now_ms)), int(from.times.wall_ms));
    let book_day = from.zone.book_day(at_ms.unsigned_abs(), head.open_day);
    head.at_ms = at_ms;
    let n_before = EntryNumber { slot: from.slot, seq: head.seq }.n();
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
    let targets: Vec<Option<Cow<'_, str>>> =
        from.jobs.iter().map(|job| from.keep_targets.kept(&job.posting.target)).collect();
    let find = |n: i64| captured(transaction, n).map_err(sort);
    let voids = from.outcomes.iter().filter(|outcome| outcome.void);
    let reversals: Vec<Option<Captured>> = voids.map(|outcome| find(outcome.n)).collect::<Result<_, _>>()?;
    let again: Vec<Option<Captured>> = from.redeliveries.iter().map(|r| find(r.n)).collect::<Result<_, _>>()?;
    let stamp = Stamp { at_ms, wall_ms, book_day };
    let mut fence = match from.lease {
        None => None,
        Some(lease) => {
            let jobs = from.jobs.iter().map(|job| job.claim.request.key);
            let others = reversals.iter().chain(&again).flatten().map(|capture| capture.key.payment());
            Some(Fence::take(transaction, lease, jobs.chain(others)).map_err(sort)?)
        }
    };
    let mut post = Poster::new(transaction, from.slot, &mut head);
    if fence.is_some() {
        post.in_bulk(&posting_keys(from.jobs, &reversals, &again)).map_err(sort)?;
    }
    let mut written = Written::default();
    let (mut new_keys, mut granted): (Vec<&KeyRecord>, _) = (Vec::new(), Granted::default());
    let (mut voids, mut capped, mut pending) = (Vec::new(), Vec::new(), HashMap::<Arc<str>, u64>::new());

    for (((job, salt), (target_digest, evidence_digest)), target) in
        from.jobs.iter().zip(&salts).zip(&digests).zip(&targets)
    {
        let (request, posting) = (&job.claim.request, &job.posting);
        from.faults.insert(&request.key).map_err(|e| sort(e.into()))?;
        let pass = fence.as_ref().map_or(Pass::Yes, |fence| fence.passes(job));
        if let Pass::No | Pass::Lost = pass {
            written.receipts.push(if pass == Pass::No { Posted::Withheld } else { Posted::Lost });
            continue;
        }
        let kind = job.act.kind();
        let posted = post.insert(&Entry {
            n: post.next_n(),
            key: PostingKey::new(kind, &request.key, 0),
            kind,
            at_ms,
            wall_ms,
            book_day,
            account: &request.account,
            agent: &posting.agent,
            agent_key: posting.agent_key.as_deref(),
            route: &posting.route,
            scheme: posting.scheme,
            asset: request.asset.as_str(),
            amount: posting.amount.get(),
            list_amount: Some(posting.list_amount.get()),
            period: request.period,
            table_hash: Some(&posting.table_hash),
            status: Some(i64::from(posting.status)),
            ref_n: None,
            method: Some(&posting.method),
            target: target.as_deref(),
            target_salt: Some(salt),
            target_digest: Some(target_digest),
            evidence: Some(&posting.evidence),
            evidence_digest: Some(evidence_digest),
        })?;
        let owed = pass == Pass::Owed;
        let posted = settlements::follow(&mut post, job, posted, owed, fence.as_mut(), stamp)?;
        if let Some(n) = posted {
            granted.post(&mut post, (request, posting), n, stamp)?;
        }
        written.receipts.push(match posted {
            Some(_) if owed => Posted::Withheld,
            Some(n) => Posted::Done(Receipt { n, at_ms: at_ms.unsigned_abs() }),
            None => Posted::Lost,
        });
        let Some(record) = posting.key.as_deref() else { continue };
        let same = |known: &&KeyRecord| (&known.thumbprint, &known.agent) == (&record.thumbprint, &record.agent);
        if posted.is_some()
            && !from.known_keys.contains(&(record.thumbprint.clone(), record.agent.clone()))
            && !new_keys.iter().any(same)
        {
            insert_key(transaction, record, at_ms).map_err(sort)?;
            new_keys.push(record);
        }
    }

    // Only captures can be reversed; an outcome of any other number is a mistake of the caller that costs nothing.
    for capture in reversals.iter().flatten() {
        let payment = capture.key.payment();
        if is_settled_at_once(&capture.scheme) {
            // Money has moved: what can be given back is the answer.
            if turns::owe(&mut post, capture, stamp)? {
                if let Some(fence) = &mut fence {
                    fence.becomes(&payment, "o", capture.n);
                }
                written.owed.push((payment, capture.n));
            }
            continue;
        }
        let (account, counts) = (&capture.account, from.voids.counts(capture.n));
        if counts && passes::is_with_pass(transaction, capture.n).map_err(sort)? {
            continue;
        }
        let posted = pending.entry(account.clone()).or_default();
        if counts && !from.voids.has_left(transaction, book_day, account, *posted).map_err(sort)? {
            capped.push(account.clone());
        } else if post.insert(&capture.entry(Kind::Void, post.next_n(), stamp))?.is_some()
            && let Some(asset) = Asset::parse(&capture.asset)
        {
            written.voided.push(((account.clone(), asset, capture.period), capture.amount));
            if let Some(fence) = &mut fence {
                // Given back: what nobody knew to have arrived is not had any more.
                fence.becomes(&payment, "c", capture.n);
            }
            voids.push((capture.n, account.clone()));
            *posted += u64::from(counts);
        }
    }
    for (turn, capture) in from.redeliveries.iter().zip(&again) {
        let serves = fence.as_ref().is_none_or(|fence| fence.serves(turn));
        let ended = match capture {
            Some(capture) if serves => turns::end(&mut post, capture, turn.end, stamp)?,
            _ => None,
        };
        if let (Some(receipt), Some(fence)) = (&ended, &mut fence) {
            fence.becomes(&turn.key, "c", receipt.n);
        }
        written.redelivered.push(ended);
    }

    let mut seen = HashSet::new();
    let recorded: Vec<Outcome> =
        from.outcomes.iter().filter(|o| from.open.contains(&o.n) && seen.insert(o.n)).copied().collect();
    let (packed, left) = outcomes::encode(&recorded);
    written.left = left;
    let closed = recorded.iter().map(|o| o.n).filter(|n| !written.left.iter().any(|o| o.n == *n)).collect();

    if let Some(fence) = fence {
        fence.finish(transaction).map_err(sort)?;
    }
    post.finish().map_err(sort)?;
    observed::write(transaction, from.slot, book_day, from.observed).map_err(sort)?;
    let floor_ms = if int(from.times.floor_ms) >= from.floor_ms + FLOOR_STEP_MS {
        let raise = "UPDATE book SET replay_floor_ms = ?1 WHERE replay_floor_ms < ?1";
        transaction.execute(raise, params![int(from.times.floor_ms)]).map_err(sort)?;
        int(from.times.floor_ms)
    } else {
        from.floor_ms
    };
    if EntryNumber::from_n(n_before).seq < head.seq || packed.is_some() {
        seal(transaction, from.slot, &mut head, n_before, packed.as_deref()).map_err(sort)?;
        if let Some(lease) = from.lease {
            lease.renew(transaction).map_err(sort)?;
        }
    } else {
        head.at_ms = from.before.at_ms;
    }
    Ok(Filled { written, head, floor_ms, new_keys, closed, voids, capped })
}

/// The postings that a batch may make or look for.
fn posting_keys(jobs: &[Job], reversals: &[Option<Captured>], again: &[Option<Captured>]) -> Vec<PostingKey> {
    let mut keys: Vec<PostingKey> = Vec::with_capacity(jobs.len());
    for job in jobs {
        let key = |kind| PostingKey::new(kind, &job.claim.request.key, 0);
        match job.act {
            Act::Capture => keys.push(key(Kind::Capture)),
            _ => keys.extend([Kind::Capture, Kind::Intent, Kind::Failed, Kind::Owed].map(key)),
        }
    }
    for capture in reversals.iter().chain(again).flatten() {
        let kinds = [Kind::Void, Kind::Owed, Kind::Redelivered, Kind::Lapsed];
        keys.extend(kinds.map(|kind| PostingKey::new(kind, &capture.key.payment(), 0)));
    }
    keys
}

/// Ends a batch: its row and the writer's, over the entries after `n_before`.
pub(super) fn seal(
    connection: &Session,
    slot: i64,
    head: &mut Head,
    n_before: i64,
    outcomes: Option<&[u8]>,
) -> SqlResult<()> {
    let n_last = EntryNumber { slot, seq: head.seq }.n();
    let has_entries = n_last > n_before;
    head.batch_seq += 1;
    let batch = Batch {
        slot,
        batch_seq: head.batch_seq,
        n_first: has_entries.then_some(n_before + 1),
        n_last: has_entries.then_some(n_last),
        at_ms: head.at_ms,
        outcomes,
    };
    head.hash = chain::batch(&head.hash, &batch);
    rows::insert_batch(connection, &batch, &head.hash)?;
    save_head(connection, slot, head)
}

/// When a batch is posted.
#[derive(Clone, Copy)]
pub(super) struct Stamp {
    pub(super) at_ms: i64,
    pub(super) wall_ms: i64,
    pub(super) book_day: i64,
}

fn insert_key(connection: &Session, record: &KeyRecord, at_ms: i64) -> SqlResult<()> {
    connection.execute(
        "INSERT INTO keys VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT DO NOTHING",
        params![&*record.thumbprint, &*record.agent, &*record.jwk, &record.directory_digest, at_ms],
    )?;
    Ok(())
}

fn save_head(connection: &Session, slot: i64, head: &Head) -> SqlResult<()> {
    connection.execute(
        "UPDATE writers SET seq = ?2, batch_seq = ?3, head = ?4, at_ms = ?5 WHERE slot = ?1",
        params![slot, head.seq, head.batch_seq, &head.hash, head.at_ms],
    )?;
    Ok(())
}

/// Tells an error of one row from one of the file.
pub(super) fn sort(error: SqlError) -> BatchError {
    match error.trouble {
        Trouble::Shape | Trouble::Row => BatchError::Row(error.to_string()),
        Trouble::Conflict => BatchError::Conflict(error.to_string()),
        _ => BatchError::Disk(error.to_string()),
    }
}
