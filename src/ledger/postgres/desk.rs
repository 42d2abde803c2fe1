//! The thread that speaks with the server about claims. What has queued is one transaction; what queues during it is the next.
//!
//! Rows of payments that another transaction has in hand are not waited for, or one that hangs would hold up all others: such a
//! claim comes along with the next transactions.
//!
//! Its commits do not wait for the server's disk: a claim that a crash of the server forgets was given nothing yet, and its
//! capture finds no row.

use std::{
    collections::{HashSet, VecDeque},
    mem,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use super::{
    claims::{self, Claimed},
    lease::{Held, Lease},
    server::Server,
    sweep,
};
use crate::{
    clock::Clock,
    ledger::{
        mailbox::Ticket,
        sql::{Begin, Session, SqlError, SqlResult, Trouble},
        store::{ClaimError, ClaimRequest, Purchase, Released, Unavailable, Unresolved},
    },
    payment::key::PaymentKey,
};

/// Claims that may wait; more are refused.
const CLAIMS_MAX: usize = 8192;
/// How often what dead gateways have left is looked for.
const SWEEP_EVERY: Duration = Duration::from_secs(1);
/// A claim whose payment another transaction has in hand is tried again for so long, in the next transactions; then it is in flight.
const IN_HAND: Duration = Duration::from_millis(500);
/// A transaction that others were in the way of is tried so often.
const TRIES: usize = 5;
/// The first and the longest wait before a server that is gone is tried again.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// Whether a payment is in this process's hand: claimed, or being settled.
pub(in crate::ledger) type IsLive = Box<dyn Fn(&PaymentKey) -> bool + Send>;

type Told<T> = Arc<Ticket<Result<T, Unavailable>>>;

/// Something that is asked, or said, about one payment.
pub(in crate::ledger) enum Word {
    /// Since when it waits.
    Claim(Box<ClaimRequest>, Arc<Ticket<Claimed>>, Instant),
    Release(PaymentKey, Released),
    Doubt {
        key: PaymentKey,
        unknown: bool,
    },
    Owe(PaymentKey, i64),
    /// Answered with whether that was the last turn; then the row stays as it is until that is posted.
    GiveBackOwed(PaymentKey, Told<bool>),
    TakeOwed(PaymentKey, Told<Option<i64>>),
    Knows(PaymentKey, Told<bool>),
    IsInDoubt(Purchase, Told<bool>),
    Adopt(PaymentKey, Told<Option<Unresolved>>),
    Unresolved(Told<Vec<Unresolved>>),
}

impl Word {
    fn refuse(self, reason: &Arc<str>) {
        let unavailable = || Unavailable(reason.clone());
        match self {
            Word::Claim(_, ticket, _) => ticket.fill(Err(unavailable().into())),
            Word::TakeOwed(_, ticket) => ticket.fill(Err(unavailable())),
            Word::Knows(_, ticket) | Word::IsInDoubt(_, ticket) | Word::GiveBackOwed(_, ticket) => {
                ticket.fill(Err(unavailable()));
            }
            Word::Adopt(_, ticket) => ticket.fill(Err(unavailable())),
            Word::Unresolved(ticket) => ticket.fill(Err(unavailable())),
            Word::Release(..) | Word::Doubt { .. } | Word::Owe(..) => {}
        }
    }

    /// What undoes it, should the transaction in which it was asked have taken place unseen.
    fn undo(&self) -> Option<Word> {
        match self {
            Word::Claim(request, ..) => Some(Word::Release(request.key, Released::NotAsked)),
            Word::TakeOwed(key, _) => Some(Word::GiveBackOwed(*key, Ticket::new())),
            Word::Adopt(key, _) => Some(Word::Doubt { key: *key, unknown: true }),
            _ => None,
        }
    }

    /// Whether it must be said even if it can't be now. Until then the payment is held, and nobody else ends that while this
    /// gateway lives.
    fn is_kept(&self) -> bool {
        matches!(self, Word::Release(..) | Word::Doubt { .. } | Word::Owe(..) | Word::GiveBackOwed(..))
    }
}

/// The desk, as others see it; dropped, it closes.
pub(in crate::ledger) struct Desk {
    queue: Arc<Queue>,
    held: Arc<Held>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

struct Queue {
    waiting: Mutex<Waiting>,
    changed: Condvar,
    /// Whether `closed` has no reason; written under its lock.
    open: AtomicBool,
}

#[derive(Default)]
struct Waiting {
    words: VecDeque<Word>,
    claims: usize,
    closing: bool,
    /// Nothing is to be waited for now.
    hurry: bool,
    /// Why the server can't be asked now.
    closed: Option<Arc<str>>,
}

impl Desk {
    /// Starts the thread; until the ledger has opened and there is a lease, nothing is answered.
    ///
    /// `is_live` tells whether a payment is in this process's hand.
    pub(in crate::ledger) fn start(
        server: Server,
        held: Arc<Held>,
        clock: Clock,
        is_live: IsLive,
    ) -> std::io::Result<Desk> {
        let (waiting, changed, open) = (Mutex::default(), Condvar::new(), AtomicBool::new(true));
        let queue = Arc::new(Queue { waiting, changed, open });
        let (session, swept) = (None, None);
        let clerk = Clerk { server, held: held.clone(), queue: queue.clone(), clock, is_live, session, swept };
        let thread = thread::Builder::new().name("claims".to_owned()).spawn(move || clerk.run())?;
        Ok(Desk { queue, held, thread: Mutex::new(Some(thread)) })
    }

    /// This process's lease.
    pub(in crate::ledger) fn held(&self) -> &Held {
        &self.held
    }

    /// Says or asks something; claims beyond what may wait are refused at once.
    pub(in crate::ledger) fn say(&self, word: Word) {
        let mut waiting = self.queue.lock();
        let refused = if waiting.closing {
            Some("the ledger is closing".into())
        } else if let Some(reason) = waiting.closed.clone().filter(|_| !word.is_kept()) {
            Some(reason)
        } else if matches!(word, Word::Claim(..)) && waiting.claims >= CLAIMS_MAX {
            Some("too many claims wait for the database".into())
        } else {
            None
        };
        if let Some(reason) = refused {
            drop(waiting);
            return word.refuse(&reason);
        }
        waiting.claims += usize::from(matches!(word, Word::Claim(..)));
        waiting.words.push_back(word);
        if waiting.words.len() == 1 {
            self.queue.changed.notify_one();
        }
    }

    /// Asks, and gives what waits for the answer.
    pub(in crate::ledger) fn ask<T: Send + 'static>(
        &self,
        word: impl FnOnce(Told<T>) -> Word,
    ) -> crate::ledger::mailbox::Filled<Result<T, Unavailable>> {
        let ticket = Ticket::new();
        self.say(word(ticket.clone()));
        crate::ledger::mailbox::Filled(ticket)
    }

    /// Whether claims can be made, as far as is known.
    pub(in crate::ledger) fn is_open(&self, now_ms: u64) -> bool {
        self.queue.open.load(Ordering::Acquire) && !self.held.is_over(now_ms)
    }

    /// Why the server can't be asked now.
    pub(in crate::ledger) fn problem(&self) -> Option<Arc<str>> {
        self.queue.lock().closed.clone()
    }

    /// Tries a server that is gone now rather than after the wait.
    pub(in crate::ledger) fn hurry(&self) {
        self.queue.lock().hurry = true;
        self.queue.changed.notify_one();
    }

    /// Says what waits to be said, and ends.
    pub(in crate::ledger) fn close(&self) {
        self.queue.lock().closing = true;
        self.queue.changed.notify_one();
        if let Some(thread) = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        self.close();
    }
}

impl Queue {
    /// The server answers; true if it did not before.
    fn opened(&self) -> bool {
        let mut waiting = self.lock();
        self.open.store(true, Ordering::Release);
        waiting.closed.take().is_some()
    }

    /// Waits before the server is tried again; not for one that is to close.
    fn pause(&self, wait: Duration) {
        let waiting = self.lock();
        drop(self.changed.wait_timeout_while(waiting, wait, |waiting| !waiting.closing && !waiting.hurry));
    }

    /// Everything that waits, once something does or it is time to sweep; true when the desk is closing.
    fn take(&self, wait: Duration) -> (VecDeque<Word>, bool) {
        let waiting = self.lock();
        let idle = |waiting: &mut Waiting| waiting.words.is_empty() && !waiting.closing && !waiting.hurry;
        let mut waiting =
            self.changed.wait_timeout_while(waiting, wait, idle).unwrap_or_else(PoisonError::into_inner).0;
        (waiting.claims, waiting.hurry) = (0, false);
        (mem::take(&mut waiting.words), waiting.closing)
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The thread's state.
struct Clerk {
    server: Server,
    held: Arc<Held>,
    queue: Arc<Queue>,
    clock: Clock,
    is_live: IsLive,
    session: Option<Session>,
    /// When it swept last, by process time in ms, and by the machine's for a process whose time stands. None before the first
    /// time: what this gateway's last process has left is looked for before anything is answered.
    swept: Option<(u64, Instant)>,
}

impl Clerk {
    fn run(mut self) {
        let mut backoff = BACKOFF.0;
        let mut kept: VecDeque<Word> = VecDeque::new();
        loop {
            let (mut words, closing) = self.queue.take(if kept.is_empty() { SWEEP_EVERY } else { backoff });
            kept.append(&mut words);
            match self.turn(&mut kept) {
                Ok(()) => {
                    backoff = BACKOFF.0;
                    if self.queue.opened() {
                        tracing::info!("the ledger's database answers again");
                    }
                }
                Err(error) => {
                    let reason: Arc<str> = format!("the ledger's database does not answer: {error}").into();
                    self.session = None;
                    self.refuse(&mut kept, &reason);
                    if !closing {
                        self.queue.pause(backoff);
                        backoff = (backoff * 2).min(BACKOFF.1);
                    }
                }
            }
            if closing {
                return self.refuse(&mut kept, &"the ledger is closed".into());
            }
        }
    }

    /// Says once that the server is gone; who waits is told, what must be said is kept.
    fn refuse(&mut self, words: &mut VecDeque<Word>, reason: &Arc<str>) {
        let mut waiting = self.queue.lock();
        if waiting.closed.is_none() && !waiting.closing {
            tracing::error!(reason = &**reason, "priced routes are closed until the ledger's database answers");
        }
        waiting.closed = Some(reason.clone());
        self.queue.open.store(false, Ordering::Release);
        let late = mem::take(&mut waiting.words);
        drop(waiting);
        for word in mem::take(words).into_iter().chain(late) {
            if word.is_kept() {
                words.push_back(word);
            } else {
                words.extend(word.undo());
                word.refuse(reason);
            }
        }
    }

    /// One transaction for everything that waits; answers go when it is there.
    fn turn(&mut self, words: &mut VecDeque<Word>) -> SqlResult<()> {
        let Some(lease) = self.held.get() else {
            // Not opened yet: who comes now is told to come back.
            let reason: Arc<str> = "the ledger is being opened".into();
            mem::take(words).into_iter().for_each(|word| word.refuse(&reason));
            return Ok(());
        };
        let session = match self.session.take().filter(|session| !session.has_ended()) {
            Some(session) => session,
            None => {
                let session = self.server.connect()?;
                // What a crash of the server has forgotten: that a claim was released, or a settlement given up without a verdict.
                let lost = claims::held(&session, lease)?.into_iter().filter(|(key, _)| !(self.is_live)(key));
                lost.for_each(|(key, settling)| {
                    words.push_front(match settling {
                        true => Word::Doubt { key, unknown: true },
                        false => Word::Release(key, Released::NotAsked),
                    });
                });
                session
            }
        };
        let session = self.session.insert(session);
        let now_ms = self.clock.now_ms();
        let is_due = |(at_ms, at): (u64, Instant)| {
            Duration::from_millis(now_ms.saturating_sub(at_ms)) >= SWEEP_EVERY || at.elapsed() >= SWEEP_EVERY
        };
        if self.swept.is_none_or(is_due) {
            self.swept = Some((now_ms, Instant::now()));
            retried(|| sweep::sweep(session))?;
            let unproven = retried(|| sweep::reckon(session))?;
            if unproven > 0 {
                tracing::warn!(unproven, "a gateway is gone, and whether its last answers left is not known");
            }
        }
        if words.is_empty() {
            return Ok(());
        }
        let (answers, put_off) = retried(|| write(session, lease, words))?;
        answers.into_iter().for_each(|answer| answer());
        let waits = |word: &Word| matches!(word, Word::Claim(request, ..) if put_off.contains(request.key.as_bytes()));
        words.retain(waits);
        Ok(())
    }
}

/// Tries again what others were in the way of.
fn retried<T>(mut work: impl FnMut() -> SqlResult<T>) -> SqlResult<T> {
    let mut tries = 0;
    loop {
        tries += 1;
        match work() {
            Err(SqlError { trouble: Trouble::Conflict, .. }) if tries < TRIES => {}
            done => return done,
        }
    }
}

type Answered = Box<dyn FnOnce()>;

fn answered<T: 'static>(ticket: &Arc<Ticket<T>>, result: T) -> Answered {
    let ticket = ticket.clone();
    Box::new(move || ticket.fill(result))
}

/// Answers for when it is there, and the payments whose claims are put off. What is given back comes first, so that the claims of
/// this batch can have it.
fn write(session: &Session, lease: Lease, words: &VecDeque<Word>) -> SqlResult<(Vec<Answered>, HashSet<[u8; 17]>)> {
    let transaction = session.begin(Begin::Write)?;
    transaction.run("SET LOCAL synchronous_commit = off")?;
    let (mut answers, mut put_off) = (Vec::<Answered>::with_capacity(words.len()), HashSet::new());
    let mut released = Vec::new();
    let mut claimed = Vec::new();
    for word in words {
        match word {
            Word::Release(key, why) => released.push((*key, *why)),
            Word::Claim(request, ticket, since) => claimed.push((&**request, ticket, since)),
            _ => {}
        }
    }
    // Rows of claims before those of credit, here as everywhere.
    let freed = if released.is_empty() { Vec::new() } else { claims::release(&transaction, lease, &released)? };
    for word in words {
        match word {
            Word::Doubt { key, unknown } => claims::doubt(&transaction, lease, key, *unknown)?,
            Word::Owe(key, n) => claims::owe(&transaction, key, *n)?,
            Word::GiveBackOwed(key, ticket) => {
                answers.push(answered(ticket, Ok(claims::give_back_owed(&transaction, lease, key)?)));
            }
            _ => {}
        }
    }
    if !claimed.is_empty() || !freed.is_empty() {
        let requests: Vec<&ClaimRequest> = claimed.iter().map(|(request, ..)| *request).collect();
        let in_hand = if requests.is_empty() { HashSet::new() } else { claims::in_hand(&transaction, &requests)? };
        claimed.retain(|(request, ticket, since)| {
            let key = request.key.as_bytes();
            if !in_hand.contains(key) {
                return true;
            }
            if since.elapsed() < IN_HAND {
                put_off.insert(*key);
            } else {
                answers.push(answered(ticket, Err(ClaimError::InFlight)));
            }
            false
        });
        let requests: Vec<&ClaimRequest> = claimed.iter().map(|(request, ..)| *request).collect();
        let verdicts = claims::claim(&transaction, lease, &requests, &freed)?;
        answers.extend(claimed.iter().zip(verdicts).map(|((_, ticket, _), verdict)| answered(ticket, verdict)));
    }
    for word in words {
        answers.push(match word {
            Word::TakeOwed(key, ticket) => answered(ticket, Ok(claims::take_owed(&transaction, lease, key)?)),
            Word::Knows(key, ticket) => answered(ticket, Ok(claims::knows(&transaction, key)?)),
            Word::IsInDoubt(purchase, ticket) => answered(ticket, Ok(claims::is_in_doubt(&transaction, purchase)?)),
            Word::Adopt(key, ticket) => answered(ticket, Ok(claims::adopt(&transaction, lease, key)?)),
            Word::Unresolved(ticket) => answered(ticket, Ok(claims::unresolved(&transaction)?)),
            _ => continue,
        });
    }
    transaction.commit()?;
    Ok((answers, put_off))
}
