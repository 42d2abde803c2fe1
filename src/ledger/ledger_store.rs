//! The ledger of a gateway: opened, watched, closed, and the operator's orders. `port` is what a request needs of it.

use std::{
    future,
    path::PathBuf,
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        atomic::Ordering,
        mpsc::{self, Receiver, RecvTimeoutError},
    },
    thread,
    time::Duration,
};

use super::{
    claims::{Claims, use_key},
    close::Close,
    closing::CloseError,
    correction::Rules,
    faults::{Faults, NoFaults},
    location::Location,
    mailbox::{Answer, Filled, Ticket},
    opening::Opening,
    postgres::desk::Desk,
    queue::{Act, Ask, Job},
    shared::Shared,
    statements::{Mark, MarkError},
    store::{
        CaptureError, Claim, ClaimRequest, Health, Outcome, Outcomes, Posting, Receipt, Settling, StoreFuture,
        Unavailable,
    },
    top_up::{TopUp, TopUpError, ToppedUp},
    views::Views,
};
use crate::payment::{gateway_key::GatewayKey, key::PaymentKey};

pub use super::{
    file::OpenError,
    options::{APART_MAX_MS, LedgerOptions},
};

/// How long [`LedgerStore::start`] waits for the first attempt: a disk may hang, a memory of millions takes its time.
const START_WAIT: Duration = Duration::from_secs(5);
/// How long [`LedgerStore::close`] waits for the disk.
const CLOSE_WAIT: Duration = Duration::from_secs(10);

/// The ledger, a file or a database. Owns the map of live and captured payments; its writer thread owns the connection.
pub struct LedgerStore {
    pub(super) shared: Arc<Shared>,
    pub(super) lookups: Arc<Views>,
    path: PathBuf,
    ended: Arc<(Mutex<bool>, Condvar)>,
}

impl LedgerStore {
    /// Locks and opens the file, checks the end of its chain, loads what is above the replay floor, starts the writer.
    ///
    /// # Errors
    /// [`OpenError`] says what is wrong with the file and whose move it is.
    pub fn open(options: LedgerOptions) -> Result<Arc<LedgerStore>, OpenError> {
        LedgerStore::open_with_faults(options, Arc::new(NoFaults))
    }

    /// [`LedgerStore::open`] with a disk that fails where a test says.
    ///
    /// # Errors
    /// As [`LedgerStore::open`].
    pub fn open_with_faults(options: LedgerOptions, faults: Arc<dyn Faults>) -> Result<Arc<LedgerStore>, OpenError> {
        let (store, first) = LedgerStore::spawn(options, faults, false)?;
        // Without an answer the thread has panicked, and told why.
        first.recv().unwrap_or_else(|_| Err(store.panicked()))?;
        Ok(store)
    }

    /// Opens the ledger, or, while it is out of reach ([`OpenError::is_unreachable`]), starts closed and opens it as soon as
    /// that is possible: [`Store::health`](super::store::Store::health) says why it is closed, the log says it once. A call about terms waits for
    /// the opening. A file that turns out to be unusable later keeps the store closed.
    ///
    /// # Errors
    /// [`OpenError`] of every other kind.
    pub fn start(options: LedgerOptions) -> Result<Arc<LedgerStore>, OpenError> {
        let (store, first) = LedgerStore::spawn(options, Arc::new(NoFaults), true)?;
        match first.recv_timeout(START_WAIT) {
            Ok(told) => told?,
            Err(RecvTimeoutError::Disconnected) => return Err(store.panicked()),
            Err(RecvTimeoutError::Timeout) => tracing::error!(
                file = %store.path.display(),
                "the ledger takes long to open; priced routes are closed until it is"
            ),
        }
        Ok(store)
    }

    #[allow(clippy::type_complexity, reason = "said once")]
    fn spawn(
        options: LedgerOptions,
        faults: Arc<dyn Faults>,
        patient: bool,
    ) -> Result<(Arc<LedgerStore>, Receiver<Result<(), OpenError>>), OpenError> {
        let path = options.place.shown();
        let io = |error: std::io::Error| OpenError::Io { path: path.clone(), what: error.to_string() };
        let claims = Arc::new(Claims::new(options.keys_max, 0, options.place.file().is_none()));
        let desk = match &options.place {
            Location::File(_) => None,
            Location::Server(server) => {
                let claims = claims.clone();
                let is_live = Box::new(move |key: &PaymentKey| claims.holds(key));
                let clock = options.clock.clone();
                Some(Desk::start((**server).clone(), Arc::default(), clock, is_live).map_err(io)?)
            }
        };
        let shared = Arc::new(Shared::new(&options, claims, desk));
        let lookups = Views::lookups(options.place.clone(), options.clock.clone());
        let store =
            Arc::new(LedgerStore { shared: shared.clone(), lookups, path: path.clone(), ended: Arc::default() });
        // Without capacity: what is sent was received, or the sender is told that nobody waits any longer.
        let (first, told) = mpsc::sync_channel(0);
        let opening = Opening { options, faults, shared };
        let ended = store.ended.clone();
        let spawned = thread::Builder::new().name("ledger".to_owned()).spawn(move || {
            // Set however the thread ends, so that nobody waits for a dead writer.
            let _ended = SetOnDrop(ended);
            opening.run(patient, &first);
        });
        spawned.map_err(io)?;
        Ok((store, told))
    }

    fn panicked(&self) -> OpenError {
        OpenError::Corrupt { path: self.path.clone(), what: "opening it ended in a panic".to_owned() }
    }

    /// Whether the file has been opened and memory holds what it knows.
    pub fn has_opened(&self) -> bool {
        self.shared.has_opened()
    }

    /// Writes what has queued, outcomes included, and closes the file. Captures from now on answer unavailable.
    ///
    /// # Errors
    /// The disk did not take it within 10 s; what was answered is on disk, outcomes may be missing.
    pub fn close(&self) -> Result<(), Unavailable> {
        if let Some(desk) = &self.shared.desk {
            desk.close();
        }
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
        self.shared.check_clock();
    }

    /// Looks whether the path still names the open file; called each second, from where a file system that hangs does no
    /// harm. Until it does, priced routes are closed: nobody would find what is written.
    pub fn check_file(&self) {
        let Some(place) = self.shared.place.get() else { return };
        let problem: Option<Arc<str>> = place.problem().map(Arc::from);
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

    /// Process time, Unix ms.
    pub fn now_ms(&self) -> u64 {
        self.shared.clock.now_ms()
    }

    /// The operator's word that the wall clock is right: process time follows it.
    pub fn accept_clock(&self) {
        self.shared.accept_clock();
    }

    /// A configuration was loaded whose offers live this long; the floor leaves room for the longest so far.
    pub fn raise_ttl_max(&self, ttl_max_ms: u64) {
        self.shared.ttl_max_ms.fetch_max(ttl_max_ms, Ordering::Relaxed);
    }

    /// What the operator has set about corrections.
    pub fn set_rules(&self, rules: Rules) {
        self.shared.set_rules(rules);
    }

    /// Fingerprints of the keys that seal offers from now on.
    pub fn set_secret_prints(&self, prints: String) {
        self.shared.set_secret_prints(prints);
    }

    /// In which keys that seal offers another gateway of this ledger and this one differ.
    pub fn disagreement(&self) -> Option<String> {
        self.shared.disagreement()
    }

    /// Payments in memory.
    pub fn keys_held(&self) -> usize {
        self.shared.claims.held()
    }

    /// Claimed and captured by an account in a period, as a claim would count it.
    pub fn used(&self, request: &ClaimRequest) -> crate::wire::amount::Units {
        self.shared.claims.credit.used(&use_key(request))
    }

    /// Lets waiting outcomes, or the next try of a failed disk or server, go now rather than after their wait.
    pub fn hurry(&self) {
        if let Some(desk) = &self.shared.desk {
            desk.hurry();
        }
        self.shared.queue.hurry();
    }

    /// Closes the book days before `until` (days since 1970-01-01) and makes their statements; `key` signs the close. Twice
    /// is once: a day that was closed before answers as it did then. Postings wait meanwhile, none is lost or refused.
    ///
    /// The future's error is [`CloseError`]; then nothing has changed, or, where it says so, asking again tells.
    pub fn close_days(&self, until: i64, key: Option<Arc<GatewayKey>>) -> StoreFuture<Result<Close, CloseError>> {
        // A clock that is not to be trusted must not close days.
        if let Err(unavailable) = self.open_now() {
            return Box::pin(future::ready(Err(CloseError::Unavailable(unavailable))));
        }
        let ticket = Ticket::new();
        self.shared.queue.ask(Ask::Close(until, key, ticket.clone()));
        Box::pin(Filled(ticket))
    }

    /// Notes what became of a statement. The future's error says what is allowed.
    pub fn mark(&self, mark: Mark) -> StoreFuture<Result<(), MarkError>> {
        if let Err(unavailable) = self.open_now() {
            return Box::pin(future::ready(Err(MarkError::Unavailable(unavailable))));
        }
        let ticket = Ticket::new();
        self.shared.queue.ask(Ask::Mark(mark, ticket.clone()));
        Box::pin(Filled(ticket))
    }

    /// Notes what an account has paid in, or was paid back. The future's error is [`TopUpError`].
    pub fn top_up(&self, top_up: TopUp) -> StoreFuture<Result<ToppedUp, TopUpError>> {
        if let Err(unavailable) = self.open_now() {
            return Box::pin(future::ready(Err(TopUpError::Unavailable(unavailable))));
        }
        let ticket = Ticket::new();
        self.shared.queue.ask(Ask::TopUp(top_up, ticket.clone()));
        Box::pin(Filled(ticket))
    }

    /// Queues the end of a settlement. It is never given up: see [`Store::settled`](super::store::Store::settled).
    pub(super) fn end(&self, claim: Claim, posting: Posting, act: Act) -> StoreFuture<Result<Receipt, CaptureError>> {
        let owed = matches!(act, Act::Settle { owed: true, .. });
        let (answer, filled) = Answer::new();
        match self.shared.queue.push_capture(Job { claim, posting, act, answer }) {
            Ok(()) if owed => Box::pin(filled),
            Ok(()) => Box::pin(self.shared.answered(filled)),
            Err((job, unavailable)) => {
                // The row of its intent stays; the payment can be looked up later.
                if let Act::Settle { intent, .. } | Act::Fail(intent) = job.act {
                    self.shared.unresolve(Settling { claim: job.claim, intent });
                }
                Box::pin(future::ready(Err(unavailable.into())))
            }
        }
    }

    pub(super) fn open_now(&self) -> Result<(), Unavailable> {
        if self.shared.is_open() {
            return Ok(());
        }
        match self.shared.health() {
            Health::Open => Ok(()),
            Health::Closed(reason) => Err(Unavailable(reason)),
        }
    }
}

impl Drop for LedgerStore {
    fn drop(&mut self) {
        self.shared.queue.close();
    }
}

impl Outcomes for LedgerStore {
    fn outcome(&self, outcome: Outcome) {
        self.shared.queue.push_outcome(outcome);
        // Whoever was not given what was bought may be back in a moment.
        if outcome.void {
            self.shared.queue.hurry();
        }
    }
}

/// Sets the flag and wakes who waits for it, also when the thread panics.
struct SetOnDrop(Arc<(Mutex<bool>, Condvar)>);

impl Drop for SetOnDrop {
    fn drop(&mut self) {
        *self.0.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.0.1.notify_all();
    }
}
