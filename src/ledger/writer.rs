//! The writer: one thread that owns the file. It takes what has queued, commits it, and only then lets memory follow and
//! the answers go. Batches grow under load by themselves: what queues during a commit is the next batch.

use std::{
    mem,
    panic::{self, AssertUnwindSafe},
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    archive::ArchiveError,
    batch::{BatchError, Part, Posted, Written},
    books::Books,
    claims::{SHARDS, SWEEP},
    closing::CloseError,
    file::{Head, Owner},
    mailbox::{Post, Ticket},
    observation,
    queue::{Act, Ask, Job, Redelivery, TurnEnd},
    settlements,
    shared::Shared,
    sql::SqlError,
    statements::MarkError,
    store::{CaptureError, Outcome, Unavailable},
};
use crate::wire::amount::Units;

/// The first and the longest wait before a failed file is tried again.
pub(super) const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// How often credit that nobody asks for any more is dropped on a gateway that is never idle.
const SWEEP_MS: u64 = 60_000;
/// A batch that other writers were in the way of is tried so often.
const TRIES: usize = 8;

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
    /// What was observed, for the next batch; and what the batch in doubt had of it.
    pub(super) observed: Vec<observation::Row>,
    pub(super) observed_in_doubt: Vec<observation::Row>,
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
    /// When credit was swept last, process time in ms.
    swept_ms: u64,
    /// Why offers of one gateway are refused by another, as the log has said.
    pub(super) peers: Option<String>,
    /// What the other gateways were told of the keys that seal offers.
    pub(super) published: Option<String>,
    /// When the lease was looked at last.
    pub(super) looked: Instant,
}

impl Writer {
    pub(super) fn new(shared: Arc<Shared>, books: Books, zone: String, sync: bool, owner: Option<Owner>) -> Writer {
        let (outcomes, in_doubt, kept, lapses) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let (unsure, doubt, next_shard) = (Vec::new(), None, 0);
        Writer {
            shared,
            books,
            zone,
            sync,
            _owner: owner,
            outcomes,
            observed: Vec::new(),
            observed_in_doubt: Vec::new(),
            in_doubt,
            kept,
            lapses,
            unsure,
            doubt,
            next_shard,
            swept_ms: 0,
            peers: None,
            published: None,
            looked: Instant::now(),
        }
    }

    /// Runs until the queue is closed and written.
    pub(super) fn run(mut self) {
        loop {
            let mut work = self.shared.queue.take();
            // The end of a settlement that a row's error held back.
            work.captures.extend(mem::take(&mut self.kept).into_iter().map(Job::owed));
            work.redeliveries.append(&mut self.lapses);
            self.outcomes.extend(work.outcomes);
            self.observed.extend(work.observed);
            let idle = work.captures.is_empty()
                && work.redeliveries.is_empty()
                && self.outcomes.is_empty()
                && self.observed.is_empty()
                && work.asks.is_empty();
            let mut done = self.reconnected();
            match &done {
                Ok(()) if idle => done = self.idle(),
                Ok(()) => done = self.commit(work.captures, work.redeliveries),
                Err(Broken(reason)) => self.give_up(work.captures, work.redeliveries, reason, false),
            }
            for ask in work.asks {
                match &done {
                    Ok(()) => done = self.answer(ask),
                    Err(Broken(reason)) => ask.refuse(Unavailable(reason.clone())),
                }
            }
            // However busy it is otherwise: a batch renews the lease too, a question does not.
            if done.is_ok() {
                done = self.renew();
            }
            if let Err(Broken(reason)) = done
                && !self.recover(&reason)
            {
                break;
            }
            // Outcomes of the last answers may have come during the last commit.
            if work.closing {
                self.outcomes.extend(self.shared.queue.take_outcomes());
                self.observed.extend(self.shared.queue.take_observed());
                let is_done = self.outcomes.is_empty() && self.observed.is_empty();
                if is_done || self.commit(Vec::new(), Vec::new()).is_err() {
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
        let (outcomes, observed) = (mem::take(&mut self.outcomes), mem::take(&mut self.observed));
        self.commit_part(Part { jobs, redeliveries, outcomes, observed })
    }

    fn commit_part(&mut self, mut part: Part) -> Result<(), Broken> {
        if part.len() == 0 {
            return Ok(());
        }
        let times = self.shared.times();
        let books = &mut self.books;
        let rules = self.shared.rules();
        (books.voids.most, books.keep_targets) = (rules.voids_per_day, rules.keep_targets);
        let at_disk = self.shared.at_disk();
        let mut tries = 0;
        let written = loop {
            tries += 1;
            match caught(|| books.write(&part, times)) {
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
                        self.shared.queue.observe_again(left.observed);
                        self.give_up(left.jobs, left.redeliveries, &broken.0, false);
                        Err(broken)
                    }
                }
            }
            Err(BatchError::Disk(what) | BatchError::Conflict(what)) => {
                let reason = self.failed(&what);
                self.outcomes.extend(part.outcomes);
                self.doubt = Some((*self.books.head(), self.books.attempted()));
                match self.books.attempted() {
                    None => self.shared.queue.observe_again(part.observed),
                    Some(_) => self.observed_in_doubt.extend(part.observed),
                }
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
        let now_ms = self.shared.clock.now_ms();
        if now_ms.saturating_sub(self.swept_ms) > SWEEP_MS {
            self.swept_ms = now_ms;
            claims.credit.sweep(self.shared.oldest_periods(), self.shared.passes_over_ms());
        }
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
        let claims = &self.shared.claims;
        claims.credit.sweep(self.shared.oldest_periods(), self.shared.passes_over_ms());
        if claims.held() == 0 || (self.books.lease.is_some() && !self.shared.is_open()) {
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
                let closed = retried(|| books.close_days(until, now_ms, key.as_deref()));
                // The disk has answered, before anyone hears of it.
                drop(at_disk);
                return self.tell(closed, &ticket, CloseError::Refused, CloseError::Unavailable);
            }
            Ask::Mark(mark, ticket) => {
                let now_ms = self.shared.clock.now_ms();
                let marked = retried(|| self.books.mark(&mark, now_ms));
                drop(at_disk);
                return self.tell(marked, &ticket, MarkError::Refused, MarkError::Unavailable);
            }
            Ask::TopUp(top_up, ticket) => {
                drop(at_disk);
                return self.top_up(&top_up, &ticket);
            }
            Ask::Archive(ask, ticket) => {
                let done = caught(|| ask.carry_out(&mut self.books));
                drop(at_disk);
                return self.tell(done, &ticket, ArchiveError::Stale, ArchiveError::Unavailable);
            }
            Ask::Correct(orders, ticket) => {
                let (rules, times) = (shared.rules(), shared.times());
                let done = retried(|| self.books.correct(&orders, rules, times));
                drop(at_disk);
                return self.corrected(done, &orders, &ticket);
            }
        }
        Ok(())
    }

    /// Answers an order of the operator; a file that failed is closed before that.
    pub(super) fn tell<T, E>(
        &mut self,
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
                self.doubt = Some((*self.books.head(), self.books.attempted()));
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
        format!("the ledger's {} failed: {what}", self.whose()).into()
    }

    /// For people: what the ledger is.
    pub(super) fn whose(&self) -> &'static str {
        if self.books.lease.is_some() { "database" } else { "file" }
    }
}

/// Once more where other writers were in the way, which is certain not to have taken place.
pub(super) fn retried<T>(mut write: impl FnMut() -> Result<T, BatchError>) -> Result<T, BatchError> {
    for _ in 1..TRIES {
        match caught(&mut write) {
            Err(BatchError::Conflict(what)) => tracing::debug!(what, "an order is tried again"),
            written => return written,
        }
    }
    caught(write)
}

/// A panic over the file leaves the same doubt as a disk that fails.
fn caught<T>(write: impl FnOnce() -> Result<T, BatchError>) -> Result<T, BatchError> {
    panic::catch_unwind(AssertUnwindSafe(write))
        .unwrap_or_else(|_| Err(BatchError::Disk("the ledger's writer panicked".to_owned())))
}

/// The file failed, with the reason; the queue must be refused and the file opened again.
pub(super) struct Broken(pub(super) Arc<str>);
