//! What the threads of a ledger share: memory, the queue to the writer, and whether priced routes may be served.

use std::{
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use super::{
    batch::Times,
    claims::Claims,
    clock_rule::ClockRule,
    correction::Rules,
    day::{CreditPeriod, credit_period},
    mailbox::{Answer, CaptureResult, Filled, Lent, Ticket},
    options::LedgerOptions,
    place::Place,
    postgres::{
        self,
        desk::{Desk, Word},
    },
    queue::{Ask, Queue, Redelivery, TurnEnd},
    sql::{Session, SqlResult},
    store::{CaptureError, Claim, ClaimError, Delivery, Health, Outcome, Receipt, Released, Settling, Unresolved},
};
use crate::{clock::Clock, payment::key::PaymentKey};

/// A payment is valid for at most this long without an id, whatever the configured ttl.
const TTL_FLOOR_MS: u64 = 300_000;
/// A disk that takes longer than this for one step closes priced routes: their payments would only pile up before it.
const STALL_MS: u64 = 2000;
/// Credit periods are remembered for this long after their start.
const PERIODS_MS: u64 = 63 * 86_400_000;
/// A request is permitted by a pass at most so long before it is claimed.
const PASSES_MS: u64 = 3_600_000;
/// How long the writer waits for work before it looks at the replay floor, and, on a server, renews its lease.
const IDLE: Duration = Duration::from_secs(10);
const RENEW_EVERY: Duration = Duration::from_secs(1);

/// What the threads share.
pub(super) struct Shared {
    pub(super) clock: Clock,
    pub(super) claims: Arc<Claims>,
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
    secret_prints: Mutex<String>,
    /// What another gateway's keys that seal offers lack, or ours.
    disagreement: Mutex<Option<String>>,
    pub(super) apart_max_ms: Option<u64>,
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
    /// The clock of the ledger's server is another one.
    pub(super) apart: Option<Arc<str>>,
}

impl Shared {
    /// Of a ledger that is not open.
    pub(super) fn new(options: &LedgerOptions, claims: Arc<Claims>, desk: Option<Desk>) -> Shared {
        let idle = if desk.is_some() { RENEW_EVERY } else { IDLE };
        Shared {
            clock: options.clock.clone(),
            claims,
            queue: Queue::new(options.queue_max, idle),
            place: OnceLock::new(),
            closed: Mutex::new(Closed {
                disk: Some("the ledger is being opened".into()),
                file: None,
                clock: None,
                apart: None,
            }),
            open: AtomicBool::new(false),
            opened: AtomicBool::new(false),
            rule: Mutex::new(ClockRule::new(0, 0)),
            rules: Mutex::default(),
            ttl_max_ms: AtomicU64::new(options.ttl_max_ms),
            skew_ms: options.skew_ms,
            secret_prints: Mutex::new(options.secret_prints.clone()),
            disagreement: Mutex::default(),
            apart_max_ms: options.apart_max_ms,
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

    /// Fingerprints of the keys that seal offers; empty where nobody compares them.
    pub(super) fn secret_prints(&self) -> String {
        self.secret_prints.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn set_secret_prints(&self, prints: String) {
        *self.secret_prints.lock().unwrap_or_else(PoisonError::into_inner) = prints;
    }

    pub(super) fn disagreement(&self) -> Option<String> {
        self.disagreement.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn set_disagreement(&self, what: Option<String>) {
        *self.disagreement.lock().unwrap_or_else(PoisonError::into_inner) = what;
    }

    pub(super) fn check_clock(&self) {
        let rule = *self.rule.lock().unwrap_or_else(PoisonError::into_inner);
        let reason = rule.check(self.clock.now_ms(), self.clock.wall_ms()).map(Arc::from);
        self.set_closed(|closed| closed.clock = reason);
    }

    /// Holds process time against the clock of the ledger's server.
    pub(super) fn compare_clocks(&self, connection: &Session) -> SqlResult<()> {
        let Some(apart_max_ms) = self.apart_max_ms.filter(|_| self.desk.is_some()) else { return Ok(()) };
        let theirs_ms = postgres::lease::server_ms(connection)?;
        let apart_ms = self.clock.now_ms().abs_diff(theirs_ms);
        let reason = (apart_ms > apart_max_ms).then(|| {
            let seconds = apart_ms / 1000;
            format!(
                "the clocks of this machine and of the ledger's database are {seconds} s apart: set the wrong one right"
            )
        });
        let reason: Option<Arc<str>> = reason.map(Into::into);
        let mut before = None;
        self.set_closed(|closed| before = std::mem::replace(&mut closed.apart, reason.clone()));
        match (before, reason) {
            (None, Some(reason)) => {
                tracing::error!(reason = &*reason, "priced routes are closed until the clocks agree")
            }
            (Some(_), None) => tracing::info!("this machine's clock agrees with that of the ledger's database"),
            _ => {}
        }
        Ok(())
    }

    pub(super) fn accept_clock(&self) {
        self.clock.accept_wall();
        self.rule.lock().unwrap_or_else(PoisonError::into_inner).accept();
        self.check_clock();
    }

    pub(super) fn health(&self) -> Health {
        let closed = self.closed.lock().unwrap_or_else(PoisonError::into_inner);
        let reason =
            closed.disk.as_ref().or(closed.file.as_ref()).or(closed.clock.as_ref()).or(closed.apart.as_ref()).cloned();
        drop(closed);
        let reason = reason.or_else(|| self.desk.as_ref().and_then(|desk| desk.problem())).or_else(|| self.stall());
        reason.or_else(|| self.lease_over()).map_or(Health::Open, Health::Closed)
    }

    /// Why to close once the server has not heard of this gateway for too long. It opens by itself.
    fn lease_over(&self) -> Option<Arc<str>> {
        let over = self.desk.as_ref().is_some_and(|desk| desk.held().is_over(self.clock.now_ms()));
        over.then(|| "the lease on the ledger's database has run out; it is being renewed".into())
    }

    /// Waits for a capture. Should nobody wait any longer, its answer was not sent: somebody owes for what he will not be given.
    pub(super) fn answered(
        self: &Arc<Self>,
        filled: Filled<CaptureResult>,
    ) -> impl Future<Output = CaptureResult> + Send + use<> {
        let shared = self.clone();
        Lent::new(filled, move |result: CaptureResult| {
            if let Ok(Receipt { n, .. }) = result {
                let delivery = Delivery::NotSent;
                shared.queue.push_outcome(Outcome { n, delivery, void: true, ms: 0, bytes: 0 });
            }
        })
    }

    /// Waits for the database to grant a claim that memory has granted. Should nobody wait any longer, it is given back.
    pub(super) fn granted(
        self: &Arc<Self>,
        filled: Filled<Result<(), ClaimError>>,
        claim: Claim,
    ) -> impl Future<Output = Result<Claim, ClaimError>> + Send + use<> {
        let (shared, twin) = (self.clone(), claim.twin());
        let end = move |granted: Result<(), ClaimError>| match granted {
            Ok(()) => shared.release(&twin, Released::NotAsked),
            Err(error) => shared.claims.refused(&twin, &error),
        };
        let (lent, shared) = (Lent::new(filled, end), self.clone());
        async move {
            match lent.await {
                Ok(()) => Ok(claim),
                Err(error) => {
                    shared.claims.refused(&claim, &error);
                    Err(error)
                }
            }
        }
    }

    /// Waits for an intent. Should nobody wait any longer, nobody will settle it in this hand, so whatever is on disk is left to
    /// be resolved.
    pub(super) fn intended(
        self: &Arc<Self>,
        filled: Filled<CaptureResult>,
        settling: Settling,
    ) -> impl Future<Output = Result<Settling, CaptureError>> + Send + use<> {
        let (shared, twin) = (self.clone(), settling.twin());
        let lent = Lent::new(filled, move |result: CaptureResult| {
            if result.is_ok() {
                shared.unresolve(twin);
            }
        });
        async move { lent.await.map(|_| settling) }
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
    pub(super) fn at_disk(&self) -> AtDisk<'_> {
        self.at_disk_ms.store(self.clock.now_ms().max(1), Ordering::Relaxed);
        AtDisk(self)
    }

    pub(super) fn set_closed(&self, change: impl FnOnce(&mut Closed)) {
        let mut closed = self.closed.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut closed);
        let open = closed.disk.is_none() && closed.file.is_none() && closed.clock.is_none() && closed.apart.is_none();
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

    pub(super) fn times(&self) -> Times {
        let now_ms = self.clock.now_ms();
        let ttl_ms = self.ttl_max_ms.load(Ordering::Relaxed).max(TTL_FLOOR_MS);
        let floor_ms = now_ms.saturating_sub(ttl_ms).saturating_sub(2 * self.skew_ms);
        Times { now_ms, wall_ms: self.clock.wall_ms(), floor_ms }
    }

    /// Passes that were over before this are claimed by nobody any more, Unix ms.
    pub(super) fn passes_over_ms(&self) -> u64 {
        self.clock.now_ms().saturating_sub(PASSES_MS)
    }

    /// Day and month before which credit is no longer asked for.
    pub(super) fn oldest_periods(&self) -> (i64, i64) {
        let at_ms = self.clock.now_ms().saturating_sub(PERIODS_MS);
        (credit_period(CreditPeriod::Day, at_ms), credit_period(CreditPeriod::Month, at_ms))
    }
}

/// Dropped when the disk has answered, also by a panic.
pub(super) struct AtDisk<'s>(&'s Shared);

impl Drop for AtDisk<'_> {
    fn drop(&mut self) {
        self.0.at_disk_ms.store(0, Ordering::Relaxed);
    }
}
