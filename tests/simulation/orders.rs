//! Voids, refunds and disputes that are ordered, in the simulated store: each is one transaction.

use tollgate::ledger::entry::{Kind, is_settled_at_once};

use super::{
    commit::request_of,
    database::{Post, State},
    model::Model,
    model_store::Reply,
    stores::{Fate, Order, Unclear, number},
};

impl Model {
    pub fn correct(&mut self, i: usize, n: i64, order: Order, reply: &Reply<Result<(), Unclear>>) {
        let fate = self.replicas[i].armed.take_if(|fate| *fate != Fate::Hold);
        if matches!(fate, Some(Fate::Fail | Fate::Broken | Fate::Row)) {
            reply.fill(Err(Unclear));
            return;
        }
        let (slot, now_ms) = (self.replicas[i].slot, self.replicas[i].clock.now_ms());
        let seq = self.db.writers[&slot].seq;
        // A writer whose slot is another one's writes nothing.
        if self.db.owns(slot, self.replicas[i].epoch) {
            self.db.stamp(slot, now_ms);
            self.carry_out(i, n, order);
            self.db.seal(slot, seq, &[]);
            self.db.sync();
        }
        reply.fill(if fate.is_some() { Err(Unclear) } else { Ok(()) });
    }

    fn carry_out(&mut self, i: usize, n: i64, order: Order) {
        let Some(row) = self.db.entries.get(&n).filter(|row| row.kind == Kind::Capture).cloned() else { return };
        let (slot, now_ms) = (self.replicas[i].slot, self.replicas[i].clock.now_ms());
        let (request, exact) = (request_of(&row), is_settled_at_once(row.scheme));
        let post = |kind, number, amount, failed| Post {
            kind,
            key: row.key.payment(),
            request: &request,
            agent: row.agent.clone(),
            scheme: row.scheme,
            amount,
            ref_n: Some(n),
            number,
            failed,
        };
        let dispute = self.begun(n, Kind::Dispute, |_| true);
        let voids = match order {
            Order::Void => !exact,
            Order::Refund(units) => {
                let amount = i64::from(units).min(row.amount - self.db.refunded(n));
                if exact && amount > 0 && self.begun(n, Kind::Refund, |of| of == i64::from(units)).is_none() {
                    let which = self.count(n, Kind::Refund) + 1;
                    // Told from others by its units, so it goes back whole or not at all.
                    if amount == i64::from(units) {
                        self.db.insert(slot, now_ms, &post(Kind::Refund, number(which, false), amount, false));
                        self.set_state(&request.key, State::Owed(n), State::Captured);
                    }
                }
                false
            }
            Order::RefundFailed(units) => {
                let units = i64::from(units);
                if let Some(which) = self.begun(n, Kind::Refund, |of| of == units) {
                    self.db.insert(slot, now_ms, &post(Kind::Refund, number(which, true), units, true));
                }
                false
            }
            Order::Dispute => {
                if dispute.is_none() {
                    self.db.insert(slot, now_ms, &post(Kind::Dispute, number(1, false), row.amount, false));
                }
                false
            }
            Order::Uphold => {
                let ended = dispute.and_then(|which| {
                    self.db.insert(slot, now_ms, &post(Kind::Dispute, number(which, true), row.amount, false))
                });
                ended.is_some() && !exact
            }
        };
        if voids && self.db.insert(slot, now_ms, &post(Kind::Void, 0, row.amount, false)).is_some() {
            self.db.add_use(&request, -row.amount);
        }
    }

    /// Which refund or dispute of a capture it is, of this amount, if one was begun.
    fn begun(&self, n: i64, kind: Kind, is: impl Fn(i64) -> bool) -> Option<u8> {
        let mut begun = self.beginnings(n, kind);
        begun.find(|(_, amount)| is(*amount)).map(|(which, _)| which)
    }

    fn count(&self, n: i64, kind: Kind) -> u8 {
        self.beginnings(n, kind).count() as u8
    }

    fn beginnings(&self, n: i64, kind: Kind) -> impl Iterator<Item = (u8, i64)> + '_ {
        let of = self.db.entries.values().filter(move |row| row.kind == kind && row.ref_n == Some(n));
        of.filter_map(|row| match row.key.as_bytes() {
            [.., which, 0] => Some((*which, row.amount)),
            _ => None,
        })
    }
}
