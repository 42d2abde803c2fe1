//! The database of the simulated store: tables, and what a crash of it takes back. Changes to claims are committed
//! asynchronously, so a crash loses those since the last commit that was not.

use std::{collections::BTreeMap, sync::Arc};

use tollgate::ledger::{
    chain::{self, Batch, Hash},
    correction::State as Correction,
    day::BookZone,
    entry::{Entry, EntryNumber, Kind, PostingKey, is_settled_at_once},
    outcomes,
    store::{ClaimRequest, Intent, Outcome},
};
use tollgate::payment::key::PaymentKey;
use tollgate::wire::amount::Asset;

use tollgate::ledger::open_accounts::{PREFIX, TOTAL};

use super::{
    bugs::Bug,
    stores::{Closed, change},
};

/// How long a writer owns its slot without renewing it.
pub const LEASE_MS: u64 = 3_000;
/// Longest ttl and twice the skew: what is older is not taken.
const MEMORY_MS: u64 = 360_000;
const LEDGER_ID: [u8; 16] = [9; 16];

pub type UseRow = (Arc<str>, Asset, i64);

#[derive(Clone, Debug)]
pub struct WriterRow {
    pub epoch: i64,
    pub lease_until: u64,
    pub seq: i64,
    pub batch_seq: i64,
    pub head: Hash,
    pub at_ms: i64,
    pub open_day: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Live,
    Settling,
    Unknown,
    Captured,
    /// The entry's number.
    Owed(i64),
    Serving(i64),
    Free,
    Burnt,
}

#[derive(Clone, Debug)]
pub struct ClaimRow {
    pub slot: i64,
    pub epoch: i64,
    pub token: u64,
    pub state: State,
    pub releases: u8,
    pub request: ClaimRequest,
    pub intent: Option<Arc<Intent>>,
    /// The payer was told to come back while it is settled.
    pub doubtful: bool,
    pub since_ms: u64,
    /// The capture.
    pub n: i64,
}

/// An entry, as far as anything here looks at it.
#[derive(Clone, Debug)]
pub struct EntryRow {
    pub n: i64,
    pub key: PostingKey,
    pub kind: Kind,
    pub at_ms: i64,
    pub day: i64,
    pub account: Arc<str>,
    pub agent: Arc<str>,
    pub scheme: &'static str,
    pub asset: Asset,
    pub amount: i64,
    pub period: i64,
    pub ref_n: Option<i64>,
    /// What it adds to what is charged.
    pub change: i64,
    /// Of refunds and disputes.
    pub state: Option<Correction>,
    pub hash: Hash,
}

pub struct BatchRow {
    pub slot: i64,
    pub n_first: Option<i64>,
    pub n_last: Option<i64>,
    pub at_ms: i64,
    pub outcomes: Option<Vec<u8>>,
    pub head: Hash,
}

/// What is posted; number, times and day are the writer's.
pub struct Post<'a> {
    pub kind: Kind,
    pub key: PaymentKey,
    pub request: &'a ClaimRequest,
    pub agent: Arc<str>,
    pub scheme: &'static str,
    pub amount: i64,
    pub ref_n: Option<i64>,
    /// Of refunds and disputes.
    pub number: u16,
    pub state: Option<Correction>,
}

enum Undo {
    Row(PaymentKey, Option<Box<ClaimRow>>),
    Use(UseRow, i64),
}

pub struct Database {
    pub bug: Option<Bug>,
    /// Its own time; replicas' clocks are near it.
    pub ms: u64,
    pub floor_ms: i64,
    pub writers: BTreeMap<i64, WriterRow>,
    pub claims: BTreeMap<PaymentKey, ClaimRow>,
    pub used: BTreeMap<UseRow, i64>,
    pub entries: BTreeMap<i64, EntryRow>,
    pub by_key: BTreeMap<PostingKey, i64>,
    pub told: BTreeMap<i64, Outcome>,
    pub batches: Vec<BatchRow>,
    /// Day, account, asset: captured less voided.
    pub rollups: BTreeMap<(i64, Arc<str>, Asset), i64>,
    pub closes: Vec<Closed>,
    pub statements: Vec<(Arc<str>, Asset, i64)>,
    zone: BookZone,
    undo: Vec<Undo>,
}

impl Database {
    pub fn new(bug: Option<Bug>, ms: u64, slots: usize) -> Database {
        let writer = |slot: i64| WriterRow {
            epoch: 0,
            lease_until: 0,
            seq: 0,
            batch_seq: 0,
            head: chain::genesis(&LEDGER_ID, slot),
            at_ms: 0,
            open_day: 0,
        };
        Database {
            bug,
            ms,
            floor_ms: 0,
            writers: (1..=slots as i64).map(|slot| (slot, writer(slot))).collect(),
            claims: BTreeMap::new(),
            used: BTreeMap::new(),
            entries: BTreeMap::new(),
            by_key: BTreeMap::new(),
            told: BTreeMap::new(),
            batches: Vec::new(),
            rollups: BTreeMap::new(),
            closes: Vec::new(),
            statements: Vec::new(),
            zone: BookZone::from_name("UTC").unwrap(),
            undo: Vec::new(),
        }
    }

    /// Whether a writer still owns its slot.
    pub fn owns(&self, slot: i64, epoch: i64) -> bool {
        let writer = &self.writers[&slot];
        writer.epoch == epoch && writer.lease_until > self.ms
    }

    /// A writer takes its slot anew, and abandons what it claimed before; durable.
    pub fn take_epoch(&mut self, slot: i64) -> i64 {
        let lease_until = self.ms + LEASE_MS;
        let writer = self.writers.get_mut(&slot).unwrap();
        writer.epoch += 1;
        writer.lease_until = lease_until;
        let epoch = writer.epoch;
        self.undo.clear();
        epoch
    }

    /// Changes a row of `claims`, asynchronously committed.
    pub fn set(&mut self, key: PaymentKey, row: Option<ClaimRow>) {
        let before = match row {
            Some(row) => self.claims.insert(key, row),
            None => self.claims.remove(&key),
        };
        self.undo.push(Undo::Row(key, before.map(Box::new)));
    }

    pub fn add_use(&mut self, request: &ClaimRequest, change: i64) {
        let key = (request.account.clone(), request.asset.clone(), request.period);
        let total = request.account.starts_with(PREFIX).then(|| (TOTAL.into(), request.asset.clone(), request.period));
        for key in [key].into_iter().chain(total) {
            let used = self.used.entry(key.clone()).or_default();
            self.undo.push(Undo::Use(key, *used));
            *used += change;
        }
    }

    /// A claim ends without a capture.
    pub fn give_back(&mut self, request: &ClaimRequest) {
        if self.bug != Some(Bug::ChecksThenCaptures) {
            self.add_use(request, -request.amount.get());
        }
    }

    /// Everything so far is durable.
    pub fn sync(&mut self) {
        self.undo.clear();
    }

    pub fn crash(&mut self) {
        while let Some(undo) = self.undo.pop() {
            match undo {
                Undo::Row(key, Some(row)) => _ = self.claims.insert(key, *row),
                Undo::Row(key, None) => _ = self.claims.remove(&key),
                Undo::Use(key, used) => _ = self.used.insert(key, used),
            }
        }
    }

    /// Frees what dead writers claimed, hands on what they were settling, and forgets what is below the floor.
    pub fn sweep(&mut self) {
        let mut changes = Vec::new();
        for (key, row) in &self.claims {
            let dead = !self.owns(row.slot, row.epoch);
            let expired = self.bug == Some(Bug::ClaimExpires) && self.ms >= row.since_ms + 10_000;
            let exact = is_settled_at_once(scheme_of(&row.request));
            let state = match row.state {
                State::Live if dead || expired => State::Free,
                State::Settling if dead => State::Unknown,
                State::Serving(n) if dead => State::Owed(n),
                // Nobody knows whether the answer left: the payer may fetch it once.
                State::Captured if dead && exact && !self.has_end(row.n, key) => State::Owed(row.n),
                _ => continue,
            };
            changes.push((*key, ClaimRow { state, ..row.clone() }));
        }
        for (key, row) in changes {
            if row.state == State::Free {
                self.give_back(&row.request);
            }
            self.set(key, Some(row));
        }
        let floor_ms = self.floor_ms.unsigned_abs();
        let done = |row: &ClaimRow| matches!(row.state, State::Free | State::Burnt | State::Captured);
        let old: Vec<PaymentKey> = self
            .claims
            .iter()
            .filter(|(_, row)| done(row) && row.request.paid_at_ms < floor_ms)
            .map(|(key, _)| *key)
            .collect();
        old.into_iter().for_each(|key| self.set(key, None));
    }

    fn has_end(&self, n: i64, key: &PaymentKey) -> bool {
        let has = |kind| self.by_key.contains_key(&PostingKey::new(kind, key, 0));
        self.told.contains_key(&n) || has(Kind::Redelivered) || has(Kind::Lapsed) || self.is_refunded(n)
    }

    /// Whether money was ever sent back: its answer is not given any more.
    pub fn is_refunded(&self, n: i64) -> bool {
        self.entries.values().any(|row| row.kind == Kind::Refund && row.ref_n == Some(n))
    }

    /// The capture of a payment.
    pub fn capture_of(&self, key: &PaymentKey) -> Option<i64> {
        self.by_key.get(&PostingKey::new(Kind::Capture, key, 0)).copied()
    }

    /// The time of a batch of this writer, which never falls.
    pub fn stamp(&mut self, slot: i64, now_ms: u64) -> i64 {
        let writer = self.writers.get_mut(&slot).unwrap();
        writer.at_ms = writer.at_ms.max(now_ms as i64);
        let at_ms = writer.at_ms;
        self.floor_ms = self.floor_ms.max(now_ms.saturating_sub(MEMORY_MS) as i64);
        at_ms
    }

    /// Numbers, chains and inserts; `None` when the posting key is taken.
    pub fn insert(&mut self, slot: i64, now_ms: u64, post: &Post<'_>) -> Option<i64> {
        let key = PostingKey::new(post.kind, &post.key, post.number);
        let writer = self.writers.get(&slot).unwrap();
        let open_day = if self.bug == Some(Bug::ClosesByTime) { 0 } else { writer.open_day };
        let at_ms = if self.bug == Some(Bug::ClosesByTime) { now_ms as i64 } else { writer.at_ms };
        let mut row = EntryRow {
            n: EntryNumber { slot, seq: writer.seq + 1 }.n(),
            key,
            kind: post.kind,
            at_ms: writer.at_ms,
            day: self.zone.book_day(at_ms.unsigned_abs(), open_day),
            account: post.request.account.clone(),
            agent: post.agent.clone(),
            scheme: post.scheme,
            asset: post.request.asset.clone(),
            amount: post.amount,
            period: post.request.period,
            ref_n: post.ref_n,
            change: change(post.kind, post.number, post.state == Some(Correction::Failed), post.amount),
            state: post.state,
            hash: writer.head,
        };
        if self.by_key.contains_key(&key) {
            if self.bug == Some(Bug::LoserCounts) {
                self.count(&row);
            }
            return None;
        }
        row.hash = chain::entry(&writer.head, &row.entry());
        let writer = self.writers.get_mut(&slot).unwrap();
        (writer.seq, writer.head) = (writer.seq + 1, row.hash);
        self.count(&row);
        self.by_key.insert(key, row.n);
        let n = row.n;
        self.entries.insert(n, row);
        Some(n)
    }

    /// Adds to the roll-up.
    pub fn count(&mut self, row: &EntryRow) {
        *self.rollups.entry((row.day, row.account.clone(), row.asset.clone())).or_default() += row.change;
    }

    /// Ends a batch whose first entry had to follow `seq`.
    pub fn seal(&mut self, slot: i64, seq: i64, told: &[Outcome]) {
        let (packed, _) = outcomes::encode(told);
        let writer = self.writers.get_mut(&slot).unwrap();
        if writer.seq == seq && packed.is_none() {
            return;
        }
        writer.batch_seq += 1;
        let has_entries = writer.seq > seq;
        let (n_first, n_last) = (EntryNumber { slot, seq: seq + 1 }.n(), EntryNumber { slot, seq: writer.seq }.n());
        let batch = BatchRow {
            slot,
            n_first: has_entries.then_some(n_first),
            n_last: has_entries.then_some(n_last),
            at_ms: writer.at_ms,
            outcomes: packed,
            head: writer.head,
        };
        writer.head = chain::batch(&writer.head, &batch.columns(writer.batch_seq));
        self.batches.push(BatchRow { head: writer.head, ..batch });
        self.told.extend(told.iter().map(|outcome| (outcome.n, *outcome)));
    }

    /// Closes the days before `until`, for every writer at once.
    pub fn close(&mut self, until: i64, now_ms: u64) -> Result<i64, String> {
        let last = self.closes.last().map(|close| close.until);
        if let Some(last) = last.filter(|last| until <= *last) {
            return if until == last { Ok(until) } else { Err("earlier".to_owned()) };
        }
        if until > self.zone.book_day(now_ms, 0) {
            return Err("not yet".to_owned());
        }
        let first = self.entries.values().map(|row| row.day).min();
        let from = last.unwrap_or(first.unwrap_or(until).min(until));
        self.writers.values_mut().for_each(|writer| writer.open_day = writer.open_day.max(until));
        let heads = self.writers.iter().map(|(slot, writer)| (*slot, writer.seq)).collect();
        self.closes.push(Closed { from, until, heads });
        let mut sums: BTreeMap<(Arc<str>, Asset), i64> = BTreeMap::new();
        for ((day, account, asset), net) in &self.rollups {
            if (from..until).contains(day) {
                *sums.entry((account.clone(), asset.clone())).or_default() += net;
            }
        }
        self.statements.extend(sums.into_iter().map(|((account, asset), total)| (account, asset, total)));
        self.sync();
        Ok(until)
    }

    /// Recomputes every chain.
    pub fn audit(&self) -> Result<(), String> {
        for (slot, writer) in &self.writers {
            let (mut head, mut batch_seq, mut n) = (chain::genesis(&LEDGER_ID, *slot), 0, slot << 48);
            for batch in self.batches.iter().filter(|batch| batch.slot == *slot) {
                batch_seq += 1;
                while batch.n_last.is_some_and(|last| n < last) {
                    n += 1;
                    let row = self.entries.get(&n).ok_or_else(|| format!("no entry {n}"))?;
                    head = chain::entry(&head, &row.entry());
                }
                head = chain::batch(&head, &batch.columns(batch_seq));
                if head != batch.head {
                    return Err(format!("the head of batch {batch_seq} of writer {slot} does not recompute"));
                }
            }
            if (head, batch_seq, n) != (writer.head, writer.batch_seq, (slot << 48) + writer.seq) {
                return Err(format!("the row of writer {slot} is not the end of its chain"));
            }
        }
        Ok(())
    }
}

/// `exact` pays on a chain and has no period of credit.
pub fn scheme_of(request: &ClaimRequest) -> &'static str {
    if request.period == 0 { "exact" } else { "deferred" }
}

impl EntryRow {
    fn entry(&self) -> Entry<'_> {
        Entry {
            n: self.n,
            key: self.key,
            kind: self.kind,
            at_ms: self.at_ms,
            wall_ms: self.at_ms,
            book_day: self.day,
            account: &self.account,
            agent: &self.agent,
            agent_key: None,
            route: "articles",
            scheme: self.scheme,
            asset: self.asset.as_str(),
            amount: self.amount,
            list_amount: None,
            period: self.period,
            table_hash: None,
            status: None,
            ref_n: self.ref_n,
            method: None,
            target: None,
            target_salt: None,
            target_digest: None,
            evidence: None,
            evidence_digest: None,
        }
    }
}

impl BatchRow {
    fn columns(&self, batch_seq: i64) -> Batch<'_> {
        let BatchRow { slot, n_first, n_last, at_ms, .. } = *self;
        Batch { slot, batch_seq, n_first, n_last, at_ms, outcomes: self.outcomes.as_deref() }
    }
}
