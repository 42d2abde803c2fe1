//! Which payments are in flight, captured, released or spent, above the replay floor; in memory, of this process.
//!
//! The map is the only thing between one signature and two answers, so it never evicts: below the floor a payment is
//! refused by its time alone, above it the map knows it, and a full map refuses.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use super::{
    credit::{Credit, UseKey, units},
    settling::Registry,
    store::{Claim, ClaimError, ClaimRequest, Look, Released, Settling, Unavailable, Unresolved},
    throttle::Drops,
};
use crate::{payment::key::PaymentKey, wire::amount::Units};

/// Shards of the map. A claim holds one of them for well under a microsecond, the sweeper for the look at 30,000 keys where
/// eight million are held.
pub(super) const SHARDS: usize = 256;
/// Shards that are swept with each step of the floor: a key leaves at most eight steps, seconds on a busy gateway, after it
/// fell below.
pub(super) const SWEEP: usize = SHARDS / 8;
/// The release that spends a payment.
const RELEASES_MAX: u8 = 3;

/// The claims of one process.
///
/// Locks are taken in the order shard → credit, and none is held across an await.
#[derive(Debug)]
pub(super) struct Claims {
    shards: Vec<Mutex<HashMap<PaymentKey, Held>>>,
    pub(super) credit: Credit,
    drops: Drops,
    pub(super) unresolved: Registry,
    /// Keys in all shards, and the most that there may be.
    held: AtomicUsize,
    keys_max: usize,
    floor_ms: AtomicU64,
    next_token: AtomicU64,
}

#[derive(Clone, Copy, Debug)]
struct Held {
    state: State,
    /// Releases so far.
    releases: u8,
    /// At or after the time of the payment: kept until that is below the floor.
    paid_at_ms: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Live {
        token: u64,
    },
    /// Money may be moving.
    Settling {
        token: u64,
    },
    /// Whether money moved is not known.
    Unresolved,
    /// The entry's number; 0 where it is not known.
    Captured {
        n: i64,
    },
    /// Captured, and nobody has been given anything for it.
    Owed {
        n: i64,
    },
    /// What is owed is being served.
    Serving {
        n: i64,
    },
    /// The last turn is over, and that is not on disk yet.
    Lapsing {
        n: i64,
    },
    Released,
    Burnt,
}

impl State {
    fn is_live(self, token: u64) -> bool {
        self == State::Live { token }
    }

    fn is_settling(self, token: u64) -> bool {
        self == State::Settling { token }
    }

    /// Still to be ended by somebody, however old the payment is.
    fn is_open(self) -> bool {
        let owed = matches!(self, State::Owed { .. } | State::Serving { .. } | State::Lapsing { .. });
        owed || matches!(self, State::Live { .. } | State::Settling { .. } | State::Unresolved)
    }
}

impl Claims {
    pub(super) fn new(keys_max: usize, floor_ms: u64, credit_elsewhere: bool) -> Claims {
        Claims {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            credit: Credit::new(credit_elsewhere),
            drops: Drops::new(),
            unresolved: Registry::default(),
            held: AtomicUsize::new(0),
            keys_max,
            floor_ms: AtomicU64::new(floor_ms),
            next_token: AtomicU64::new(1),
        }
    }

    /// Takes key and credit together.
    pub(super) fn claim(&self, request: ClaimRequest, now_ms: u64) -> Result<Claim, ClaimError> {
        if dropper(&request).is_some_and(|who| self.drops.is_throttled(who, now_ms)) {
            return Err(ClaimError::Throttled);
        }
        let mut shard = self.shard(&request.key);
        // Under the lock: the sweeper raises the floor before it takes a shard, so a key that it dropped is refused here.
        if request.paid_at_ms < self.floor_ms() {
            return Err(ClaimError::BelowFloor);
        }
        let token = self.next_token.fetch_add(1, Ordering::Relaxed);
        // Asked only for a payment that has no state of its own: what is owed must not hide behind another one's doubt.
        let in_doubt = || request.purchase.as_ref().is_some_and(|purchase| self.unresolved.has(purchase));
        let live = |releases| Held { state: State::Live { token }, releases, paid_at_ms: request.paid_at_ms };
        match shard.entry(request.key) {
            Entry::Occupied(mut occupied) => {
                let held = *occupied.get();
                match held.state {
                    State::Live { .. } | State::Settling { .. } => return Err(ClaimError::InFlight),
                    State::Serving { .. } | State::Lapsing { .. } => return Err(ClaimError::InFlight),
                    State::Unresolved => return Err(ClaimError::Unresolved),
                    State::Owed { .. } => return Err(ClaimError::Owed),
                    State::Captured { n } => return Err(ClaimError::AlreadyCaptured((n != 0).then_some(n))),
                    State::Burnt => return Err(ClaimError::Burnt),
                    State::Released if in_doubt() => return Err(ClaimError::PayerUnresolved),
                    State::Released => {}
                }
                self.take_credit(&request)?;
                *occupied.get_mut() = live(held.releases);
            }
            Entry::Vacant(_) if in_doubt() => return Err(ClaimError::PayerUnresolved),
            Entry::Vacant(vacant) => {
                if self.held.fetch_add(1, Ordering::Relaxed) >= self.keys_max {
                    self.held.fetch_sub(1, Ordering::Relaxed);
                    return Err(Unavailable("the ledger's memory is full: raise ledger.keys_max".into()).into());
                }
                if let Err(error) = self.take_credit(&request) {
                    self.held.fetch_sub(1, Ordering::Relaxed);
                    return Err(error);
                }
                vacant.insert(live(0));
            }
        }
        drop(shard);
        Ok(Claim { request, token })
    }

    /// Whether this payer dropped too many claims lately.
    pub(super) fn is_throttled(&self, payer: &str, now_ms: u64) -> bool {
        self.drops.is_throttled(payer, now_ms)
    }

    /// What memory knows of a key.
    pub(super) fn look(&self, key: &PaymentKey) -> Look {
        match self.shard(key).get(key).map(|held| held.state) {
            Some(State::Captured { n } | State::Owed { n } | State::Serving { n } | State::Lapsing { n }) => {
                Look::Captured((n != 0).then_some(n))
            }
            _ => Look::Unknown,
        }
    }

    /// Whether a payment has gone further than a claim.
    pub(super) fn knows(&self, key: &PaymentKey) -> bool {
        let state = self.shard(key).get(key).map(|held| held.state);
        state.is_some_and(|state| !matches!(state, State::Live { .. } | State::Released | State::Burnt))
    }

    /// Whether this payment is in this process's hand: claimed, or being settled.
    pub(super) fn holds(&self, key: &PaymentKey) -> bool {
        let held = self.shard(key).get(key).map(|held| held.state);
        matches!(held, Some(State::Live { .. } | State::Settling { .. }))
    }

    /// Whether this claim is the live one of its key.
    pub(super) fn is_live(&self, claim: &Claim) -> bool {
        self.shard(&claim.request.key)
            .get(&claim.request.key)
            .is_some_and(|held| held.state == State::Live { token: claim.token })
    }

    /// Gives key and credit back, and counts the drop if the client made it; the third release spends the key.
    pub(super) fn release(&self, claim: &Claim, why: Released, now_ms: u64) {
        if why == Released::NotAsked && self.forget(claim) {
            return;
        }
        let released = self.end(claim, State::is_live, |held| {
            held.releases += u8::from(why != Released::NotAsked);
            held.state = if held.releases >= RELEASES_MAX { State::Burnt } else { State::Released };
            Units::ZERO
        });
        if released
            && why == Released::ClientLeft
            && let Some(who) = dropper(&claim.request)
        {
            self.drops.count(who, now_ms);
        }
    }

    /// A claim that led to nothing at all leaves nothing behind, or payments that cost nobody anything would fill memory.
    fn forget(&self, claim: &Claim) -> bool {
        let mut shard = self.shard(&claim.request.key);
        match shard.get(&claim.request.key) {
            Some(held) if held.state.is_live(claim.token) && held.releases == 0 => {}
            _ => return false,
        }
        shard.remove(&claim.request.key);
        self.held.fetch_sub(1, Ordering::Relaxed);
        self.credit.settle(&use_key(&claim.request), claim.request.amount, Units::ZERO);
        true
    }

    /// Others have had this payment meanwhile, or the claim can't be made now.
    pub(super) fn refused(&self, claim: &Claim, error: &ClaimError) {
        // What another gateway captured may be owed later.
        let state = match error {
            ClaimError::Burnt => State::Burnt,
            _ if self.forget(claim) => return,
            _ => State::Released,
        };
        self.end(claim, State::is_live, |held| {
            held.state = state;
            Units::ZERO
        });
    }

    /// Gives key and credit back because the ledger failed, which is not the account's doing.
    pub(super) fn give_back(&self, claim: &Claim) {
        self.end(claim, State::is_live, |held| {
            held.state = State::Released;
            Units::ZERO
        });
    }

    /// The intent is on disk. The credit stays claimed.
    pub(super) fn settling(&self, claim: &Claim) {
        if let Some(held) = self.shard(&claim.request.key).get_mut(&claim.request.key)
            && held.state == (State::Live { token: claim.token })
        {
            held.state = State::Settling { token: claim.token };
        }
    }

    /// The settlement ended without a verdict.
    pub(super) fn unresolved(&self, unresolved: Unresolved, claim: &Claim) {
        let key = claim.request.key;
        if self.leave(&key) {
            return;
        }
        // Registered first: whoever finds the state finds the payment.
        self.unresolved.insert(unresolved);
        if let Some(held) = self.shard(&key).get_mut(&key)
            && held.state == (State::Settling { token: claim.token })
        {
            held.state = State::Unresolved;
        }
    }

    /// Takes an unresolved payment in hand.
    pub(super) fn adopt(&self, key: &PaymentKey) -> Option<Settling> {
        let mut shard = self.shard(key);
        let held = shard.get_mut(key).filter(|held| held.state == State::Unresolved)?;
        let Unresolved { request, intent } = self.unresolved.get(key)?;
        let token = self.next_token.fetch_add(1, Ordering::Relaxed);
        held.state = State::Settling { token };
        Some(Settling { claim: Claim { request, token }, intent })
    }

    /// Takes a payment in hand that the database has given to this gateway.
    pub(super) fn take_over(&self, unresolved: Unresolved) -> Settling {
        let Unresolved { request, intent } = unresolved;
        let token = self.next_token.fetch_add(1, Ordering::Relaxed);
        let held = Held { state: State::Settling { token }, releases: 0, paid_at_ms: request.paid_at_ms };
        self.hold(request.key, held);
        Settling { claim: Claim { request, token }, intent }
    }

    /// Where a database knows what has become of payments, memory keeps only what can't change any more, and what is in this
    /// gateway's hand.
    fn leave(&self, key: &PaymentKey) -> bool {
        let leaves = self.credit.is_elsewhere();
        if leaves && self.shard(key).remove(key).is_some() {
            self.held.fetch_sub(1, Ordering::Relaxed);
        }
        leaves
    }

    /// The settlement failed for good: nothing moved, and nothing will.
    pub(super) fn failed(&self, claim: &Claim) {
        self.unresolved.remove(&claim.request.key);
        self.end(claim, State::is_settling, |held| {
            held.state = State::Burnt;
            Units::ZERO
        });
    }

    /// The settlement moved money, entry `n` says so.
    pub(super) fn settled(&self, claim: &Claim, n: i64, amount: Units, owed: bool) {
        if owed && self.leave(&claim.request.key) {
            return;
        }
        self.unresolved.remove(&claim.request.key);
        self.end(claim, State::is_settling, |held| {
            held.state = if owed { State::Owed { n } } else { State::Captured { n } };
            amount
        });
    }

    /// The captured payment's answer was not given. A turn that is taken is of what is owed already.
    pub(super) fn owe(&self, key: &PaymentKey, n: i64) {
        if self.leave(key) {
            return;
        }
        if let Some(held) = self.shard(key).get_mut(key)
            && matches!(held.state, State::Captured { .. })
        {
            held.state = State::Owed { n };
        }
    }

    /// Takes what is owed, once.
    pub(super) fn take_owed(&self, key: &PaymentKey) -> Option<i64> {
        let mut shard = self.shard(key);
        let held = shard.get_mut(key)?;
        let State::Owed { n } = held.state else { return None };
        held.state = State::Serving { n };
        Some(n)
    }

    /// It was not given: owed again, unless that was the last of its turns. Each asks the origin, which nobody pays for. True
    /// for the last one: nobody is told of it before it is on disk.
    pub(super) fn give_back_owed(&self, key: &PaymentKey, n: i64) -> bool {
        let mut shard = self.shard(key);
        let Some(held) = shard.get_mut(key).filter(|held| held.state == State::Serving { n }) else { return false };
        held.releases = held.releases.saturating_add(1);
        let is_last = held.releases >= RELEASES_MAX;
        held.state = if is_last { State::Lapsing { n } } else { State::Owed { n } };
        is_last
    }

    /// The end of a turn was not written: the turn is to be had once more.
    pub(super) fn owe_again(&self, key: &PaymentKey, n: i64) {
        if let Some(held) = self.shard(key).get_mut(key)
            && [State::Serving { n }, State::Lapsing { n }].contains(&held.state)
        {
            held.releases = held.releases.min(RELEASES_MAX - 1);
            held.state = State::Owed { n };
        }
    }

    /// What was owed is served or has lapsed, as the books say.
    pub(super) fn ended(&self, key: &PaymentKey, n: i64) {
        if let Some(held) = self.shard(key).get_mut(key)
            && [State::Serving { n }, State::Lapsing { n }].contains(&held.state)
        {
            held.state = State::Captured { n };
        }
    }

    /// What was owed is given back another way: it is fetched no more.
    pub(super) fn end_owed(&self, key: &PaymentKey, n: i64) {
        if let Some(held) = self.shard(key).get_mut(key)
            && [State::Owed { n }, State::Serving { n }, State::Lapsing { n }].contains(&held.state)
        {
            held.state = State::Captured { n };
        }
    }

    /// The capture is on disk as entry `n`, for `amount`.
    pub(super) fn captured(&self, claim: &Claim, n: i64, amount: Units) {
        self.end(claim, State::is_live, |held| {
            held.state = State::Captured { n };
            amount
        });
    }

    /// The capture is on disk, and so is its share of what is stored.
    pub(super) fn captured_and_loaded(&self, claim: &Claim, n: i64) {
        self.captured(claim, n, Units::ZERO);
    }

    /// Another posting of the key was first.
    pub(super) fn lost(&self, claim: &Claim) {
        self.captured(claim, 0, Units::ZERO);
    }

    /// Takes in a captured key at start, whatever the cap: what is on disk must be known.
    pub(super) fn load(&self, key: PaymentKey, n: i64, owed: bool, paid_at_ms: u64) {
        let state = if owed { State::Owed { n } } else { State::Captured { n } };
        self.hold(key, Held { state, releases: 0, paid_at_ms });
    }

    /// Takes in a payment that an earlier process could not resolve.
    pub(super) fn load_unresolved(&self, unresolved: Unresolved) {
        let (key, paid_at_ms) = (unresolved.request.key, unresolved.request.paid_at_ms);
        if self.unresolved.get(&key).is_none() {
            self.credit.claim_again(&use_key(&unresolved.request), unresolved.request.amount);
        }
        self.unresolved.insert(unresolved);
        self.hold(key, Held { state: State::Unresolved, releases: 0, paid_at_ms });
    }

    fn hold(&self, key: PaymentKey, held: Held) {
        if self.shard(&key).insert(key, held).is_none() {
            self.held.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The replay floor in force.
    pub(super) fn floor_ms(&self) -> u64 {
        self.floor_ms.load(Ordering::Acquire)
    }

    /// Raises the floor after it became durable; it never falls.
    pub(super) fn raise_floor(&self, floor_ms: u64) {
        self.floor_ms.fetch_max(floor_ms, Ordering::AcqRel);
    }

    /// Drops what one shard holds below the floor, except live claims.
    pub(super) fn sweep(&self, shard: usize) {
        let floor_ms = self.floor_ms();
        let mut shard = lock(&self.shards[shard % SHARDS]);
        let before = shard.len();
        shard.retain(|_, held| held.paid_at_ms >= floor_ms || held.state.is_open());
        self.held.fetch_sub(before - shard.len(), Ordering::Relaxed);
    }

    /// Whether there is no room for another key.
    pub(super) fn is_full(&self) -> bool {
        self.held() >= self.keys_max
    }

    /// Keys in memory.
    pub(super) fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    fn take_credit(&self, request: &ClaimRequest) -> Result<(), ClaimError> {
        self.credit
            .take(&use_key(request), request.amount, request.limit, request.within)
            .map_err(|(used, limit)| ClaimError::CreditExhausted { used: units(used), limit })
    }

    /// Ends the claim if it is the live one; `end` says how and how much of it is stored now.
    fn end(&self, claim: &Claim, is: impl FnOnce(State, u64) -> bool, end: impl FnOnce(&mut Held) -> Units) -> bool {
        let mut shard = self.shard(&claim.request.key);
        let Some(held) = shard.get_mut(&claim.request.key) else { return false };
        if !is(held.state, claim.token) {
            return false;
        }
        let stored = end(held);
        self.credit.settle(&use_key(&claim.request), claim.request.amount, stored);
        true
    }

    fn shard(&self, key: &PaymentKey) -> MutexGuard<'_, HashMap<PaymentKey, Held>> {
        // The ninth byte is random in offer ids and hashed in the other kinds.
        lock(&self.shards[usize::from(key.as_bytes()[8]) % SHARDS])
    }
}

/// Who is throttled for claims that are dropped: the payer, for all wallets share one account.
fn dropper(request: &ClaimRequest) -> Option<&Arc<str>> {
    let payer = request.purchase.as_ref().map(|purchase| &purchase.payer).or(request.payer.as_ref());
    payer.or((request.period != 0).then_some(&request.account))
}

/// Where the claim counts.
pub(super) fn use_key(request: &ClaimRequest) -> UseKey {
    (request.account.clone(), request.asset.clone(), request.period)
}

/// A panic elsewhere leaves each of these maps whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
