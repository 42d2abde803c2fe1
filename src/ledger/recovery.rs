//! What the writer does when its file has failed: open it anew, find out what is in it, settle what is in doubt.

use std::{mem, sync::Arc};

use super::{
    batch::BatchError,
    entry::{EntryNumber, Kind, PostingKey},
    file::Head,
    postgres,
    queue::{Act, Job},
    settlements,
    sql::SqlError,
    store::{Delivery, Outcome, Unavailable},
    writer::{BACKOFF, Broken, Writer},
};
use crate::wire::amount::Units;

impl Writer {
    /// Opens the file anew until it is well, and settles what is in doubt. False when the ledger is closed meanwhile.
    pub(super) fn recover(&mut self, reason: &Arc<str>) -> bool {
        let whose = self.whose();
        tracing::error!(reason = &**reason, "priced routes are closed until the ledger's {whose} is well again");
        let mut wait = BACKOFF.0;
        loop {
            // What queues during the wait is certainly not written.
            let left = self.shared.queue.refuse(reason);
            self.outcomes.extend(left.outcomes);
            self.give_up(left.captures, left.redeliveries, reason, false);
            left.asks.into_iter().for_each(|ask| ask.refuse(Unavailable(reason.clone())));
            let closing = self.shared.queue.wait_or_closing(wait);
            match self.try_again() {
                Ok(()) => {
                    self.shared.queue.accept();
                    self.shared.set_closed(|closed| closed.disk = None);
                    tracing::info!("the ledger's {whose} is well again");
                    return true;
                }
                Err(what) => {
                    tracing::warn!(what, "the ledger's {whose} still fails");
                    self.shared.set_closed(|closed| closed.disk = Some(what.into()));
                }
            }
            if closing {
                return false;
            }
            wait = (wait * 2).min(BACKOFF.1);
        }
    }

    pub(super) fn try_again(&mut self) -> Result<(), String> {
        // Kept over tries: opening the file anew takes its head, whoever wrote it.
        let (before, attempted) = *self.doubt.get_or_insert((*self.books.head(), None));
        let (slot, lease) = (self.books.slot, self.books.lease);
        let asked_ms = self.shared.clock.now_ms();
        self.books.reopen(&self.zone, self.sync).map_err(|e| e.to_string())?;
        if let Some(place) = self.shared.place.get() {
            place.opened();
        }
        let now = *self.books.head();
        let failed = |e: SqlError| e.to_string();
        let is = |head: &Head| (head.seq, head.batch_seq, head.hash) == (now.seq, now.batch_seq, now.hash);
        // Only the one batch in doubt may be there beside what was.
        if self.books.slot == slot && !is(&before) && !attempted.as_ref().is_some_and(is) {
            return Err("another process wrote to the ledger".to_owned());
        }
        self.follow_observed(&before, attempted.as_ref().filter(|_| self.books.slot == slot));
        match (self.books.lease, &self.shared.desk) {
            (Some(lease), Some(desk)) => {
                if self.books.slot != slot {
                    // Told with the next renewal.
                    self.published = None;
                }
                desk.held().set(lease, asked_ms);
            }
            _ => {
                let credit = &self.shared.claims.credit;
                credit.load(self.books.account_use(&credit.passes()).map_err(failed)?);
            }
        }
        if self.books.slot != slot {
            tracing::warn!(before = slot, now = self.books.slot, "another gateway had this one's slot in the ledger");
        }
        while let Some(job) = self.in_doubt.last() {
            let key = job.claim.request.key;
            let found = self.books.find(&PostingKey::new(job.act.kind(), &key, 0)).map_err(failed)?;
            // In the batch in doubt: nobody was told, so nobody was served. Else another one's posting.
            let ours = found.map(EntryNumber::from_n).filter(|at| at.slot == slot && at.seq > before.seq).and(found);
            if let Act::Intend(_) = &job.act {
                // Nobody was told, so no facilitator was asked: the settlement never began. Its posting may be that of an
                // earlier try, its row is not.
                match lease {
                    None => settlements::close(&self.books.connection, &key).map_err(failed)?,
                    Some(lease) => postgres::claims::withdraw(&self.books.connection, lease, &key).map_err(failed)?,
                }
            }
            let Some(job) = self.in_doubt.pop() else { break };
            let kind = job.act.kind();
            let claims = &self.shared.claims;
            match (&job.act, found) {
                (Act::Intend(_), _) | (Act::Capture, None) => self.shared.give_back(&job.claim),
                (Act::Capture, Some(n)) => claims.captured_and_loaded(&job.claim, n),
                (Act::Settle { .. } | Act::Fail(_), None) => self.kept.push(job),
                (Act::Settle { owed, .. }, Some(n)) => claims.settled(&job.claim, n, Units::ZERO, *owed),
                (Act::Fail(_), Some(_)) => claims.failed(&job.claim),
            }
            if let (Kind::Capture, Some(n)) = (kind, ours) {
                if self.books.slot == slot {
                    self.books.expect_outcome(n);
                }
                self.books.voids.withhold(n);
                self.outcomes.push(Outcome { n, delivery: Delivery::NotSent, void: true, ms: 0, bytes: 0 });
            }
        }
        self.follow_unsure().map_err(failed)?;
        self.doubt = None;
        self.shared.claims.raise_floor(self.books.floor_ms());
        // Whoever asked for them was told that the ledger is closed, so their answers are owed.
        let kept: Vec<Job> = mem::take(&mut self.kept).into_iter().map(Job::owed).collect();
        self.books.probe().map_err(BatchError::into_text)?;
        let lapses = mem::take(&mut self.lapses);
        self.commit(kept, lapses).map_err(|Broken(reason)| reason.to_string())
    }

    /// What was observed goes again if the chain shows that its batch was not written. A batch of nothing else leaves no trace
    /// there: then it is left out, for what would have been earned must not be told twice.
    fn follow_observed(&mut self, before: &Head, attempted: Option<&Head>) {
        let rows = mem::take(&mut self.observed_in_doubt);
        let tells = attempted.is_some_and(|head| head.batch_seq != before.batch_seq);
        let requests: i64 = rows.iter().map(|(_, sum)| sum.requests).sum();
        if tells && self.books.head().batch_seq == before.batch_seq {
            self.shared.queue.observe_again(rows);
        } else if !tells && requests > 0 {
            tracing::warn!(
                requests,
                "observed requests may be missing in the books: a commit of them had no known end"
            );
        }
    }
}
