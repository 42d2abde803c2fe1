//! A replica of the simulated store, as a gateway sees it.

use std::{
    future::{self, Future},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard},
    task::{Context, Poll},
};

use tollgate::{
    ledger::store::{
        Bought, CaptureError, Claim, ClaimError, ClaimRequest, CorrectResult, Delivery, Health, Intent, Look,
        Observation, Order, Outcome, Outcomes, OwedTurn, Posting, Purchase, Receipt, Released, Settling, Store,
        StoreFuture, Terms, Unavailable, Unresolved,
    },
    payment::key::PaymentKey,
};

use super::{
    commit::{Act, Posted, Write, unavailable},
    database::{ClaimRow, State},
    model::{Ask, Model, RELEASES_MAX, Replica},
};

/// An answer on its way.
pub struct Reply<T>(Arc<Mutex<Waiting<T>>>);

struct Waiting<T> {
    result: Option<T>,
    /// Nobody waits any more.
    left: bool,
}

impl<T> Clone for Reply<T> {
    fn clone(&self) -> Reply<T> {
        Reply(self.0.clone())
    }
}

impl<T> Reply<T> {
    pub fn new() -> Reply<T> {
        Reply(Arc::new(Mutex::new(Waiting { result: None, left: false })))
    }

    /// Leaves the answer, or gives it back when nobody waits.
    pub fn fill(&self, result: T) -> Option<T> {
        let mut waiting = self.0.lock().unwrap();
        if waiting.left {
            return Some(result);
        }
        waiting.result = Some(result);
        None
    }

    pub fn wait(self) -> Wait<T> {
        Wait(self)
    }
}

/// Waits for an answer; the simulation polls it after each step, so nobody is woken.
pub struct Wait<T>(Reply<T>);

impl<T> Future for Wait<T> {
    type Output = T;

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<T> {
        self.0.0.lock().unwrap().result.take().map_or(Poll::Pending, Poll::Ready)
    }
}

/// Waits for a posting. Dropped before it was told, it leaves what it would have heard to the store.
struct Waits {
    reply: Reply<Posted>,
    told: bool,
    handle: Handle,
    act: Act,
    claim: Claim,
}

impl Future for Waits {
    type Output = Posted;

    fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Posted> {
        let result = self.reply.0.lock().unwrap().result.take();
        self.told |= result.is_some();
        result.map_or(Poll::Pending, Poll::Ready)
    }
}

impl Drop for Waits {
    fn drop(&mut self) {
        let mut waiting = self.reply.0.lock().unwrap();
        waiting.left = true;
        let result = waiting.result.take();
        drop(waiting);
        if let (false, Some(Ok(receipt))) = (self.told, result)
            && let Some(mut model) = self.handle.here()
        {
            model.left_alone(self.handle.replica, &self.act, &self.claim, receipt);
        }
    }
}

/// One process of a replica.
#[derive(Clone)]
pub struct Handle {
    pub model: Arc<Mutex<Model>>,
    pub replica: usize,
    pub process: u64,
}

impl Handle {
    /// The model, while this process lives.
    fn here(&self) -> Option<MutexGuard<'_, Model>> {
        let model = self.model.lock().unwrap();
        let replica = &model.replicas[self.replica];
        (replica.up && replica.process == self.process).then_some(model)
    }

    fn with(&self, act: impl FnOnce(&mut Replica)) {
        if let Some(mut model) = self.here() {
            act(&mut model.replicas[self.replica]);
        }
    }

    fn post(&self, claim: Claim, posting: Posting, act: Act) -> Waits {
        let reply = Reply::new();
        let waits =
            Waits { reply: reply.clone(), told: false, handle: self.clone(), act: act.clone(), claim: twin(&claim) };
        self.with(|replica| replica.writes.push(Write::Job { claim, posting, act, reply }));
        waits
    }

    /// Takes a row of this state over, into another.
    fn take(&self, key: &PaymentKey, from: impl Fn(State) -> Option<State>) -> Option<ClaimRow> {
        let mut model = self.here()?;
        let replica = &model.replicas[self.replica];
        let (slot, epoch) = (replica.slot, replica.epoch);
        let state = from(model.db.claims.get(key)?.state).filter(|_| model.db.owns(slot, epoch))?;
        let token = model.token();
        let row = ClaimRow { slot, epoch, token, state, ..model.db.claims[key].clone() };
        model.db.set(*key, Some(row.clone()));
        Some(row)
    }
}

fn ready<T: Send + 'static>(answer: T) -> StoreFuture<T> {
    Box::pin(future::ready(answer))
}

fn twin(claim: &Claim) -> Claim {
    Claim { request: claim.request.clone(), token: claim.token }
}

impl Outcomes for Handle {
    fn outcome(&self, outcome: Outcome) {
        self.with(|replica| replica.writes.push(Write::Told(outcome)));
    }
}

impl Store for Handle {
    fn claim(&self, request: ClaimRequest) -> StoreFuture<Result<Claim, ClaimError>> {
        let reply = Reply::new();
        self.with(|replica| replica.asks.push_back(Ask::Claim(request, reply.clone())));
        Box::pin(reply.wait())
    }

    fn look(&self, key: PaymentKey) -> StoreFuture<Result<Look, Unavailable>> {
        let reply = Reply::new();
        self.with(|replica| replica.asks.push_back(Ask::Look(key, reply.clone())));
        Box::pin(reply.wait())
    }

    fn release(&self, claim: Claim, why: Released) {
        self.with(|replica| replica.asks.push_back(Ask::Release(claim, why)));
    }

    fn capture(&self, claim: Claim, posting: Posting) -> StoreFuture<Result<Receipt, CaptureError>> {
        Box::pin(self.post(claim, posting, Act::Capture))
    }

    fn intend(&self, claim: Claim, intent: Intent) -> StoreFuture<Result<Settling, CaptureError>> {
        let (intent, held) = (Arc::new(intent), twin(&claim));
        let waits = self.post(claim, intent.posting.clone(), Act::Intend(intent.clone()));
        Box::pin(async move { waits.await.map(|_| Settling { claim: held, intent }) })
    }

    fn settled(&self, settling: Settling, posting: Posting, owed: bool) -> StoreFuture<Result<Receipt, CaptureError>> {
        Box::pin(self.post(settling.claim, posting, Act::Settle { owed }))
    }

    fn failed(&self, settling: Settling, posting: Posting) -> StoreFuture<Result<Receipt, CaptureError>> {
        Box::pin(self.post(settling.claim, posting, Act::Fail))
    }

    fn in_doubt(&self, settling: &Settling) {
        let Some(mut model) = self.here() else { return };
        let key = settling.key();
        let row = model.db.claims.get(&key).filter(|row| row.token == settling.claim.token).cloned();
        if let Some(row) = row {
            model.db.set(key, Some(ClaimRow { doubtful: true, ..row }));
        }
    }

    fn observed(&self, _: Observation) {}

    fn is_in_doubt(&self, purchase: Purchase) -> StoreFuture<Result<bool, Unavailable>> {
        ready(Ok(self.here().is_some_and(|model| model.in_doubt(Some(&purchase)))))
    }

    fn is_throttled(&self, _: &str) -> bool {
        false
    }

    fn replay_floor_ms(&self) -> u64 {
        self.model.lock().unwrap().db.floor_ms.unsigned_abs()
    }

    fn knows(&self, key: PaymentKey) -> StoreFuture<Result<bool, Unavailable>> {
        let model = self.model.lock().unwrap();
        let row = model.db.claims.get(&key);
        ready(Ok(row.is_some_and(|row| !matches!(row.state, State::Live | State::Free | State::Burnt))))
    }

    fn unknown(&self, settling: Settling) {
        let (key, token) = (settling.key(), settling.claim.token);
        self.with(|replica| replica.asks.push_back(Ask::Unknown(key, token)));
    }

    fn unresolved(&self) -> StoreFuture<Result<Vec<Unresolved>, Unavailable>> {
        let model = self.model.lock().unwrap();
        let open = model.db.claims.values().filter(|row| row.state == State::Unknown);
        let open =
            open.filter_map(|row| Some(Unresolved { request: row.request.clone(), intent: row.intent.clone()? }));
        ready(Ok(open.collect()))
    }

    fn adopt(&self, key: PaymentKey) -> StoreFuture<Option<Settling>> {
        let row = self.take(&key, |state| (state == State::Unknown).then_some(State::Settling));
        ready(row.and_then(|row| {
            Some(Settling { claim: Claim { request: row.request, token: row.token }, intent: row.intent? })
        }))
    }

    fn held(&self, _: tollgate::ledger::store::Held) -> StoreFuture<tollgate::ledger::store::HeldResult> {
        // Its requests are payments like any other; who may make them is the gate's to say.
        Box::pin(std::future::ready(Ok(Vec::new())))
    }

    fn has_used(&self, _: Arc<str>) -> StoreFuture<Result<bool, Unavailable>> {
        Box::pin(std::future::ready(Ok(true)))
    }

    fn find(&self, key: PaymentKey) -> StoreFuture<Result<Option<Bought>, Unavailable>> {
        let reply = Reply::new();
        self.with(|replica| replica.asks.push_back(Ask::Find(key, reply.clone())));
        Box::pin(reply.wait())
    }

    fn owe(&self, key: PaymentKey, receipt: Receipt) {
        if let Some(mut model) = self.here() {
            model.set_state(&key, State::Captured, State::Owed(receipt.n));
        }
        self.outcome(Outcome { n: receipt.n, delivery: Delivery::NotSent, void: true, ms: 0, bytes: 0 });
    }

    fn take_owed(&self, key: PaymentKey) -> StoreFuture<Option<OwedTurn>> {
        let row = self.take(&key, |state| match state {
            State::Owed(n) => Some(State::Serving(n)),
            _ => None,
        });
        ready(row.map(|row| OwedTurn { key, n: row.n }))
    }

    fn give_back(&self, turn: OwedTurn) {
        let Some(mut model) = self.here() else { return };
        let Some(mut row) = model.db.claims.get(&turn.key).cloned() else { return };
        let replica = &mut model.replicas[self.replica];
        if row.state != State::Serving(turn.n) || (row.slot, row.epoch) != (replica.slot, replica.epoch) {
            return;
        }
        row.releases += 1;
        if row.releases < RELEASES_MAX {
            row.state = State::Owed(turn.n);
        } else {
            replica.writes.push(Write::Again { turn: OwedTurn { ..turn }, served: false, reply: Reply::new() });
        }
        model.db.set(turn.key, Some(row));
    }

    fn redelivered(&self, turn: OwedTurn) -> StoreFuture<Result<Receipt, CaptureError>> {
        let reply = Reply::new();
        if self.here().is_none() {
            return ready(Err(unavailable("the process is gone")));
        }
        self.with(|replica| replica.writes.push(Write::Again { turn, served: true, reply: reply.clone() }));
        Box::pin(reply.wait())
    }

    fn correct(&self, orders: Vec<Order>) -> StoreFuture<CorrectResult> {
        let reply = Reply::new();
        self.with(|replica| replica.asks.push_back(Ask::Correct(orders, reply.clone())));
        Box::pin(reply.wait())
    }

    fn remember_terms(&self, _: Vec<([u8; 32], Vec<u8>)>) -> StoreFuture<Result<(), Unavailable>> {
        ready(Ok(()))
    }

    fn recent_terms(&self, _: u64) -> StoreFuture<Result<Terms, Unavailable>> {
        ready(Ok(Vec::new()))
    }

    fn health(&self) -> Health {
        Health::Open
    }

    fn is_open(&self) -> bool {
        true
    }
}
