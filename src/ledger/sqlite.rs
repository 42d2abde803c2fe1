//! The ledger of one gateway, in an SQLite file.

use std::{
    future,
    path::PathBuf,
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use super::{
    books::Books,
    claims::{Claims, use_key},
    clock_rule::ClockRule,
    credit::is_before,
    faults::{Faults, NoFaults},
    file::Owner,
    limits,
    mailbox::{Answer, Captured, Filled, Intended, Ticket},
    place::Place,
    queue::{Act, Ask, Job, Queue, Redelivery},
    settlements,
    store::{
        Bought, CaptureError, Claim, ClaimError, ClaimRequest, Delivery, Health, Intent, Look, Outcome, Posting,
        Receipt, Released, Settling, Store, StoreFuture, Terms, Unavailable, Unresolved,
    },
    writer::{Closed, Shared, Writer},
};
use crate::{
    clock::Clock,
    payment::key::{KeyKind, PaymentKey},
};

pub use super::file::OpenError;

/// The largest clock skew that a configuration may allow: captures are posted at most this long before the time that
/// their payment names.
const SKEW_MAX_MS: u64 = 300_000;
/// How long [`SqliteStore::close`] waits for the disk.
const CLOSE_WAIT: Duration = Duration::from_secs(10);

/// How a ledger is opened.
#[derive(Clone, Debug)]
pub struct SqliteOptions {
    /// The file; made when it is missing.
    pub path: PathBuf,
    /// IANA zone of book days, `UTC`; fixed when the file is made.
    pub zone: String,
    /// Payments remembered above the replay floor; a full memory answers 503.
    pub keys_max: usize,
    /// Captures that may wait for the disk; more answer 503.
    pub queue_max: usize,
    /// False loses the last payments with the machine's power.
    pub sync: bool,
    /// The longest ttl of an offer that may still be presented, templates of earlier configurations included.
    pub ttl_max_ms: u64,
    /// Clock skew allowed to agents, at most 300,000.
    pub skew_ms: u64,
    /// Time.
    pub clock: Clock,
}

/// The open ledger. Owns the map of live and captured payments; its writer thread owns the file.
pub struct SqliteStore {
    shared: Arc<Shared>,
    rule: Mutex<ClockRule>,
    made: bool,
    ended: Arc<(Mutex<bool>, Condvar)>,
}

impl SqliteStore {
    /// Locks and opens the file, checks the end of its chain, loads what is above the replay floor, starts the writer.
    ///
    /// # Errors
    /// [`OpenError`] says what is wrong with the file and whose move it is.
    pub fn open(options: SqliteOptions) -> Result<Arc<SqliteStore>, OpenError> {
        SqliteStore::open_with_faults(options, Arc::new(NoFaults))
    }

    /// [`SqliteStore::open`], and a ledger that is made by it takes no payment from before `floor_ms`, Unix ms: it does
    /// not know which of them were used.
    ///
    /// # Errors
    /// As [`SqliteStore::open`].
    pub fn open_since(options: SqliteOptions, floor_ms: u64) -> Result<Arc<SqliteStore>, OpenError> {
        SqliteStore::open_from(options, floor_ms, Arc::new(NoFaults))
    }

    /// [`SqliteStore::open`] with a disk that fails where a test says.
    ///
    /// # Errors
    /// As [`SqliteStore::open`].
    pub fn open_with_faults(options: SqliteOptions, faults: Arc<dyn Faults>) -> Result<Arc<SqliteStore>, OpenError> {
        SqliteStore::open_from(options, 0, faults)
    }

    fn open_from(
        options: SqliteOptions,
        floor_ms: u64,
        faults: Arc<dyn Faults>,
    ) -> Result<Arc<SqliteStore>, OpenError> {
        let owner = Owner::lock(&options.path)?;
        let books = Books::open(&options.path, &options.zone, options.sync, floor_ms, faults)?;
        let io = |error: std::io::Error| OpenError::Io { path: options.path.clone(), what: error.to_string() };
        let place = Place::of(&options.path).map_err(io)?;
        let rule = ClockRule::new(books.head().at_ms.unsigned_abs(), books.floor_ms());
        let shared = Arc::new(Shared {
            clock: options.clock,
            claims: Claims::new(options.keys_max, books.floor_ms()),
            queue: Queue::new(options.queue_max),
            place,
            closed: Mutex::new(Closed::default()),
            open: AtomicBool::new(true),
            ttl_max_ms: AtomicU64::new(options.ttl_max_ms),
            skew_ms: options.skew_ms,
            at_disk_ms: AtomicU64::new(0),
        });
        load(&shared, &books).map_err(|error| OpenError::from_sqlite(&options.path, &error))?;
        let (rule, made) = (Mutex::new(rule), books.book.made);
        let store = Arc::new(SqliteStore { shared: shared.clone(), rule, made, ended: Arc::default() });
        store.check_clock();
        let ended = store.ended.clone();
        let writer = Writer::new(shared, books, options.zone, options.sync, owner);
        let spawned = thread::Builder::new().name("ledger".to_owned()).spawn(move || {
            // Set however the thread ends, so that nobody waits for a dead writer.
            let _ended = SetOnDrop(ended);
            writer.run();
        });
        spawned.map_err(|error| OpenError::Io { path: options.path, what: error.to_string() })?;
        Ok(store)
    }

    /// Writes what has queued, outcomes included, and closes the file. Captures from now on answer unavailable.
    ///
    /// # Errors
    /// The disk did not take it within 10 s; what was answered is on disk, outcomes may be missing.
    pub fn close(&self) -> Result<(), Unavailable> {
        self.shared.queue.close();
        let (ended, changed) = &*self.ended;
        let ended = ended.lock().unwrap_or_else(PoisonError::into_inner);
        let wait = changed.wait_timeout_while(ended, CLOSE_WAIT, |ended| !*ended);
        let (ended, _) = wait.unwrap_or_else(PoisonError::into_inner);
        if *ended { Ok(()) } else { Err(Unavailable("the disk did not take the last outcomes in time".into())) }
    }

    /// Holds process time against the wall clock; the control thread calls it each second. While they are apart, or the
    /// clock is behind the books, priced routes are closed.
    pub fn check_clock(&self) {
        let clock = &self.shared.clock;
        let rule = *self.rule.lock().unwrap_or_else(PoisonError::into_inner);
        let reason = rule.check(clock.now_ms(), clock.wall_ms()).map(Arc::from);
        self.shared.set_closed(|closed| closed.clock = reason);
    }

    /// Looks whether the path still names the open file; called each second, from where a file system that hangs does no
    /// harm. Until it does, priced routes are closed: nobody would find what is written.
    pub fn check_file(&self) {
        let problem: Option<Arc<str>> = self.shared.place.problem().map(Arc::from);
        let mut before = None;
        self.shared.set_closed(|closed| before = std::mem::replace(&mut closed.file, problem.clone()));
        match problem {
            Some(reason) if before.as_ref() != Some(&reason) => {
                tracing::error!(reason = &*reason, "priced routes are closed until the ledger's file is back");
            }
            None if before.is_some() => tracing::info!("the ledger's file is back"),
            _ => {}
        }
    }

    /// Whether the file was made by this opening.
    pub fn is_new(&self) -> bool {
        self.made
    }

    /// The operator's word that the wall clock is right: process time follows it.
    pub fn accept_clock(&self) {
        self.shared.clock.accept_wall();
        self.rule.lock().unwrap_or_else(PoisonError::into_inner).accept();
        self.check_clock();
    }

    /// A configuration was loaded whose offers live this long; the floor leaves room for the longest so far.
    pub fn raise_ttl_max(&self, ttl_max_ms: u64) {
        self.shared.ttl_max_ms.fetch_max(ttl_max_ms, Ordering::Relaxed);
    }

    /// The replay floor in force, Unix ms.
    pub fn replay_floor_ms(&self) -> u64 {
        self.shared.claims.floor_ms()
    }

    /// Payments in memory.
    pub fn keys_held(&self) -> usize {
        self.shared.claims.held()
    }

    /// Claimed and captured by an account in a period, as a claim would count it.
    pub fn used(&self, request: &ClaimRequest) -> crate::wire::amount::Units {
        self.shared.claims.credit.used(&use_key(request))
    }

    /// Lets waiting outcomes, or the next try of a failed disk, go now rather than after their wait.
    pub fn hurry(&self) {
        self.shared.queue.hurry();
    }

    /// Queues the end of a settlement. It is never given up: see [`Store::settled`].
    fn end(&self, claim: Claim, posting: Posting, act: Act) -> StoreFuture<Result<Receipt, CaptureError>> {
        let owed = matches!(act, Act::Settle { owed: true, .. });
        let (answer, filled) = Answer::new();
        match self.shared.queue.push_capture(Job { claim, posting, act, answer }) {
            Ok(()) if owed => Box::pin(filled),
            Ok(()) => {
                let shared = self.shared.clone();
                Box::pin(Captured::new(filled, move |receipt: Receipt| {
                    let (n, delivery) = (receipt.n, Delivery::NotSent);
                    shared.queue.push_outcome(Outcome { n, delivery, void: true, ms: 0, bytes: 0 });
                }))
            }
            Err((job, unavailable)) => {
                // The row of its intent stays; the payment can be looked up later.
                if let Act::Settle { intent, .. } | Act::Fail(intent) = job.act {
                    self.shared.unresolve(Settling { claim: job.claim, intent });
                }
                Box::pin(future::ready(Err(unavailable.into())))
            }
        }
    }

    fn open_now(&self) -> Result<(), Unavailable> {
        if self.shared.is_open() {
            return Ok(());
        }
        match self.shared.health() {
            Health::Open => Ok(()),
            Health::Closed(reason) => Err(Unavailable(reason)),
        }
    }
}

impl Drop for SqliteStore {
    fn drop(&mut self) {
        self.shared.queue.close();
    }
}

impl Store for SqliteStore {
    fn claim(&self, request: ClaimRequest) -> StoreFuture<Result<Claim, ClaimError>> {
        let now_ms = self.shared.clock.now_ms();
        let claim = self.open_now().map_err(ClaimError::from).and_then(|()| self.shared.claims.claim(request, now_ms));
        Box::pin(future::ready(claim))
    }

    fn look(&self, key: PaymentKey) -> StoreFuture<Result<Look, Unavailable>> {
        // Memory holds every capture above the floor, and below it nothing is claimed.
        Box::pin(future::ready(Ok(self.shared.claims.look(&key))))
    }

    fn release(&self, claim: Claim, why: Released) {
        self.shared.claims.release(&claim, why, self.shared.clock.now_ms());
    }

    fn capture(&self, claim: Claim, posting: Posting) -> StoreFuture<Result<Receipt, CaptureError>> {
        if !self.shared.claims.is_live(&claim) {
            return Box::pin(future::ready(Err(CaptureError::Lost)));
        }
        if let Err(what) = limits::check(&claim, &posting) {
            // Counted in every way: this request has cost an origin call, and would cost one each time.
            self.shared.claims.release(&claim, Released::ClientLeft, self.shared.clock.now_ms());
            return Box::pin(future::ready(Err(Unavailable(what.into()).into())));
        }
        let (answer, filled) = Answer::new();
        match self.shared.queue.push_capture(Job { claim, posting, act: Act::Capture, answer }) {
            Ok(()) => {
                let shared = self.shared.clone();
                Box::pin(Captured::new(filled, move |receipt: Receipt| {
                    let (n, delivery) = (receipt.n, Delivery::NotSent);
                    shared.queue.push_outcome(Outcome { n, delivery, void: true, ms: 0, bytes: 0 });
                }))
            }
            Err((job, unavailable)) => {
                self.shared.claims.give_back(&job.claim);
                Box::pin(future::ready(Err(unavailable.into())))
            }
        }
    }

    fn intend(&self, claim: Claim, intent: Intent) -> StoreFuture<Result<Settling, CaptureError>> {
        if !self.shared.claims.is_live(&claim) {
            return Box::pin(future::ready(Err(CaptureError::Lost)));
        }
        if let Err(what) = limits::check(&claim, &intent.posting) {
            self.shared.claims.release(&claim, Released::ClientLeft, self.shared.clock.now_ms());
            return Box::pin(future::ready(Err(Unavailable(what.into()).into())));
        }
        let (answer, filled) = Answer::new();
        let intent = Arc::new(intent);
        let settling = Settling { claim: claim.twin(), intent: intent.clone() };
        let posting = intent.posting.clone();
        match self.shared.queue.push_capture(Job { claim, posting, act: Act::Intend(intent), answer }) {
            // Whoever drops this future never asks a facilitator: the payment is unresolved only for the look of it.
            Ok(()) => Box::pin(Intended::new(filled, self.shared.clone(), settling)),
            Err((job, unavailable)) => {
                self.shared.claims.give_back(&job.claim);
                Box::pin(future::ready(Err(unavailable.into())))
            }
        }
    }

    fn settled(&self, settling: Settling, posting: Posting, owed: bool) -> StoreFuture<Result<Receipt, CaptureError>> {
        let Settling { claim, intent } = settling;
        self.end(claim, posting, Act::Settle { intent, owed })
    }

    fn failed(&self, settling: Settling, posting: Posting) -> StoreFuture<Result<Receipt, CaptureError>> {
        let Settling { claim, intent } = settling;
        self.end(claim, posting, Act::Fail(intent))
    }

    fn unknown(&self, settling: Settling) {
        self.shared.unresolve(settling);
    }

    fn unresolved(&self) -> Vec<Unresolved> {
        self.shared.claims.unresolved.all()
    }

    fn adopt(&self, key: PaymentKey) -> Option<Settling> {
        self.shared.claims.adopt(&key)
    }

    fn find(&self, key: PaymentKey) -> StoreFuture<Result<Option<Bought>, Unavailable>> {
        let ticket = Ticket::new();
        self.shared.queue.ask(Ask::Find(key, ticket.clone()));
        Box::pin(Filled(ticket))
    }

    fn redeliver(&self, key: PaymentKey) -> StoreFuture<Result<Receipt, CaptureError>> {
        let Some(n) = self.shared.claims.take_owed(&key) else {
            return Box::pin(future::ready(Err(CaptureError::Lost)));
        };
        let (answer, filled) = Answer::new();
        match self.shared.queue.push_redelivery(Redelivery { key, n, answer }) {
            Ok(()) => Box::pin(filled),
            Err(unavailable) => {
                self.shared.claims.owe(&key, n);
                Box::pin(future::ready(Err(unavailable.into())))
            }
        }
    }

    fn outcome(&self, outcome: Outcome) {
        self.shared.queue.push_outcome(outcome);
    }

    fn remember_terms(&self, terms: Vec<([u8; 32], Vec<u8>)>) -> StoreFuture<Result<(), Unavailable>> {
        let ticket = Ticket::new();
        self.shared.queue.ask(Ask::Remember(terms, ticket.clone()));
        Box::pin(Filled(ticket))
    }

    fn recent_terms(&self, since_ms: u64) -> StoreFuture<Result<Terms, Unavailable>> {
        let ticket = Ticket::new();
        self.shared.queue.ask(Ask::Recent(since_ms, ticket.clone()));
        Box::pin(Filled(ticket))
    }

    fn health(&self) -> Health {
        self.shared.health()
    }

    fn is_open(&self) -> bool {
        self.shared.is_open() && !self.shared.claims.is_full()
    }
}

/// Fills memory with captures above the floor and with the credit of recent periods.
fn load(shared: &Shared, books: &Books) -> rusqlite::Result<()> {
    let floor_ms = books.floor_ms();
    // A payment may name a time up to the skew after its posting, so the walk goes on that much longer.
    books.captures_since(floor_ms.saturating_sub(SKEW_MAX_MS), |key, n, at_ms, owed| {
        let payment = key.payment();
        let paid_at_ms = match payment.as_bytes() {
            [kind, time @ .., _, _, _, _, _, _, _, _, _, _] if *kind == KeyKind::OfferId as u8 => {
                time.iter().fold(0, |ms, byte| ms << 8 | u64::from(*byte))
            }
            _ => at_ms.unsigned_abs().saturating_add(SKEW_MAX_MS),
        };
        if paid_at_ms >= floor_ms {
            shared.claims.load(payment, n, owed, paid_at_ms);
        }
    })?;
    let oldest = shared.oldest_periods();
    let mut used = books.account_use()?;
    used.retain(|((_, _, period), _)| !is_before(*period, oldest));
    shared.claims.credit.load(used);
    for unresolved in settlements::open_settlements(&books.connection)? {
        tracing::warn!(payment = %unresolved.request.key, "whether this payment moved money is not known");
        shared.claims.load_unresolved(unresolved);
    }
    Ok(())
}

/// Sets the flag and wakes who waits for it, also when the thread panics.
struct SetOnDrop(Arc<(Mutex<bool>, Condvar)>);

impl Drop for SetOnDrop {
    fn drop(&mut self) {
        *self.0.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.0.1.notify_all();
    }
}
