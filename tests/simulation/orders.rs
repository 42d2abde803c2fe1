//! Voids, refunds and disputes that are ordered, in the simulated store: what may follow is decided by the ledger's own rules.

use tollgate::{
    ledger::{
        correction::{CorrectError, Decision, Matter, Order, Rules, Standing, State, Step, decide},
        entry::{Kind, PostingKey, is_settled_at_once},
        store::{CorrectResult, Corrected, Unavailable},
    },
    payment::key::PaymentKey,
};

use super::{
    commit::request_of,
    database::{EntryRow, Post, State as Claim},
    model::Model,
    model_store::Reply,
    stores::Fate,
};

impl Model {
    /// One transaction for all of them.
    pub fn correct(&mut self, i: usize, orders: &[Order], reply: &Reply<CorrectResult>) {
        let unclear = || Err(Unavailable("nobody knows what became of it".into()));
        let fate = self.replicas[i].armed.take_if(|fate| *fate != Fate::Hold);
        let (slot, now_ms) = (self.replicas[i].slot, self.replicas[i].clock.now_ms());
        // A writer whose slot is another one's writes nothing.
        if matches!(fate, Some(Fate::Fail | Fate::Broken | Fate::Row)) || !self.db.owns(slot, self.replicas[i].epoch) {
            reply.fill(unclear());
            return;
        }
        let seq = self.db.writers[&slot].seq;
        self.db.stamp(slot, now_ms);
        let results = orders.iter().map(|order| self.carry_out(i, order)).collect();
        self.db.seal(slot, seq, &[]);
        self.db.sync();
        reply.fill(if fate.is_some() { unclear() } else { Ok(results) });
    }

    fn carry_out(&mut self, i: usize, order: &Order) -> Result<Corrected, CorrectError> {
        let row = self.db.entries.get(&order.n).filter(|row| row.kind == Kind::Capture).cloned();
        let row = row.ok_or(CorrectError::NoEntry(order.n))?;
        let standing = self.standing(&row);
        let now_ms = self.replicas[i].clock.now_ms();
        let mut done = Corrected {
            capture_n: row.n,
            n: 0,
            number: 0,
            state: None,
            amount: row.amount,
            asset: row.asset.to_string(),
            void_n: standing.void_n,
            at_once: is_settled_at_once(row.scheme),
            was: false,
        };
        match decide(&standing, order, Rules::default(), now_ms)? {
            Decision::Was(matter) => {
                (done.n, done.number, done.state, done.was) = (matter.n, matter.number, Some(matter.state), true);
            }
            Decision::Post(steps) => {
                for step in steps {
                    let n = self.take(i, &row, &step);
                    match step.kind {
                        Kind::Void => done.void_n = n,
                        _ => (done.number, done.state) = ((step.number >> 8) as u8, step.state),
                    }
                    done.n = n.unwrap_or_default();
                }
            }
        }
        Ok(done)
    }

    /// Posts a step, and lets claims and credit follow.
    fn take(&mut self, i: usize, row: &EntryRow, step: &Step) -> Option<i64> {
        let (slot, now_ms) = (self.replicas[i].slot, self.replicas[i].clock.now_ms());
        let request = request_of(row);
        let post = Post {
            kind: step.kind,
            key: request.key,
            request: &request,
            agent: row.agent.clone(),
            scheme: row.scheme,
            amount: step.amount,
            ref_n: Some(row.n),
            number: step.number,
            state: step.state,
        };
        let n = self.db.insert(slot, now_ms, &post)?;
        match step.kind {
            Kind::Void => self.db.add_use(&request, -row.amount),
            // What goes back is not fetched any more.
            Kind::Refund => _ = self.set_state(&request.key, Claim::Owed(row.n), Claim::Captured),
            _ => {}
        }
        Some(n)
    }

    fn standing(&self, row: &EntryRow) -> Standing {
        let payment = row.key.payment();
        let find = |kind| self.db.by_key.get(&PostingKey::new(kind, &payment, 0)).copied();
        Standing {
            n: row.n,
            scheme: row.scheme.to_owned(),
            asset: row.asset.to_string(),
            amount: row.amount,
            at_ms: row.at_ms,
            void_n: find(Kind::Void),
            redelivered_n: find(Kind::Redelivered),
            refunds: self.matters(&payment, Kind::Refund),
            disputes: self.matters(&payment, Kind::Dispute),
        }
    }

    /// Refunds or disputes, in order of their numbers, which are those of their keys.
    fn matters(&self, payment: &PaymentKey, kind: Kind) -> Vec<Matter> {
        let (first, last) = (PostingKey::new(kind, payment, 0), PostingKey::new(kind, payment, u16::MAX));
        let mut matters: Vec<Matter> = Vec::new();
        for n in self.db.by_key.range(first..=last).map(|(_, n)| n) {
            let row = &self.db.entries[n];
            let state = row.state.unwrap_or(State::Open);
            match matters.last_mut() {
                Some(matter) if row.key.number() & 1 == 1 => (matter.state, matter.ended_n) = (state, Some(row.n)),
                _ => matters.push(Matter {
                    number: (row.key.number() >> 8) as u8,
                    n: row.n,
                    at_ms: row.at_ms,
                    amount: row.amount,
                    state,
                    ended_n: None,
                    reference: Some(format!("of {}", row.amount)),
                    reason: String::new(),
                    by: "operator".to_owned(),
                    proof: None,
                }),
            }
        }
        matters
    }
}
