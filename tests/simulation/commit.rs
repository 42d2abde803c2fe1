//! How a replica of the simulated store writes a batch: one transaction, fenced row by row.

use std::sync::Arc;

use tollgate::ledger::{
    entry::{Kind, is_settled_at_once},
    store::{CaptureError, Claim, ClaimRequest, Delivery, Intent, Outcome, OwedTurn, Posting, Receipt, Unavailable},
};

use super::{
    bugs::Bug,
    database::{ClaimRow, EntryRow, Post, State},
    model::Model,
    model_store::Reply,
    stores::Fate,
};

pub type Posted = Result<Receipt, CaptureError>;

/// What waits for a commit.
#[allow(clippy::large_enum_variant, reason = "there are few at a time")]
pub enum Write {
    Job {
        claim: Claim,
        posting: Posting,
        act: Act,
        reply: Reply<Posted>,
    },
    Told(Outcome),
    /// A turn at what is owed ends: served, or the last one without.
    Again {
        turn: OwedTurn,
        served: bool,
        reply: Reply<Posted>,
    },
}

#[derive(Clone)]
pub enum Act {
    Capture,
    Intend(Arc<Intent>),
    Settle { owed: bool },
    Fail,
}

pub fn unavailable(why: &str) -> CaptureError {
    Unavailable(why.into()).into()
}

impl Model {
    /// Writes a batch as its fate will have it.
    pub fn commit(&mut self, i: usize, mut batch: Vec<Write>) {
        match self.replicas[i].armed.take() {
            Some(Fate::Hold) => self.replicas[i].held = Some(batch),
            Some(Fate::Fail | Fate::Broken) => self.failed(i, batch),
            Some(Fate::Unseen) => self.apply(i, batch, false),
            Some(Fate::Row) => {
                if let Some(first) = batch.iter().position(|write| matches!(write, Write::Job { .. })) {
                    let refused = batch.remove(first);
                    self.failed(i, vec![refused]);
                }
                self.apply(i, batch, true);
            }
            None => self.apply(i, batch, true),
        }
    }

    /// Nothing of the batch was written.
    pub fn failed(&mut self, i: usize, batch: Vec<Write>) {
        for write in batch {
            match write {
                Write::Job { claim, posting, act, reply } => {
                    self.answer_job(i, &reply, Err(unavailable("not written")), &act, &claim);
                    match act {
                        Act::Capture | Act::Intend(_) => self.give_back(i, &claim),
                        // Money moved, or certainly did not: written later, for nobody who waits.
                        Act::Settle { .. } => {
                            let act = Act::Settle { owed: true };
                            self.replicas[i].kept.push(Write::Job { claim, posting, act, reply: Reply::new() });
                        }
                        Act::Fail => {
                            self.replicas[i].kept.push(Write::Job { claim, posting, act, reply: Reply::new() });
                        }
                    }
                }
                Write::Told(outcome) => self.replicas[i].kept.push(Write::Told(outcome)),
                Write::Again { turn, served: false, reply } => {
                    self.replicas[i].kept.push(Write::Again { turn, served: false, reply });
                }
                Write::Again { turn, reply, .. } => {
                    self.set_state(&turn.key, State::Serving(turn.n), State::Owed(turn.n));
                    reply.fill(Err(unavailable("not written")));
                }
            }
        }
    }

    fn give_back(&mut self, i: usize, claim: &Claim) {
        if let Some(row) = self.row_of(i, claim, State::Live) {
            self.db.give_back(&claim.request);
            self.db.set(claim.request.key, Some(ClaimRow { state: State::Free, ..row }));
        }
    }

    pub fn set_state(&mut self, key: &tollgate::payment::key::PaymentKey, from: State, to: State) -> bool {
        let Some(row) = self.db.claims.get(key).filter(|row| row.state == from) else { return false };
        let row = ClaimRow { state: to, ..row.clone() };
        self.db.set(*key, Some(row));
        true
    }

    /// The batch is written. `seen`: the writer hears so.
    pub fn apply(&mut self, i: usize, batch: Vec<Write>, seen: bool) {
        let (slot, now_ms) = (self.replicas[i].slot, self.replicas[i].clock.now_ms());
        let seq = self.db.writers[&slot].seq;
        let at_ms = self.db.stamp(slot, now_ms).unsigned_abs();
        let (mut told, mut jobs) = (Vec::new(), Vec::new());
        for write in batch {
            match write {
                Write::Job { claim, posting, act, reply } => {
                    let posted = self.post(i, &claim, &posting, &act);
                    let posted = posted.map(|n| Receipt { n, at_ms });
                    jobs.push((claim, posting, act, reply, posted));
                }
                Write::Told(outcome) => {
                    self.reverse(i, &outcome);
                    if self.replicas[i].open.remove(&outcome.n) {
                        told.push(outcome);
                    }
                }
                Write::Again { turn, served, reply } => {
                    let posted = self.end_turn(i, &turn, served);
                    let posted = if seen { posted } else { posted.and(Err(unavailable("not seen"))) };
                    reply.fill(posted);
                }
            }
        }
        self.db.seal(slot, seq, &told);
        self.db.sync();
        let retries = self.db.bug == Some(Bug::RetriesBlindly) && !seen;
        for (claim, posting, act, reply, posted) in jobs {
            if retries {
                self.replicas[i].writes.push(Write::Job { claim, posting, act, reply });
                continue;
            }
            let answered = if seen { posted.clone() } else { Err(unavailable("not seen")) };
            let Ok(receipt) = posted else {
                self.answer_job(i, &reply, answered, &act, &claim);
                continue;
            };
            if matches!(act, Act::Capture | Act::Settle { owed: false }) {
                self.replicas[i].open.insert(receipt.n);
            }
            if !seen {
                self.unseen(i, &claim, &act, receipt);
            }
            self.answer_job(i, &reply, answered, &act, &claim);
        }
    }

    /// Fills the answer; if nobody waits for it any more, what it says has to be dealt with here.
    fn answer_job(&mut self, i: usize, reply: &Reply<Posted>, posted: Posted, act: &Act, claim: &Claim) {
        if let Some(Ok(receipt)) = reply.fill(posted) {
            self.left_alone(i, act, claim, receipt);
        }
    }

    /// A posting that nobody waits for: its answer is not sent, its settlement not begun in this hand.
    pub fn left_alone(&mut self, i: usize, act: &Act, claim: &Claim, receipt: Receipt) {
        match act {
            Act::Capture | Act::Settle { owed: false } => self.not_sent(i, receipt.n),
            Act::Intend(_) => _ = self.set_state(&claim.request.key, State::Settling, State::Unknown),
            Act::Settle { owed: true } | Act::Fail => {}
        }
    }

    fn not_sent(&mut self, i: usize, n: i64) {
        let outcome = Outcome { n, delivery: Delivery::NotSent, void: true, ms: 0, bytes: 0 };
        self.replicas[i].writes.push(Write::Told(outcome));
    }

    /// The writer has looked up what it did not see: nobody was told, so nobody was served.
    fn unseen(&mut self, i: usize, claim: &Claim, act: &Act, receipt: Receipt) {
        match act {
            Act::Capture | Act::Settle { owed: false } => self.not_sent(i, receipt.n),
            Act::Intend(_) => {
                if self.set_state(&claim.request.key, State::Settling, State::Free) {
                    self.db.give_back(&claim.request);
                }
            }
            Act::Settle { owed: true } | Act::Fail => {}
        }
        // As durable as what it takes back.
        self.db.sync();
    }

    /// The number of what was posted.
    fn post(&mut self, i: usize, claim: &Claim, posting: &Posting, act: &Act) -> Result<i64, CaptureError> {
        let (slot, now_ms) = (self.replicas[i].slot, self.replicas[i].clock.now_ms());
        let (request, amount) = (&claim.request, posting.amount.get());
        let post = |kind, ref_n| Post {
            kind,
            key: request.key,
            request,
            agent: posting.agent.clone(),
            scheme: posting.scheme,
            amount,
            ref_n,
            number: 0,
            state: None,
        };
        let needs = if matches!(act, Act::Capture | Act::Intend(_)) { State::Live } else { State::Settling };
        let Some(row) = self.row_of(i, claim, needs) else {
            if self.db.bug == Some(Bug::LoserCounts) && matches!(act, Act::Capture) {
                self.count_loser(slot, &post(Kind::Capture, None), now_ms);
            }
            return Err(unavailable("the claim is not this writer's any more"));
        };
        let key = request.key;
        match act {
            Act::Capture | Act::Settle { .. } => {
                let Some(n) = self.db.insert(slot, now_ms, &post(Kind::Capture, None)) else {
                    self.give_back(i, claim);
                    return Err(CaptureError::Lost);
                };
                let claimed = if self.db.bug == Some(Bug::ChecksThenCaptures) { 0 } else { request.amount.get() };
                self.db.add_use(request, amount - claimed);
                let owed = matches!(act, Act::Settle { owed: true });
                if owed {
                    self.db.insert(slot, now_ms, &post(Kind::Owed, Some(n)));
                }
                let state = if owed { State::Owed(n) } else { State::Captured };
                let stays = self.tombstones || is_settled_at_once(posting.scheme);
                self.db.set(key, stays.then_some(ClaimRow { state, n, ..row }));
                Ok(n)
            }
            Act::Intend(intent) => {
                let n = self.db.insert(slot, now_ms, &post(Kind::Intent, None));
                let (state, intent) = (State::Settling, Some(intent.clone()));
                self.db.set(key, Some(ClaimRow { state, intent, ..row }));
                Ok(n.unwrap_or_default())
            }
            Act::Fail => {
                let n = self.db.insert(slot, now_ms, &post(Kind::Failed, None)).unwrap_or_default();
                self.db.give_back(request);
                self.db.set(key, Some(ClaimRow { state: State::Burnt, ..row }));
                Ok(n)
            }
        }
    }

    /// The bug: what was not inserted is summed all the same.
    fn count_loser(&mut self, slot: i64, post: &Post<'_>, now_ms: u64) {
        let day = (now_ms / 86_400_000) as i64;
        let row = EntryRow {
            n: 0,
            key: tollgate::ledger::entry::PostingKey::new(post.kind, &post.key, 0),
            kind: post.kind,
            at_ms: 0,
            day: day.max(self.db.writers[&slot].open_day),
            account: post.request.account.clone(),
            agent: post.agent.clone(),
            scheme: post.scheme,
            asset: post.request.asset.clone(),
            amount: post.amount,
            period: post.request.period,
            ref_n: None,
            change: post.amount,
            state: None,
            hash: [0; 32],
        };
        self.db.count(&row);
    }

    /// The void of an outcome, or the word that its answer is owed.
    fn reverse(&mut self, i: usize, outcome: &Outcome) {
        let (slot, now_ms) = (self.replicas[i].slot, self.replicas[i].clock.now_ms());
        let Some(row) = self.db.entries.get(&outcome.n).filter(|row| row.kind == Kind::Capture && outcome.void) else {
            return;
        };
        let row = row.clone();
        let exact = is_settled_at_once(row.scheme);
        let request = request_of(&row);
        let post = Post {
            kind: if exact { Kind::Owed } else { Kind::Void },
            key: row.key.payment(),
            request: &request,
            agent: row.agent.clone(),
            scheme: row.scheme,
            amount: row.amount,
            ref_n: Some(row.n),
            number: 0,
            state: None,
        };
        // What was given back is not owed.
        if (exact && self.db.is_refunded(row.n)) || self.db.insert(slot, now_ms, &post).is_none() {
            return;
        }
        if exact {
            self.set_state(&request.key, State::Captured, State::Owed(row.n));
        } else {
            self.db.add_use(&request, -row.amount);
        }
    }

    fn end_turn(&mut self, i: usize, turn: &OwedTurn, served: bool) -> Posted {
        let (slot, now_ms) = (self.replicas[i].slot, self.replicas[i].clock.now_ms());
        let row = self.db.entries[&turn.n].clone();
        let request = request_of(&row);
        let fenced = !self.db.claims.get(&turn.key).is_some_and(|held| {
            held.state == State::Serving(turn.n) && (held.slot, held.epoch) == (slot, self.replicas[i].epoch)
        });
        if fenced || !self.db.owns(slot, self.replicas[i].epoch) {
            return Err(unavailable("the turn is not this writer's any more"));
        }
        if self.db.is_refunded(turn.n) {
            self.set_state(&turn.key, State::Serving(turn.n), State::Captured);
            return Err(CaptureError::Lost);
        }
        let post = |kind| Post {
            kind,
            key: turn.key,
            request: &request,
            agent: row.agent.clone(),
            scheme: row.scheme,
            amount: row.amount,
            ref_n: Some(row.n),
            number: 0,
            state: None,
        };
        self.set_state(&turn.key, State::Serving(turn.n), State::Captured);
        if !served {
            self.db.insert(slot, now_ms, &post(Kind::Owed));
        }
        match self.db.insert(slot, now_ms, &post(if served { Kind::Redelivered } else { Kind::Lapsed })) {
            Some(_) => Ok(Receipt { n: row.n, at_ms: row.at_ms.unsigned_abs() }),
            None => Err(CaptureError::Lost),
        }
    }
}

/// What a later posting about a capture repeats.
pub fn request_of(row: &EntryRow) -> ClaimRequest {
    ClaimRequest {
        within: None,
        key: row.key.payment(),
        paid_at_ms: 0,
        account: row.account.clone(),
        amount: tollgate::wire::amount::Units::new(row.amount).unwrap_or_default(),
        asset: row.asset.clone(),
        limit: tollgate::wire::amount::Units::MAX,
        period: row.period,
        purchase: None,
        payer: None,
    }
}
