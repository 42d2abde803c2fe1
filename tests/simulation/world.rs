//! The world around a ledger: payments, requests with them, a chain, an operator; and what each step does to it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    task::{Context, Poll, Waker},
};

use tollgate::{
    ledger::{
        entry::Kind,
        resolve::{Resolution, ResolveError, resolve},
        store::{CorrectResult, Receipt, Store, StoreFuture},
    },
    payment::key::PaymentKey,
};

use super::{
    bugs::Bug,
    chain::Chain,
    equations::{Broken, Watch},
    exchange::Request,
    payments::Payment,
    steps::{Order, PAYMENTS, Step},
    stores::{Answer, Books, Closing, Stores, UseKey},
};

/// 24 November 2026, 23:50 UTC: the first midnight is near.
pub const START_MS: u64 = 1_795_564_200_000;
const DAY_MS: u64 = 86_400_000;

/// A claim that was granted: what has become of it, as far as anybody outside of the store knows.
#[derive(Clone, Debug)]
pub struct Admission {
    pub payment: usize,
    pub key: PaymentKey,
    pub account: String,
    pub asset: String,
    pub period: i64,
    pub amount: i64,
    pub limit: i64,
    pub replica: usize,
    /// When it was granted.
    pub at_ms: u64,
    pub end: End,
    /// Its writer may have lost it: to a lease that ended, a database that died, an exchange that took too long.
    pub suspect: bool,
    /// The ledger was asked after the claim, and knew of no capture.
    pub looked: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Live,
    /// Its intent is durable; how it ends is for the books to say.
    Intended,
    /// The entry.
    Captured(i64),
    Released,
    /// Whoever waited was told that there is no capture.
    Withheld,
    /// Nobody waits for its capture any more.
    Dropped,
    /// Its process died over what may have been written.
    Died,
}

/// Counted outside of the store, by payment.
#[derive(Clone, Copy, Debug, Default)]
pub struct Seen {
    /// Answers whose first byte left with a payment response.
    pub answers: u32,
    /// Calls of the origin, without those for what was owed.
    pub calls: u32,
    /// Turns at what was owed.
    pub turns: u32,
}

/// Somebody looks a payment up, and the ledger has not answered yet.
struct Lookup {
    replica: usize,
    resolving: StoreFuture<Result<Receipt, ResolveError>>,
}

pub struct World {
    pub stores: Box<dyn Stores>,
    pub bug: Option<Bug>,
    pub now_ms: u64,
    pub payments: Vec<Payment>,
    /// The payment in each place.
    places: [usize; PAYMENTS as usize],
    /// By place and copy.
    pub requests: BTreeMap<(u8, u8), Request>,
    pub chain: Chain,
    lookups: Vec<Lookup>,
    orders: Vec<(usize, StoreFuture<CorrectResult>)>,
    closings: Vec<(usize, Closing)>,
    pub admissions: Vec<Admission>,
    pub seen: BTreeMap<usize, Seen>,
    pub owners: BTreeMap<PaymentKey, usize>,
    /// Replicas with a commit that hangs, in which something may be that nobody waits for.
    pub unclear: BTreeSet<usize>,
    /// Processes that were ever started.
    pub starts: i64,
    /// Claims that were granted in this step.
    pub admitted: Vec<usize>,
    /// Captures whose outcome died with a process.
    pub unproven: BTreeSet<i64>,
    /// Captures whose client held the answer up itself.
    pub stalled: BTreeSet<i64>,
    /// Captures of which somebody ordered something.
    pub ordered: BTreeSet<i64>,
    /// Of whose credit something was ever claimed.
    pub asked: BTreeSet<UseKey>,
    pub books: Books,
    pub watch: Watch,
    /// Found outside of the equations, in the middle of a step.
    pub broken: Option<Broken>,
}

impl World {
    pub fn new(stores: Box<dyn Stores>, bug: Option<Bug>) -> World {
        let payments: Vec<Payment> =
            (0..PAYMENTS).map(|place| Payment::sign(usize::from(place), place, START_MS)).collect();
        let mut world = World {
            stores,
            bug,
            now_ms: START_MS,
            places: std::array::from_fn(|place| place),
            payments,
            requests: BTreeMap::new(),
            chain: Chain::default(),
            lookups: Vec::new(),
            orders: Vec::new(),
            ordered: BTreeSet::new(),
            closings: Vec::new(),
            admissions: Vec::new(),
            seen: BTreeMap::new(),
            owners: BTreeMap::new(),
            unclear: BTreeSet::new(),
            starts: 1,
            admitted: Vec::new(),
            unproven: BTreeSet::new(),
            stalled: BTreeSet::new(),
            asked: BTreeSet::new(),
            books: Books::default(),
            watch: Watch::default(),
            broken: None,
        };
        world.books = world.stores.books(&BTreeSet::new());
        world
    }

    /// Takes one step, lets the stores work, and checks every equation.
    pub fn step(&mut self, step: Step) -> Result<(), Broken> {
        self.admitted.clear();
        self.act(step);
        self.turn();
        self.check()
    }

    /// The stores work, and whoever waits hears.
    fn turn(&mut self) {
        self.stores.run();
        for place in self.requests.keys().copied().collect::<Vec<_>>() {
            if let Some(request) = self.requests.remove(&place)
                && let Some(request) = self.hear(request)
            {
                self.requests.insert(place, request);
            }
        }
        let mut lookups = std::mem::take(&mut self.lookups);
        lookups.retain_mut(|lookup| self.poll(lookup.replica, &mut lookup.resolving).is_none());
        self.lookups = lookups;
        let mut orders = std::mem::take(&mut self.orders);
        orders.retain_mut(|(replica, order)| self.poll(*replica, order).is_none());
        self.orders = orders;
        let mut closings = std::mem::take(&mut self.closings);
        closings.retain_mut(|(replica, closing)| self.poll(*replica, closing).is_none());
        self.closings = closings;
        // What they have said may have given the stores more to do.
        self.stores.run();
        let stores = &self.stores;
        self.unclear.retain(|replica| stores.holds(*replica));
        self.books = self.stores.books(&self.asked);
        self.lose();
    }

    /// Whatever outcome was on its way is lost with its process, or with the slot that another one has taken.
    fn lose(&mut self) {
        let slots: BTreeSet<i64> = (0..self.stores.replicas()).filter_map(|at| self.stores.slot(at)).collect();
        let told: BTreeSet<i64> = self.books.outcomes.iter().map(|(n, _)| *n).collect();
        let captures = self.books.entries.iter().filter(|entry| entry.kind == Kind::Capture).map(|entry| entry.n);
        self.unproven.extend(captures.filter(|n| !slots.contains(&(n >> 48)) && !told.contains(n)));
    }

    fn check(&mut self) -> Result<(), Broken> {
        match self.broken.take() {
            Some(broken) => Err(broken),
            None => self.equations(false),
        }
    }

    /// The answer, if there is one; waits for it where it must come.
    pub fn poll<T>(&mut self, replica: usize, future: &mut StoreFuture<T>) -> Option<T> {
        let start = std::time::Instant::now();
        loop {
            if let Poll::Ready(answer) = future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                return Some(answer);
            }
            let stores = &self.stores;
            if stores.is_frozen(replica) || stores.holds(replica) || stores.is_down(replica) {
                return None;
            }
            assert!(start.elapsed().as_secs() < 20, "an answer does not come");
            self.stores.wait();
        }
    }

    pub fn payment_at(&self, place: u8) -> &Payment {
        &self.payments[self.places[usize::from(place)]]
    }

    /// Whether the payment in this place has been captured.
    pub fn is_spent(&self, place: u8) -> bool {
        let number = self.places[usize::from(place)];
        let ended = |end| matches!(end, End::Captured(_) | End::Intended);
        self.admissions.iter().any(|admission| admission.payment == number && ended(admission.end))
    }

    fn act(&mut self, step: Step) {
        let replicas = self.stores.replicas();
        let at = |replica: u8| usize::from(replica) % replicas;
        match step {
            Step::Sign { payment } => {
                let number = self.payments.len();
                self.payments.push(Payment::sign(number, payment, self.now_ms));
                self.places[usize::from(payment)] = number;
            }
            Step::Send { payment, copy, replica, spelling } => self.send((payment, copy), at(replica), spelling),
            Step::Go { payment, copy, luck } => {
                self.at_request((payment, copy), |world, request| world.go(request, luck))
            }
            Step::Leave { payment, copy } => self.at_request((payment, copy), World::leave),
            Step::Stall { payment, copy } => self.at_request((payment, copy), World::turn_away),
            Step::Panic { payment, copy } => self.at_request((payment, copy), World::panic),
            Step::Mine => self.chain.mine(),
            Step::Reconcile { payment, replica } => self.reconcile(self.places[usize::from(payment)], at(replica)),
            Step::Correct { payment, replica, order } => {
                self.correct(self.places[usize::from(payment)], at(replica), order);
            }
            Step::Advance { ms } => self.advance(u64::from(ms)),
            Step::Midnight { after_ms } => {
                let next = (self.now_ms / DAY_MS + 1) * DAY_MS;
                self.advance((next - self.now_ms).saturating_add_signed(i64::from(after_ms)));
            }
            Step::Close { replica, before } => {
                let today = (self.stores.now_ms(at(replica)) / DAY_MS) as i64;
                if let Some(closing) = self.stores.close_days(at(replica), today - i64::from(before)) {
                    self.closings.push((at(replica), closing));
                }
            }
            Step::Arm { replica, fate } => self.stores.arm(at(replica), fate),
            Step::Answer { replica, answer } => self.stores.answer(at(replica), answer),
            Step::Mend => self.stores.mend(),
            Step::Crash { replica, after } => self.crash(at(replica), after),
            Step::Open { replica } => {
                if self.stores.is_down(at(replica)) {
                    self.stores.open(at(replica));
                    self.starts += 1;
                }
            }
            Step::Freeze { replica } => {
                if !self.stores.is_down(at(replica)) {
                    self.stores.freeze(at(replica));
                }
            }
            Step::Thaw { replica } => {
                if self.stores.is_frozen(at(replica)) {
                    self.stores.thaw(at(replica));
                }
            }
            Step::CrashDatabase => {
                if self.stores.crash_database() {
                    self.admissions.iter_mut().for_each(|admission| admission.suspect = true);
                }
            }
            Step::Wall { replica, seconds } => self.stores.step_wall(at(replica), i64::from(seconds) * 1000),
            Step::Accept { replica } => self.stores.accept_clock(at(replica)),
        }
    }

    fn at_request(&mut self, place: (u8, u8), act: impl FnOnce(&mut World, Request) -> Option<Request>) {
        let Some(request) = self.requests.remove(&place) else { return };
        // A process that stands still does nothing.
        let after = if self.stores.store(request.replica).is_some() { act(self, request) } else { Some(request) };
        if let Some(request) = after {
            self.requests.insert(place, request);
        }
    }

    fn send(&mut self, place: (u8, u8), replica: usize, spelling: u8) {
        if self.requests.contains_key(&place) || self.stores.store(replica).is_none() {
            return;
        }
        let payment = self.payment_at(place.0).clone();
        let key = payment.key(spelling, self.bug);
        if let Some(request) = self.arrive(&payment, key, replica) {
            self.owners.insert(key, payment.number);
            self.requests.insert(place, request);
        }
    }

    /// Looks a payment up on the chain. What neither moved nor ever will is failed; the rest waits.
    fn reconcile(&mut self, payment: usize, replica: usize) {
        let Some(store) = self.stores.store(replica) else { return };
        let payment = &self.payments[payment];
        let key = payment.key(0, self.bug);
        let over = self.now_ms > payment.ends_ms() && !self.chain.is_pending(payment.number);
        let moved = self.chain.moved(payment.number).is_some();
        if !moved && !over {
            return;
        }
        let resolving = Box::pin(async move {
            let store: Arc<dyn Store> = store;
            let (transaction, reason) = (String::new(), "looked up".to_owned());
            let resolution = Resolution { moved, transaction, by: "chain", reason, not_before_ms: None };
            resolve(&*store, key, &resolution).await
        });
        self.lookups.push(Lookup { replica, resolving });
    }

    /// Orders something about the last capture of a payment.
    fn correct(&mut self, payment: usize, replica: usize, order: Order) {
        let of = self
            .books
            .entries
            .iter()
            .rev()
            .find(|entry| entry.kind == Kind::Capture && self.owners.get(&entry.key) == Some(&payment));
        let Some(n) = of.map(|entry| entry.n) else { return };
        if let Some(store) = self.stores.store(replica) {
            self.ordered.insert(n);
            self.orders.push((replica, store.correct(vec![order.about(n)])));
        }
    }

    fn advance(&mut self, ms: u64) {
        self.now_ms += ms;
        for replica in self.stores.advance(ms) {
            self.admissions.iter_mut().filter(|a| a.replica == replica).for_each(|a| a.suspect = true);
        }
        if let Some(last_ms) = self.stores.claims_last_ms() {
            let old = self.now_ms.saturating_sub(last_ms);
            self.admissions.iter_mut().filter(|a| a.at_ms <= old).for_each(|a| a.suspect = true);
        }
    }

    fn crash(&mut self, replica: usize, after: bool) {
        if self.stores.is_down(replica) {
            return;
        }
        self.stores.crash(replica, after);
        let gone = self.requests.extract_if(.., |_, request| request.replica == replica);
        let written: BTreeSet<usize> = gone.filter_map(|(_, request)| request.may_be_written()).collect();
        self.lookups.retain(|lookup| lookup.replica != replica);
        self.orders.retain(|(at, _)| *at != replica);
        self.closings.retain(|(at, _)| *at != replica);
        for (i, admission) in self.admissions.iter_mut().enumerate().filter(|(_, a)| a.replica == replica) {
            admission.suspect = true;
            admission.end = match admission.end {
                End::Live if written.contains(&i) => End::Died,
                End::Live => End::Released,
                End::Dropped => End::Died,
                end => end,
            };
        }
    }

    /// Everything is well again, and whatever was begun is brought to an end.
    pub fn settle_down(&mut self) -> Result<(), Broken> {
        self.stores.calm();
        for replica in 0..self.stores.replicas() as u8 {
            for step in [
                Step::Mend,
                Step::Thaw { replica },
                Step::Answer { replica, answer: Answer::Commit },
                Step::Open { replica },
                Step::Wall { replica, seconds: 0 },
                Step::Accept { replica },
            ] {
                self.step(step)?;
            }
        }
        for _ in 0..20 {
            for replica in 0..self.stores.replicas() as u8 {
                self.step(Step::Answer { replica, answer: Answer::Commit })?;
            }
            for (payment, copy) in self.requests.keys().copied().collect::<Vec<_>>() {
                self.step(Step::Go { payment, copy, luck: 99 })?;
            }
        }
        assert!(self.requests.is_empty(), "a request has no end: {:?}", self.requests.keys());
        self.step(Step::Mine)?;
        self.step(Step::Advance { ms: 200_000 })?;
        for payment in 0..self.payments.len() {
            self.admitted.clear();
            self.reconcile(payment, 0);
            self.turn();
            self.check()?;
        }
        self.equations(true)?;
        self.stores.audit().map_err(|what| Broken { equation: 9, what })
    }
}
