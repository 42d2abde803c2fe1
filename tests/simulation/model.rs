//! The simulated store: replicas with slots, leases and epochs over one database, after the rules for several gateways.
//! A claim is a row of a slot, asynchronously committed; captures are fenced by slot, epoch and state; a writer that finds
//! its lease gone, or its database restarted, takes a new epoch and abandons what it had claimed.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard},
};

use tollgate::{
    clock::Clock,
    ledger::store::{
        Bought, Claim, ClaimError, ClaimRequest, CorrectResult, Look, Order, Receipt, Released, Store, StoreFuture,
        Unavailable,
    },
    payment::key::PaymentKey,
};

use tollgate::ledger::open_accounts::TOTAL;

use super::{
    bugs::Bug,
    commit::Write,
    database::{ClaimRow, Database, LEASE_MS, State},
    model_store::{Handle, Reply},
    stores::{Answer, Books, Closing, Fate, Stores, Unclear, UseKey},
};

/// Releases that spend a payment.
pub const RELEASES_MAX: u8 = 3;

/// What a replica is asked, besides postings.
pub enum Ask {
    Claim(ClaimRequest, Reply<Result<Claim, ClaimError>>),
    Look(PaymentKey, Reply<Result<Look, Unavailable>>),
    Release(Claim, Released),
    Find(PaymentKey, Reply<Result<Option<Bought>, Unavailable>>),
    Unknown(PaymentKey, u64),
    Close(i64, Reply<Result<i64, Unclear>>),
    Correct(Vec<Order>, Reply<CorrectResult>),
}

pub struct Replica {
    pub slot: i64,
    pub epoch: i64,
    /// Counts the processes of this replica.
    pub process: u64,
    pub up: bool,
    pub frozen: bool,
    /// The database has been restarted while it was frozen.
    pub cut_off: bool,
    pub clock: Clock,
    pub asks: VecDeque<Ask>,
    pub writes: Vec<Write>,
    pub held: Option<Vec<Write>>,
    pub armed: Option<Fate>,
    /// Ends of settlements that could not be written yet.
    pub kept: Vec<Write>,
    /// Captures of this process whose outcome is not written.
    pub open: BTreeSet<i64>,
}

pub struct Model {
    pub db: Database,
    pub replicas: Vec<Replica>,
    /// Whether the row of a captured claim stays; without, only the look after the claim finds the capture.
    pub tombstones: bool,
    next_token: u64,
}

impl Model {
    pub fn token(&mut self) -> u64 {
        self.next_token += 1;
        self.next_token
    }

    /// The row of a claim, if it is this writer's and in this state.
    pub fn row_of(&self, i: usize, claim: &Claim, state: State) -> Option<ClaimRow> {
        let replica = &self.replicas[i];
        let row = self.db.claims.get(&claim.request.key)?;
        let mine = (row.slot, row.epoch, row.token, row.state) == (replica.slot, replica.epoch, claim.token, state);
        (mine && self.db.owns(row.slot, row.epoch)).then(|| row.clone())
    }

    fn work(&mut self, i: usize) {
        while let Some(ask) = self.replicas[i].asks.pop_front() {
            match ask {
                Ask::Claim(request, reply) => _ = reply.fill(self.claim(i, request)),
                Ask::Look(key, reply) => {
                    let look = self.db.capture_of(&key).map_or(Look::Unknown, |n| Look::Captured(Some(n)));
                    reply.fill(Ok(look));
                }
                Ask::Release(claim, why) => self.release(i, &claim, why),
                Ask::Find(key, reply) => _ = reply.fill(Ok(self.find(&key))),
                Ask::Unknown(key, token) => self.unknown(i, key, token),
                Ask::Correct(orders, reply) => self.correct(i, &orders, &reply),
                Ask::Close(until, reply) => self.close(i, until, &reply),
            }
        }
        while self.replicas[i].held.is_none() {
            let replica = &mut self.replicas[i];
            let mut batch = std::mem::take(&mut replica.kept);
            batch.append(&mut replica.writes);
            if batch.is_empty() {
                return;
            }
            self.commit(i, batch);
        }
    }

    fn claim(&mut self, i: usize, request: ClaimRequest) -> Result<Claim, ClaimError> {
        let (slot, epoch) = (self.replicas[i].slot, self.replicas[i].epoch);
        if !self.db.owns(slot, epoch) {
            return Err(Unavailable("the lease is gone".into()).into());
        }
        if (request.paid_at_ms as i64) < self.db.floor_ms {
            return Err(ClaimError::BelowFloor);
        }
        let releases = match self.db.claims.get(&request.key) {
            None => 0,
            Some(row) => match row.state {
                State::Live | State::Settling | State::Serving(_) => return Err(ClaimError::InFlight),
                State::Unknown => return Err(ClaimError::Unresolved),
                State::Owed(_) => return Err(ClaimError::Owed),
                State::Captured => return Err(ClaimError::AlreadyCaptured(Some(row.n))),
                State::Burnt => return Err(ClaimError::Burnt),
                State::Free => row.releases,
            },
        };
        if request.purchase.is_some() && self.in_doubt(request.purchase.as_ref()) {
            return Err(ClaimError::PayerUnresolved);
        }
        let key = (request.account.clone(), request.asset.clone(), request.period);
        let total = (TOTAL.into(), request.asset.clone(), request.period);
        for (key, limit) in [(key, Some(request.limit)), (total, request.within)] {
            let used = self.db.used.get(&key).copied().unwrap_or_default();
            if let Some(limit) = limit.filter(|limit| used + request.amount.get() > limit.get()) {
                let used = tollgate::wire::amount::Units::new(used).unwrap_or_default();
                return Err(ClaimError::CreditExhausted { used, limit });
            }
        }
        if self.db.bug != Some(Bug::ChecksThenCaptures) {
            self.db.add_use(&request, request.amount.get());
        }
        let token = self.token();
        let row = ClaimRow {
            slot,
            epoch,
            token,
            state: State::Live,
            releases,
            request: request.clone(),
            intent: None,
            doubtful: false,
            since_ms: self.db.ms,
            n: 0,
        };
        self.db.set(request.key, Some(row));
        Ok(Claim { request, token })
    }

    pub fn in_doubt(&self, purchase: Option<&tollgate::ledger::store::Purchase>) -> bool {
        self.db.claims.values().any(|row| {
            let open = row.state == State::Unknown || (row.state == State::Settling && row.doubtful);
            open && row.request.purchase.as_ref() == purchase
        })
    }

    fn release(&mut self, i: usize, claim: &Claim, why: Released) {
        let Some(mut row) = self.row_of(i, claim, State::Live) else { return };
        self.db.give_back(&claim.request);
        if why == Released::NotAsked && row.releases == 0 {
            return self.db.set(claim.request.key, None);
        }
        row.releases += u8::from(why != Released::NotAsked);
        row.state = if row.releases >= RELEASES_MAX { State::Burnt } else { State::Free };
        self.db.set(claim.request.key, Some(row));
    }

    fn find(&self, key: &PaymentKey) -> Option<Bought> {
        let row = &self.db.entries[&self.db.capture_of(key)?];
        let has = |kind| self.db.by_key.contains_key(&tollgate::ledger::entry::PostingKey::new(kind, key, 0));
        let receipt = Receipt { n: row.n, at_ms: row.at_ms.unsigned_abs() };
        let owed = has(tollgate::ledger::entry::Kind::Owed) && !has(tollgate::ledger::entry::Kind::Redelivered);
        let refunded = self.db.is_refunded(row.n);
        let (amount, asset) = (row.amount, row.asset.clone());
        Some(Bought { receipt, amount, asset, method: None, target: None, evidence: None, owed, refunded })
    }

    fn unknown(&mut self, i: usize, key: PaymentKey, token: u64) {
        let Some(row) = self.db.claims.get(&key).filter(|row| row.token == token && row.state == State::Settling)
        else {
            return;
        };
        if (row.slot, row.epoch) == (self.replicas[i].slot, self.replicas[i].epoch) {
            let row = ClaimRow { state: State::Unknown, ..row.clone() };
            self.db.set(key, Some(row));
        }
    }

    fn close(&mut self, i: usize, until: i64, reply: &Reply<Result<i64, Unclear>>) {
        let fate = self.replicas[i].armed.take_if(|fate| *fate != Fate::Hold);
        if matches!(fate, Some(Fate::Fail | Fate::Broken | Fate::Row)) {
            reply.fill(Err(Unclear));
            return;
        }
        let now_ms = self.replicas[i].clock.now_ms();
        let closed = self.db.close(until, now_ms).map_err(|_| Unclear);
        reply.fill(closed.and_then(|until| if fate.is_some() { Err(Unclear) } else { Ok(until) }));
    }

    fn running(&self) -> bool {
        self.replicas.iter().any(|replica| replica.up && !replica.frozen)
    }
}

/// A handle to the model, which its stores share.
pub struct ModelStores(Arc<Mutex<Model>>);

impl ModelStores {
    pub fn new(bug: Option<Bug>, tombstones: bool, replicas: usize, now_ms: u64) -> ModelStores {
        let mut db = Database::new(bug, now_ms, replicas);
        let replica = |i: usize| Replica {
            slot: i as i64 + 1,
            epoch: db.take_epoch(i as i64 + 1),
            process: 0,
            up: true,
            frozen: false,
            cut_off: false,
            // Clocks of machines are a little apart.
            clock: Clock::manual(now_ms + [0, 900, 200][i % 3] - [0, 0, 1700][i % 3]),
            asks: VecDeque::new(),
            writes: Vec::new(),
            held: None,
            armed: None,
            kept: Vec::new(),
            open: BTreeSet::new(),
        };
        let replicas = (0..replicas).map(replica).collect();
        ModelStores(Arc::new(Mutex::new(Model { db, replicas, tombstones, next_token: 0 })))
    }

    fn lock(&self) -> MutexGuard<'_, Model> {
        self.0.lock().unwrap()
    }
}

impl Stores for ModelStores {
    fn replicas(&self) -> usize {
        self.lock().replicas.len()
    }

    fn store(&self, replica: usize) -> Option<Arc<dyn Store>> {
        let model = self.lock();
        let it = &model.replicas[replica];
        (it.up && !it.frozen)
            .then(|| Arc::new(Handle { model: self.0.clone(), replica, process: it.process }) as Arc<dyn Store>)
    }

    fn is_down(&self, replica: usize) -> bool {
        !self.lock().replicas[replica].up
    }

    fn is_frozen(&self, replica: usize) -> bool {
        self.lock().replicas[replica].frozen
    }

    fn holds(&self, replica: usize) -> bool {
        self.lock().replicas[replica].held.is_some()
    }

    fn run(&mut self) {
        let mut model = self.lock();
        for i in 0..model.replicas.len() {
            if model.replicas[i].up && !model.replicas[i].frozen {
                model.work(i);
            }
        }
    }

    fn wait(&mut self) {
        self.run();
    }

    fn arm(&mut self, replica: usize, fate: Fate) {
        self.lock().replicas[replica].armed = Some(fate);
    }

    fn answer(&mut self, replica: usize, answer: Answer) {
        let mut model = self.lock();
        // A process that stands still hears of no failure; that a commit took place is the database's doing.
        if model.replicas[replica].frozen && answer != Answer::Commit {
            return;
        }
        let Some(batch) = model.replicas[replica].held.take() else { return };
        match answer {
            Answer::Commit => model.apply(replica, batch, true),
            Answer::Unseen => model.apply(replica, batch, false),
            Answer::Fail => model.failed(replica, batch),
        }
    }

    fn mend(&mut self) {}

    fn calm(&mut self) {
        self.lock().replicas.iter_mut().for_each(|replica| replica.armed = None);
    }

    fn crash(&mut self, replica: usize, after: bool) {
        let mut model = self.lock();
        if let Some(batch) = model.replicas[replica].held.take()
            && after
        {
            model.apply(replica, batch, true);
        }
        let it = &mut model.replicas[replica];
        it.up = false;
        (it.frozen, it.cut_off) = (false, false);
        it.asks.clear();
        it.writes.clear();
        it.kept.clear();
        it.open.clear();
        it.armed = None;
    }

    fn open(&mut self, replica: usize) {
        let mut model = self.lock();
        let slot = model.replicas[replica].slot;
        let epoch = model.db.take_epoch(slot);
        let it = &mut model.replicas[replica];
        it.clock = Clock::manual(it.clock.wall_ms());
        (it.up, it.epoch, it.process) = (true, epoch, it.process + 1);
        model.db.sweep();
    }

    fn freeze(&mut self, replica: usize) {
        self.lock().replicas[replica].frozen = true;
    }

    fn thaw(&mut self, replica: usize) {
        let mut model = self.lock();
        let (slot, epoch) = (model.replicas[replica].slot, model.replicas[replica].epoch);
        model.replicas[replica].frozen = false;
        // Its lease has ended, or its connection: what it said last may be lost.
        if !model.db.owns(slot, epoch) || model.replicas[replica].cut_off {
            model.replicas[replica].epoch = model.db.take_epoch(slot);
            model.replicas[replica].cut_off = false;
            model.db.sweep();
        }
    }

    fn crash_database(&mut self) -> bool {
        let mut model = self.lock();
        model.db.crash();
        for i in 0..model.replicas.len() {
            let slot = model.replicas[i].slot;
            if model.replicas[i].frozen {
                model.replicas[i].cut_off = true;
            } else if model.replicas[i].up {
                model.replicas[i].epoch = model.db.take_epoch(slot);
            }
            // It was not committed, and whoever waits for it hears that.
            if let Some(batch) = model.replicas[i].held.take() {
                model.failed(i, batch);
            }
        }
        model.db.sweep();
        true
    }

    fn advance(&mut self, ms: u64) -> Vec<usize> {
        let mut model = self.lock();
        model.db.ms += ms;
        let now_ms = model.db.ms;
        let mut ended = Vec::new();
        for i in 0..model.replicas.len() {
            let (slot, frozen) = (model.replicas[i].slot, model.replicas[i].frozen);
            model.replicas[i].clock.advance(ms);
            if !model.replicas[i].up {
                continue;
            }
            let writer = model.db.writers.get_mut(&slot).unwrap();
            if !frozen {
                // Renewed each second.
                writer.lease_until = now_ms + LEASE_MS;
            } else if writer.lease_until <= now_ms {
                ended.push(i);
            }
        }
        if model.running() {
            model.db.sweep();
        }
        ended
    }

    fn now_ms(&self, replica: usize) -> u64 {
        self.lock().replicas[replica].clock.now_ms()
    }

    fn step_wall(&mut self, replica: usize, offset_ms: i64) {
        let model = self.lock();
        let clock = &model.replicas[replica].clock;
        clock.step_wall(model.db.ms as i64 + offset_ms - clock.now_ms() as i64);
    }

    fn accept_clock(&mut self, replica: usize) {
        self.lock().replicas[replica].clock.accept_wall();
    }

    fn close_days(&mut self, replica: usize, until: i64) -> Option<Closing> {
        let mut model = self.lock();
        let it = &mut model.replicas[replica];
        if !it.up || it.frozen {
            return None;
        }
        let reply = Reply::new();
        it.asks.push_back(Ask::Close(until, reply.clone()));
        Some(Box::pin(reply.wait()) as StoreFuture<_>)
    }

    fn books(&mut self, _: &BTreeSet<UseKey>) -> Books {
        self.lock().books()
    }

    fn audit(&mut self) -> Result<(), String> {
        self.lock().db.audit()
    }
}
