//! What waits for the writer.

use std::{
    collections::VecDeque,
    mem,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use super::{
    archive::{
        ArchiveError,
        store::{ArchiveAsk, ArchiveTicket},
    },
    close::Close,
    closing::CloseError,
    correcting::CorrectResult,
    correction::Order,
    mailbox::{Answer, Ticket},
    observation::{Observation, Observations, Row},
    settling::{Bought, Intent},
    statements::{Mark, MarkError},
    store::{Claim, Outcome, Posting, Terms, Unavailable},
    top_up::{TopUp, TopUpError, TopUpResult},
};
use crate::payment::{gateway_key::GatewayKey, key::PaymentKey};

/// Outcomes, and what was observed, wait this long for a batch to ride on.
const OUTCOME_WAIT: Duration = Duration::from_secs(1);
/// Outcomes that may wait while the disk is gone; those over it are dropped, and their captures stand as unproven.
const OUTCOMES_MAX: usize = 1 << 18;

/// Postings, outcomes and questions on their way to the writer.
#[derive(Default)]
pub(super) struct Queue {
    waiting: Mutex<Work>,
    changed: Condvar,
    capture_max: usize,
    /// How long the writer waits when nothing happens.
    idle: Duration,
}

/// Everything that has queued.
#[derive(Default)]
pub(super) struct Work {
    pub(super) captures: Vec<Job>,
    pub(super) outcomes: Vec<Outcome>,
    pub(super) redeliveries: Vec<Redelivery>,
    pub(super) asks: VecDeque<Ask>,
    /// What was observed and has not been taken.
    observations: Observations,
    /// What was observed, taken.
    pub(super) observed: Vec<Row>,
    /// Write the outcomes too and end.
    pub(super) closing: bool,
    /// Why nothing is taken now.
    refusing: Option<Arc<str>>,
    /// Outcomes should not wait.
    hurry: bool,
}

/// A posting of a claimed payment, and who waits for it.
pub(super) struct Job {
    pub(super) claim: Claim,
    pub(super) posting: Posting,
    pub(super) act: Act,
    pub(super) answer: Answer,
}

impl Job {
    /// The same, for a payer who was told that it could not be written.
    pub(super) fn owed(mut self) -> Job {
        if let Act::Settle { owed, .. } = &mut self.act {
            *owed = true;
        }
        self
    }
}

/// What a posting does to its payment.
#[derive(Clone)]
pub(super) enum Act {
    /// Charges a claim.
    Capture,
    /// Money is about to move.
    Intend(Arc<Intent>),
    /// Money moved.
    Settle { intent: Arc<Intent>, owed: bool },
    /// No money will move.
    Fail(Arc<Intent>),
}

/// A captured payment whose turn of being served once more ends for good.
pub(super) struct Redelivery {
    pub(super) key: PaymentKey,
    /// The capture.
    pub(super) n: i64,
    pub(super) end: TurnEnd,
    pub(super) answer: Answer,
}

/// How it ends; see [`super::turns`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TurnEnd {
    /// The origin has succeeded.
    Served,
    /// That was the last turn. Nobody waits for it.
    Lapsed,
}

/// A call that is no posting.
pub(super) enum Ask {
    Remember(Vec<([u8; 32], Vec<u8>)>, Arc<Ticket<Result<(), Unavailable>>>),
    Recent(u64, Arc<Ticket<Result<Terms, Unavailable>>>),
    Find(PaymentKey, Arc<Ticket<Result<Option<Bought>, Unavailable>>>),
    /// The settlement of this payment ended without a verdict.
    Unknown(PaymentKey),
    /// Close the days before this one; the key signs it.
    Close(i64, Option<Arc<GatewayKey>>, Arc<Ticket<Result<Close, CloseError>>>),
    Mark(Mark, Arc<Ticket<Result<(), MarkError>>>),
    Correct(Vec<Order>, Arc<Ticket<CorrectResult>>),
    TopUp(TopUp, Arc<Ticket<TopUpResult>>),
    Archive(ArchiveAsk, ArchiveTicket),
}

impl Ask {
    /// Answers that it cannot be done.
    pub(super) fn refuse(self, error: Unavailable) {
        match self {
            Ask::Remember(_, ticket) => ticket.fill(Err(error)),
            Ask::Recent(_, ticket) => ticket.fill(Err(error)),
            Ask::Find(_, ticket) => ticket.fill(Err(error)),
            // The row says that it is being settled, which is read the same way.
            Ask::Unknown(_) => {}
            Ask::Correct(_, ticket) => ticket.fill(Err(error)),
            Ask::TopUp(_, ticket) => ticket.fill(Err(TopUpError::Unavailable(error))),
            Ask::Archive(_, ticket) => ticket.fill(Err(ArchiveError::Unavailable(error))),
            Ask::Mark(_, ticket) => ticket.fill(Err(MarkError::Unavailable(error))),
            Ask::Close(_, _, ticket) => ticket.fill(Err(CloseError::Unavailable(error))),
        }
    }
}

impl Queue {
    pub(super) fn new(capture_max: usize, idle: Duration) -> Queue {
        Queue { capture_max, idle, ..Queue::default() }
    }

    /// Queues a capture; a full or refusing queue gives it back with the reason.
    // The job is the caller's again, by value, on the rare path.
    #[allow(clippy::result_large_err)]
    pub(super) fn push_capture(&self, job: Job) -> Result<(), (Job, Unavailable)> {
        let mut work = self.lock();
        if let Some(reason) = work.refused() {
            return Err((job, reason));
        }
        if work.captures.len() >= self.capture_max {
            return Err((job, Unavailable("too many captures wait for the disk (ledger.queue_max)".into())));
        }
        work.captures.push(job);
        let first = work.captures.len() == 1;
        drop(work);
        // Later ones find the writer awake, or about to be.
        if first {
            self.changed.notify_one();
        }
        Ok(())
    }

    /// Queues an outcome. It does not hurry the writer.
    pub(super) fn push_outcome(&self, outcome: Outcome) {
        let mut work = self.lock();
        if work.outcomes.len() >= OUTCOMES_MAX {
            return;
        }
        work.outcomes.push(outcome);
        if work.outcomes.len() == 1 {
            self.changed.notify_one();
        }
    }

    /// Queues what was observed. It does not hurry the writer, and stays while nothing is written.
    pub(super) fn push_observation(&self, observation: Observation) {
        let mut work = self.lock();
        let first = work.observations.is_empty();
        work.observations.add(observation);
        if first {
            self.changed.notify_one();
        }
    }

    /// Takes back what was observed and could not be written.
    pub(super) fn observe_again(&self, rows: Vec<Row>) {
        self.lock().observations.take_back(rows);
    }

    /// What was observed, without waiting.
    pub(super) fn take_observed(&self) -> Vec<Row> {
        self.lock().take_observed()
    }

    pub(super) fn ask(&self, ask: Ask) {
        let mut work = self.lock();
        match work.refused() {
            Some(reason) => ask.refuse(reason),
            None => work.asks.push_back(ask),
        }
        self.changed.notify_one();
    }

    /// Queues a redelivery; gives it back when nothing is taken.
    pub(super) fn push_redelivery(&self, redelivery: Redelivery) -> Result<(), Unavailable> {
        let mut work = self.lock();
        if let Some(reason) = work.refused() {
            return Err(reason);
        }
        work.redeliveries.push(redelivery);
        self.changed.notify_one();
        Ok(())
    }

    /// Waits for work and takes all of it. Empty work means that nothing happened for a while.
    pub(super) fn take(&self) -> Work {
        let mut work = self.lock();
        if work.is_quiet() && !work.has_followers() {
            let idle = |work: &mut Work| work.is_quiet() && !work.has_followers();
            work = self.changed.wait_timeout_while(work, self.idle, idle).unwrap_or_else(PoisonError::into_inner).0;
        }
        if work.is_quiet() && work.has_followers() {
            let wait = self.changed.wait_timeout_while(work, OUTCOME_WAIT, |work| work.is_quiet());
            work = wait.unwrap_or_else(PoisonError::into_inner).0;
        }
        work.hurry = false;
        let observed = work.take_observed();
        let rest = Work {
            observations: mem::take(&mut work.observations),
            closing: work.closing,
            refusing: work.refusing.clone(),
            ..Work::default()
        };
        Work { observed, ..mem::replace(&mut work, rest) }
    }

    /// Refuses everything from now on, and gives up what has queued and is not written; outcomes and what was
    /// observed stay.
    pub(super) fn refuse(&self, reason: &Arc<str>) -> Work {
        let mut work = self.lock();
        work.refusing = Some(reason.clone());
        let rest = Work {
            outcomes: mem::take(&mut work.outcomes),
            observations: mem::take(&mut work.observations),
            closing: work.closing,
            refusing: work.refusing.clone(),
            ..Work::default()
        };
        mem::replace(&mut work, rest)
    }

    /// Takes work again.
    pub(super) fn accept(&self) {
        self.lock().refusing = None;
    }

    /// The outcomes, without waiting.
    pub(super) fn take_outcomes(&self) -> Vec<Outcome> {
        mem::take(&mut self.lock().outcomes)
    }

    /// Waits before the disk is tried again; true when the ledger is closing.
    pub(super) fn wait_or_closing(&self, wait: Duration) -> bool {
        let work = self.lock();
        let wait = self.changed.wait_timeout_while(work, wait, |work| !work.closing && !work.hurry);
        let mut work = wait.unwrap_or_else(PoisonError::into_inner).0;
        work.hurry = false;
        work.closing
    }

    /// Lets outcomes, and a writer that waits for its disk, go at once.
    pub(super) fn hurry(&self) {
        self.lock().hurry = true;
        self.changed.notify_one();
    }

    /// Asks the writer to write what it has and end.
    pub(super) fn close(&self) {
        self.lock().closing = true;
        self.changed.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, Work> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Work {
    fn is_quiet(&self) -> bool {
        self.captures.is_empty() && self.redeliveries.is_empty() && self.asks.is_empty() && !self.closing && !self.hurry
    }

    /// Whether there is what rides on the next batch, or makes one of its own after a while.
    fn has_followers(&self) -> bool {
        !self.outcomes.is_empty() || !self.observations.is_empty()
    }

    fn take_observed(&mut self) -> Vec<Row> {
        let (rows, lost) = self.observations.take();
        if lost > 0 {
            tracing::warn!(
                requests = lost,
                "observed requests are counted nowhere: there were too many kinds of them at once"
            );
        }
        rows
    }

    fn refused(&self) -> Option<Unavailable> {
        if self.closing { Some(Unavailable("the ledger is closing".into())) } else { None }
            .or_else(|| self.refusing.clone().map(Unavailable))
    }
}
