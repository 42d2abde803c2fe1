//! The writer: one thread that owns the file. It takes what has queued, commits it, and only then lets memory follow and
//! the answers go. Batches grow under load by themselves: what queues during a commit is the next batch.

use std::{
    mem,
    panic::{self, AssertUnwindSafe},
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use super::{
    batch::{BatchError, Part, Posted, Times, Written},
    books::Books,
    claims::{Claims, SHARDS, SWEEP},
    clock_rule::ClockRule,
    closing::CloseError,
    correction::Rules,
    day::{CreditPeriod, credit_period},
    file::{Head, Owner},
    mailbox::{Answer, Post, Ticket},
    place::Place,
    postgres::desk::{Desk, Word},
    queue::{Act, Ask, Job, Queue, Redelivery, TurnEnd},
    settlements,
    sql::SqlError,
    sqlite::SqliteOptions,
    statements::MarkError,
    store::{CaptureError, Claim, Health, Outcome, Released, Settling, Unavailable, Unresolved},
};
use crate::{clock::Clock, payment::key::PaymentKey, wire::amount::Units};

/// The first and the longest wait before a failed file is tried again.
pub(super) const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// A payment is valid for at most this long without an id, whatever the configured ttl.
const TTL_FLOOR_MS: u64 = 300_000;
/// A disk that takes longer than this for one step closes priced routes: their payments would only pile up before it.
const STALL_MS: u64 = 2000;
/// How long the writer waits for work before it looks at the replay floor, and, on a server, renews its lease.
const IDLE: Duration = Duration::from_secs(10);
const RENEW_EVERY: Duration = Duration::from_secs(1);
/// A batch that other writers were in the way of is tried so often.
const TRIES: usize = 8;
/// Credit periods are remembered for this long after their start.
const PERIODS_MS: u64 = 63 * 86_400_000;

/// What the threads share.
pub(super) struct Shared {
    pub(super) clock: Clock,
    pub(super) claims: Claims,
    pub(super) queue: Queue,
    /// Set once the file was opened.
    pub(super) place: OnceLock<Place>,
    closed: Mutex<Closed>,
    /// Whether `closed` has no reason; written under its lock.
    open: AtomicBool,
    /// Whether the file was opened and memory holds what it knows.
    opened: AtomicBool,
    rule: Mutex<ClockRule>,
    rules: Mutex<Rules>,
    /// Longest ttl of an offer that may be presented.
    pub(super) ttl_max_ms: AtomicU64,
    pub(super) skew_ms: u64,
    /// Who speaks with the server about claims, where the ledger is on one.
    pub(super) desk: Option<Desk>,
    /// When the writer last went to the disk, process time in ms; 0 when it is back.
    at_disk_ms: AtomicU64,
}

/// Why priced routes are closed, each reason of its own.
#[derive(Clone, Debug)]
pub(super) struct Closed {
    pub(super) disk: Option<Arc<str>>,
    /// The path names no file, or another one.
    pub(super) file: Option<Arc<str>>,
    pub(super) clock: Option<Arc<str>>,
}

impl Shared {
    /// Of a ledger that is not open.
    pub(super) fn new(options: &SqliteOptions, desk: Option<Desk>) -> Shared {
        let idle = if desk.is_some() { RENEW_EVERY } else { IDLE };
        Shared {
            clock: options.clock.clone(),
            claims: Claims::new(options.keys_max, 0, desk.is_some()),
            queue: Queue::new(options.queue_max, idle),
            place: OnceLock::new(),
            closed: Mutex::new(Closed { disk: Some("the ledger is being opened".into()), file: None, clock: None }),
            open: AtomicBool::new(false),
            opened: AtomicBool::new(false),
            rule: Mutex::new(ClockRule::new(0, 0)),
            rules: Mutex::default(),
            ttl_max_ms: AtomicU64::new(options.ttl_max_ms),
            skew_ms: options.skew_ms,
            desk,
            at_disk_ms: AtomicU64::new(0),
        }
    }

    /// The file is open and memory holds what it knows: claims may be made, if the clock is right.
    pub(super) fn opened(&self) {
        self.check_clock();
        self.opened.store(true, Ordering::Release);
        self.set_closed(|closed| closed.disk = None);
    }

    pub(super) fn has_opened(&self) -> bool {
        self.opened.load(Ordering::Acquire)
    }

    pub(super) fn set_rule(&self, rule: ClockRule) {
        *self.rule.lock().unwrap_or_else(PoisonError::into_inner) = rule;
    }

    pub(super) fn rules(&self) -> Rules {
        *self.rules.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn set_rules(&self, rules: Rules) {
        *self.rules.lock().unwrap_or_else(PoisonError::into_inner) = rules;
    }

    pub(super) fn check_clock(&self) {
        let rule = *self.rule.lock().unwrap_or_else(PoisonError::into_inner);
        let reason = rule.check(self.clock.now_ms(), self.clock.wall_ms()).map(Arc::from);
        self.set_closed(|closed| closed.clock = reason);
    }

    pub(super) fn accept_clock(&self) {
        self.clock.accept_wall();
        self.rule.lock().unwrap_or_else(PoisonError::into_inner).accept();
        self.check_clock();
    }

    pub(super) fn health(&self) -> Health {
        let closed = self.closed.lock().unwrap_or_else(PoisonError::into_inner);
        let reason = closed.disk.as_ref().or(closed.file.as_ref()).or(closed.clock.as_ref()).cloned();
        drop(closed);
        let reason = reason.or_else(|| self.desk.as_ref().and_then(|desk| desk.problem())).or_else(|| self.stall());
        reason.or_else(|| self.lease_over()).map_or(Health::Open, Health::Closed)
    }

    /// Why to close once the server has not heard of this gateway for too long. It opens by itself.
    fn lease_over(&self) -> Option<Arc<str>> {
        let over = self.desk.as_ref().is_some_and(|desk| desk.held().is_over(self.clock.now_ms()));
        over.then(|| "the lease on the ledger's database has run out; it is being renewed".into())
    }

    /// Gives a claim back: nothing was given.
    pub(super) fn release(&self, claim: &Claim, why: Released) {
        // Said before memory lets it go: another claim of the payment reaches the desk after this.
        if let Some(desk) = &self.desk {
            desk.say(Word::Release(claim.request.key, why));
        }
        self.claims.release(claim, why, self.clock.now_ms());
    }

    /// Gives a claim back because the ledger failed, which is not the account's doing.
    pub(super) fn give_back(&self, claim: &Claim) {
        if let Some(desk) = &self.desk {
            desk.say(Word::Release(claim.request.key, Released::NotAsked));
        }
        self.claims.give_back(claim);
    }

    /// Why to close while the writer waits for its disk. Asked live, so it opens by itself when the disk answers.
    fn stall(&self) -> Option<Arc<str>> {
        let ms = self.stalled_ms()?;
        Some(format!("the disk does not answer: a commit has taken {} s so far", ms / 1000).into())
    }

    fn stalled_ms(&self) -> Option<u64> {
        let since_ms = Some(self.at_disk_ms.load(Ordering::Relaxed)).filter(|ms| *ms != 0)?;
        Some(self.clock.now_ms().saturating_sub(since_ms)).filter(|ms| *ms > STALL_MS)
    }

    /// Notes that the writer is at its disk until the guard is dropped.
    fn at_disk(&self) -> AtDisk<'_> {
        self.at_disk_ms.store(self.clock.now_ms().max(1), Ordering::Relaxed);
        AtDisk(self)
    }

    pub(super) fn set_closed(&self, change: impl FnOnce(&mut Closed)) {
        let mut closed = self.closed.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut closed);
        let open = closed.disk.is_none() && closed.file.is_none() && closed.clock.is_none();
        self.open.store(open, Ordering::Release);
    }

    /// [`Shared::health`] without its lock and its reason.
    pub(super) fn is_open(&self) -> bool {
        let server = self.desk.as_ref().is_none_or(|desk| desk.is_open(self.clock.now_ms()));
        self.open.load(Ordering::Acquire) && server && self.stalled_ms().is_none()
    }

    /// A turn of serving what is owed ends, and whether that was written is not known, or nothing was given.
    pub(super) fn owe_again(self: &Arc<Self>, key: &PaymentKey, n: i64) {
        let Some(desk) = &self.desk else { return self.claims.owe_again(key, n) };
        let (ticket, shared, key) = (Ticket::new(), self.clone(), *key);
        ticket.bequeath(Box::new(move |last| {
            if let Ok(true) = last {
                shared.lapse(key, n);
            }
        }));
        desk.say(Word::GiveBackOwed(key, ticket));
    }

    /// The last turn is over: until that is on disk, the payment counts as in flight.
    pub(super) fn lapse(self: &Arc<Self>, key: PaymentKey, n: i64) {
        let lapse = Redelivery { key, n, end: TurnEnd::Lapsed, answer: Answer::default() };
        if self.queue.push_redelivery(lapse).is_err() && self.desk.is_none() {
            self.claims.owe_again(&key, n);
        }
    }

    /// The settlement ended without a verdict.
    pub(super) fn unresolve(&self, settling: Settling) {
        let Settling { claim, intent } = settling;
        let (key, request) = (claim.request.key, claim.request.clone());
        self.claims.unresolved(Unresolved { request, intent }, &claim);
        match &self.desk {
            None => self.queue.ask(Ask::Unknown(key)),
            Some(desk) => desk.say(Word::Doubt { key, unknown: true }),
        }
    }

    fn times(&self) -> Times {
        let now_ms = self.clock.now_ms();
        let ttl_ms = self.ttl_max_ms.load(Ordering::Relaxed).max(TTL_FLOOR_MS);
        let floor_ms = now_ms.saturating_sub(ttl_ms).saturating_sub(2 * self.skew_ms);
        Times { now_ms, wall_ms: self.clock.wall_ms(), floor_ms }
    }

    /// Day and month before which credit is no longer asked for.
    pub(super) fn oldest_periods(&self) -> (u32, u32) {
        let at_ms = self.clock.now_ms().saturating_sub(PERIODS_MS);
        (credit_period(CreditPeriod::Day, at_ms), credit_period(CreditPeriod::Month, at_ms))
    }
}

/// Dropped when the disk has answered, also by a panic.
struct AtDisk<'s>(&'s Shared);

impl Drop for AtDisk<'_> {
    fn drop(&mut self) {
        self.0.at_disk_ms.store(0, Ordering::Relaxed);
    }
}

/// The thread's state.
pub(super) struct Writer {
    pub(super) shared: Arc<Shared>,
    pub(super) books: Books,
    pub(super) zone: String,
    pub(super) sync: bool,
    /// Held for as long as a file is written.
    _owner: Option<Owner>,
    /// Outcomes that the next batch carries.
    pub(super) outcomes: Vec<Outcome>,
    /// Postings that may be in the file although nobody was told.
    pub(super) in_doubt: Vec<Job>,
    /// Ends of settlements that must be written whatever happens: money moved, or certainly did not.
    pub(super) kept: Vec<Job>,
    /// Turns that have lapsed, likewise: until then their payments are in flight.
    pub(super) lapses: Vec<Redelivery>,
    /// Captures that were ordered about when the file failed.
    pub(super) unsure: Vec<i64>,
    /// Where the chain stood before the batch in doubt, and where it stands if that was written.
    pub(super) doubt: Option<(Head, Option<Head>)>,
    next_shard: usize,
}

impl Writer {
    pub(super) fn new(shared: Arc<Shared>, books: Books, zone: String, sync: bool, owner: Option<Owner>) -> Writer {
        let (outcomes, in_doubt, kept, lapses) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let (unsure, doubt, next_shard) = (Vec::new(), None, 0);
        Writer { shared, books, zone, sync, _owner: owner, outcomes, in_doubt, kept, lapses, unsure, doubt, next_shard }
    }

    /// Runs until the queue is closed and written.
    pub(super) fn run(mut self) {
        loop {
            let mut work = self.shared.queue.take();
            // The end of a settlement that a row's error held back.
            work.captures.extend(mem::take(&mut self.kept).into_iter().map(Job::owed));
            work.redeliveries.append(&mut self.lapses);
            self.outcomes.extend(work.outcomes);
            let idle = work.captures.is_empty()
                && work.redeliveries.is_empty()
                && self.outcomes.is_empty()
                && work.asks.is_empty();
            let mut done = if idle { self.idle() } else { Ok(()) };
            if done.is_ok() && !idle {
                done = self.commit(work.captures, work.redeliveries);
            }
            for ask in work.asks {
                match &done {
                    Ok(()) => done = self.answer(ask),
                    Err(Broken(reason)) => ask.refuse(Unavailable(reason.clone())),
                }
            }
            if let Err(Broken(reason)) = done
                && !self.recover(&reason)
            {
                break;
            }
            // Outcomes of the last answers may have come during the last commit.
            if work.closing {
                self.outcomes.extend(self.shared.queue.take_outcomes());
                if self.outcomes.is_empty() || self.commit(Vec::new(), Vec::new()).is_err() {
                    break;
                }
            }
        }
        if let Some(lease) = self.books.lease
            && let Err(error) = lease.end(&self.books.connection)
        {
            // It runs out by itself.
            tracing::debug!(%error, "the slot could not be given up");
        }
        let reason: Arc<str> = "the ledger is closed".into();
        self.shared.set_closed(|closed| closed.disk = Some(reason.clone()));
        let left = self.shared.queue.refuse(&reason);
        self.give_up(left.captures, left.redeliveries, &reason, false);
        left.asks.into_iter().for_each(|ask| ask.refuse(Unavailable(reason.clone())));
    }

    /// Writes postings and the outcomes that wait, in as few batches as the rows allow.
    pub(super) fn commit(&mut self, jobs: Vec<Job>, redeliveries: Vec<Redelivery>) -> Result<(), Broken> {
        let outcomes = mem::take(&mut self.outcomes);
        self.commit_part(Part { jobs, redeliveries, outcomes })
    }

    fn commit_part(&mut self, mut part: Part) -> Result<(), Broken> {
        if part.len() == 0 {
            return Ok(());
        }
        let times = self.shared.times();
        let books = &mut self.books;
        let at_disk = self.shared.at_disk();
        let mut tries = 0;
        let written = loop {
            tries += 1;
            match caught(|| books.write(&part.jobs, &part.redeliveries, &part.outcomes, times)) {
                Err(BatchError::Conflict(what)) if tries < TRIES => tracing::debug!(what, "a batch is tried again"),
                written => break written,
            }
        };
        drop(at_disk);
        match written {
            Ok(written) => {
                if let Some(desk) = &self.shared.desk {
                    desk.held().renewed(times.now_ms);
                }
                self.outcomes.extend(&written.left);
                self.follow(part, written);
                Ok(())
            }
            Err(BatchError::Row(what)) if part.len() == 1 => {
                tracing::error!(what, "a row was refused by the ledger");
                self.give_up(part.jobs, part.redeliveries, &format!("the row was refused: {what}").into(), false);
                Ok(())
            }
            Err(BatchError::Row(_)) => {
                // Halves until the row is alone: the others must not suffer from it.
                let left = part.split();
                match self.commit_part(part) {
                    Ok(()) => self.commit_part(left),
                    Err(broken) => {
                        self.outcomes.extend(left.outcomes);
                        self.give_up(left.jobs, left.redeliveries, &broken.0, false);
                        Err(broken)
                    }
                }
            }
            Err(BatchError::Disk(what) | BatchError::Conflict(what)) => {
                let reason = self.failed(&what);
                self.outcomes.extend(part.outcomes);
                self.doubt = Some((*self.books.head(), self.books.attempted()));
                // Closed before anyone is told, so that a retry finds it closed.
                self.shared.set_closed(|closed| closed.disk = Some(reason.clone()));
                self.give_up(part.jobs, part.redeliveries, &reason, true);
                Err(Broken(reason))
            }
        }
    }

    /// Memory follows what is on disk, then the answers go, one wake a core.
    fn follow(&mut self, part: Part, written: Written) {
        let claims = &self.shared.claims;
        let mut post = Post::default();
        for (job, posted) in part.jobs.into_iter().zip(written.receipts) {
            let (claim, amount) = (&job.claim, job.posting.amount);
            let receipt = match posted {
                Posted::Done(receipt) => receipt,
                Posted::Lost => {
                    match job.act {
                        Act::Capture | Act::Intend(_) => claims.lost(claim),
                        Act::Settle { .. } | Act::Fail(_) => claims.settled(claim, 0, Units::ZERO, false),
                    }
                    post.send(job.answer, Err(CaptureError::Lost));
                    continue;
                }
                Posted::Withheld => {
                    match job.act {
                        Act::Capture | Act::Intend(_) => claims.give_back(claim),
                        Act::Settle { .. } | Act::Fail(_) => claims.settled(claim, 0, Units::ZERO, false),
                    }
                    let reason = "the claim of this payment had run out; another gateway may have it".into();
                    post.send(job.answer, Err(Unavailable(reason).into()));
                    continue;
                }
            };
            match job.act {
                Act::Capture => claims.captured(claim, receipt.n, amount),
                Act::Intend(_) => claims.settling(claim),
                Act::Settle { owed, .. } => claims.settled(claim, receipt.n, amount, owed),
                Act::Fail(_) => claims.failed(claim),
            }
            post.send(job.answer, Ok(receipt));
        }
        for (key, n) in &written.owed {
            claims.owe(key, *n);
        }
        for (redelivery, receipt) in part.redeliveries.into_iter().zip(written.redelivered) {
            claims.ended(&redelivery.key, redelivery.n);
            post.send(redelivery.answer, receipt.ok_or(CaptureError::Lost));
        }
        for (key, amount) in &written.voided {
            claims.credit.void(key, *amount);
        }
        let raised = self.books.floor_ms() > claims.floor_ms();
        claims.raise_floor(self.books.floor_ms());
        drop(post);
        if raised {
            (self.next_shard..self.next_shard + SWEEP).for_each(|shard| claims.sweep(shard));
            self.next_shard = (self.next_shard + SWEEP) % SHARDS;
        }
    }

    /// Answers captures with the reason. Those in doubt keep their claim until the file is read again.
    pub(super) fn give_up(&mut self, jobs: Vec<Job>, redeliveries: Vec<Redelivery>, reason: &Arc<str>, in_doubt: bool) {
        let mut post = Post::default();
        for mut job in jobs {
            post.send(mem::take(&mut job.answer), Err(Unavailable(reason.clone()).into()));
            match &job.act {
                _ if in_doubt => self.in_doubt.push(job),
                Act::Capture | Act::Intend(_) => self.shared.give_back(&job.claim),
                // Known, and must not be forgotten because a disk failed; should this process end first, the row of its
                // intent says that it is unresolved.
                Act::Settle { .. } | Act::Fail(_) => self.kept.push(job),
            }
        }
        for redelivery in redeliveries {
            match redelivery.end {
                // Twice is once, so it does not matter whether it is there.
                TurnEnd::Lapsed => {
                    self.lapses.push(redelivery);
                    continue;
                }
                // In doubt it may be there: then it is not made again.
                TurnEnd::Served if in_doubt && self.shared.desk.is_none() => {
                    self.shared.claims.ended(&redelivery.key, redelivery.n);
                }
                TurnEnd::Served => self.shared.owe_again(&redelivery.key, redelivery.n),
            }
            post.send(redelivery.answer, Err(Unavailable(reason.clone()).into()));
        }
    }

    /// Nothing happened for a while: keys that were only claimed and released age too.
    fn idle(&mut self) -> Result<(), Broken> {
        if let (Some(lease), Some(desk)) = (self.books.lease, &self.shared.desk) {
            let asked_ms = self.shared.clock.now_ms();
            let at_disk = self.shared.at_disk();
            let renewed = lease.renew(&self.books.connection);
            drop(at_disk);
            match renewed {
                Ok(true) => desk.held().renewed(asked_ms),
                Ok(false) => return Err(self.broken("another gateway has taken this one's slot")),
                Err(error) => return Err(self.broken(&error.to_string())),
            }
        }
        let claims = &self.shared.claims;
        claims.credit.sweep(self.shared.oldest_periods());
        if claims.held() == 0 {
            return Ok(());
        }
        let at_disk = self.shared.at_disk();
        let raised = self.books.raise_floor(self.shared.times().floor_ms);
        drop(at_disk);
        if let Err(error) = raised {
            let what = error.into_text();
            return Err(self.broken(&what));
        }
        claims.raise_floor(self.books.floor_ms());
        (0..SHARDS).for_each(|shard| claims.sweep(shard));
        Ok(())
    }

    fn answer(&mut self, ask: Ask) -> Result<(), Broken> {
        let failed = |error: SqlError| Unavailable(error.to_string().into());
        let shared = self.shared.clone();
        let at_disk = shared.at_disk();
        match ask {
            Ask::Remember(terms, ticket) => {
                let now_ms = self.shared.clock.now_ms();
                ticket.fill(self.books.remember_terms(&terms, now_ms).map_err(failed));
            }
            Ask::Recent(since_ms, ticket) => ticket.fill(self.books.recent_terms(since_ms).map_err(failed)),
            Ask::Find(key, ticket) => ticket.fill(settlements::bought(&self.books.connection, &key).map_err(failed)),
            Ask::Unknown(key) => {
                if let Err(error) = settlements::set_unknown(&self.books.connection, &key) {
                    // The row says «settling» then, which is read the same way.
                    tracing::warn!(%error, "an unresolved settlement could not be marked");
                }
            }
            Ask::Close(until, key, ticket) => {
                let now_ms = self.shared.clock.now_ms();
                let books = &mut self.books;
                let closed = caught(|| books.close_days(until, now_ms, key.as_deref()));
                // The disk has answered, before anyone hears of it.
                drop(at_disk);
                return self.tell(closed, &ticket, CloseError::Refused, CloseError::Unavailable);
            }
            Ask::Mark(mark, ticket) => {
                let now_ms = self.shared.clock.now_ms();
                let marked = caught(|| self.books.mark(&mark, now_ms));
                drop(at_disk);
                return self.tell(marked, &ticket, MarkError::Refused, MarkError::Unavailable);
            }
            Ask::Correct(orders, ticket) => {
                let (rules, times) = (shared.rules(), shared.times());
                let done = caught(|| self.books.correct(&orders, rules, times));
                drop(at_disk);
                return self.corrected(done, &orders, &ticket);
            }
        }
        Ok(())
    }

    /// Answers an order of the operator; a file that failed is closed before that.
    fn tell<T, E>(
        &self,
        done: Result<Result<T, E>, BatchError>,
        ticket: &Ticket<Result<T, E>>,
        refused: fn(String) -> E,
        unavailable: fn(Unavailable) -> E,
    ) -> Result<(), Broken> {
        match done {
            Ok(done) => ticket.fill(done),
            Err(BatchError::Row(what)) => ticket.fill(Err(refused(what))),
            Err(BatchError::Conflict(what)) => ticket.fill(Err(unavailable(Unavailable(what.into())))),
            Err(BatchError::Disk(what)) => {
                let broken = self.broken(&what);
                ticket.fill(Err(unavailable(Unavailable(broken.0.clone()))));
                return Err(broken);
            }
        }
        Ok(())
    }

    /// The file failed outside of a batch: closed before anyone is told.
    pub(super) fn broken(&self, what: &str) -> Broken {
        let reason = self.failed(what);
        self.shared.set_closed(|closed| closed.disk = Some(reason.clone()));
        Broken(reason)
    }

    fn failed(&self, what: &str) -> Arc<str> {
        let whose = if self.books.lease.is_some() { "database" } else { "file" };
        format!("the ledger's {whose} failed: {what}").into()
    }
}

/// A panic over the file leaves the same doubt as a disk that fails.
fn caught<T>(write: impl FnOnce() -> Result<T, BatchError>) -> Result<T, BatchError> {
    panic::catch_unwind(AssertUnwindSafe(write))
        .unwrap_or_else(|_| Err(BatchError::Disk("the ledger's writer panicked".to_owned())))
}

/// The file failed, with the reason; the queue must be refused and the file opened again.
pub(super) struct Broken(pub(super) Arc<str>);
