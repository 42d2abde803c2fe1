//! Orders about captures, carried out by the writer: what stands is read, decided upon and posted in one transaction, so that
//! of two at once the second is held against what the first has made of it.
//!
//! | point | a crash or a failing disk leaves |
//! |---|---|
//! | asked, read, decided | nothing |
//! | postings inserted, not committed | nothing |
//! | committed, nobody told | the postings; whoever asks again is told that it is so already |
//! | told | the postings; memory has followed before that: credit is given back, what is refunded or voided is not fetched |
//!
//! A commit of which nobody knows whether it took place: the file is opened anew, and memory takes from it what has become of
//! each entry that was ordered about.

use std::{collections::HashSet, sync::Arc};

use super::{
    batch::{BatchError, Stamp, Times, seal, sort},
    books::{Books, int},
    captured::{Captured, captured},
    chain::{self, Hash},
    correction::{By, CorrectError, Decision, Order, Rules, Standing, State, Step, What, decide},
    credit::UseKey,
    entry::{EntryNumber, Kind, PostingKey, is_settled_at_once},
    evidence::Note,
    file,
    mailbox::Ticket,
    outcomes,
    poster::Poster,
    postgres,
    sql::{Begin, Session, SqlError, SqlResult, params},
    steps,
    store::Unavailable,
    turns::{self, Stand},
    writer::{Broken, Writer},
};
use crate::wire::amount::Asset;

/// What became of an order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Corrected {
    /// The capture.
    pub capture_n: i64,
    /// The posting that says so.
    pub n: i64,
    /// Which refund or dispute of the capture; 0 for a void.
    pub number: u8,
    /// What it is now; none for a void.
    pub state: Option<State>,
    /// Ledger units.
    pub amount: i64,
    /// Of what.
    pub asset: String,
    /// The void of the capture, where there is one.
    pub void_n: Option<i64>,
    /// Its money moved when it was bought.
    pub at_once: bool,
    /// It was so before.
    pub was: bool,
}

/// What orders resolve to: what became of each, in order.
pub type CorrectResult = Result<Vec<Result<Corrected, CorrectError>>, Unavailable>;

/// What orders have done, once it is on disk.
#[derive(Default)]
pub(super) struct Done {
    results: Vec<Result<Corrected, CorrectError>>,
    /// Credit that voids gave back.
    voided: Vec<(UseKey, i64)>,
}

/// An order that is followed.
struct Plan {
    capture: Captured,
    standing: Standing,
    decision: Decision,
    notes: Vec<(Vec<u8>, Hash)>,
}

impl Books {
    /// Carries orders out, all in one batch.
    pub(super) fn correct(&mut self, orders: &[Order], rules: Rules, times: Times) -> Result<Done, BatchError> {
        let faults = self.faults.clone();
        let unknown = |error: SqlError| BatchError::Disk(error.to_string());
        let transaction = self.connection.begin(Begin::Write).map_err(sort)?;
        let head = match self.lease {
            None => file::head(&transaction, self.slot),
            Some(lease) => lease.lock_head(&transaction),
        };
        let head = head.map_err(unknown)?;
        let Some(mut head) = head.filter(|head| (head.seq, head.hash) == (self.head.seq, self.head.hash)) else {
            return Err(BatchError::Disk("another process wrote to the ledger".to_owned()));
        };
        let told = told_since(&transaction, orders).map_err(sort)?;
        let mut plans = Vec::with_capacity(orders.len());
        for order in orders {
            plans.push(plan(&transaction, order, rules, times.now_ms, (&told, &self.open)).map_err(sort)?);
        }
        let n_before = EntryNumber { slot: self.slot, seq: head.seq }.n();
        let at_ms = head.at_ms.max(int(times.now_ms));
        let book_day = self.zone.book_day(at_ms.unsigned_abs(), head.open_day);
        let stamp = Stamp { at_ms, wall_ms: int(times.wall_ms), book_day };
        let mut post = Poster::new(&transaction, self.slot, &mut head);
        let mut done = Done::default();
        for plan in &plans {
            let result = match plan {
                Ok(plan) => carry_out(&mut post, plan, stamp, &mut done.voided)?,
                Err(error) => Err(error.clone()),
            };
            done.results.push(result);
        }
        // In the order in which all take their locks: claims, then what accounts use.
        if self.lease.is_some() {
            follow_claims(post.connection(), &plans).map_err(sort)?;
        }
        post.finish().map_err(sort)?;
        if EntryNumber::from_n(n_before).seq == head.seq {
            return Ok(done);
        }
        head.at_ms = at_ms;
        seal(&transaction, self.slot, &mut head, n_before, None).map_err(sort)?;
        drop(plans);
        self.attempted = Some(head);
        faults.before_commit().map_err(|e| unknown(e.into()))?;
        transaction.commit().map_err(unknown)?;
        faults.after_commit().map_err(|e| unknown(e.into()))?;
        self.attempted = None;
        self.head = head;
        Ok(done)
    }
}

/// On a server: what is fetched no longer, or again, is so for every gateway.
fn follow_claims(transaction: &Session, plans: &[Result<Plan, CorrectError>]) -> SqlResult<()> {
    for Plan { capture, .. } in plans.iter().flatten() {
        let payment = capture.key.payment();
        match turns::stand(transaction, capture)? {
            Stand::Over => postgres::claims::end_owed(transaction, &payment)?,
            Stand::Owed => postgres::claims::owe(transaction, &payment, capture.n)?,
            Stand::Unknown => {}
        }
    }
    Ok(())
}

/// The captures of these orders whose outcome was written after whoever ordered it had looked.
fn told_since(connection: &Session, orders: &[Order]) -> SqlResult<HashSet<i64>> {
    let mut told = HashSet::new();
    let seen = orders.iter().find_map(|order| match &order.what {
        What::Void { unproven_since } => unproven_since.as_ref(),
        _ => None,
    });
    let mut slots: Vec<i64> = orders.iter().map(|order| EntryNumber::from_n(order.n).slot).collect();
    slots.sort_unstable();
    slots.dedup();
    for (slot, seen) in slots.iter().filter_map(|slot| Some((slot, seen?.get(slot).copied().unwrap_or_default()))) {
        let mut statement = connection.prepare("SELECT outcomes FROM batches WHERE slot = ?1 AND batch_seq > ?2")?;
        let mut rows = statement.query(params![slot, seen])?;
        while let Some(row) = rows.next()? {
            let records = row.get::<Option<&[u8]>>(0)?.and_then(outcomes::decode);
            told.extend(records.unwrap_or_default().iter().map(|record| record.n));
        }
    }
    Ok(told)
}

fn plan(
    connection: &Session,
    order: &Order,
    rules: Rules,
    now_ms: u64,
    (told, open): (&HashSet<i64>, &HashSet<i64>),
) -> SqlResult<Result<Plan, CorrectError>> {
    let n = order.n;
    let capture = captured(connection, n)?;
    if let By::Agent(signed) = &order.by
        && !capture.as_ref().is_some_and(|capture| capture.is_of(&signed.account, &signed.agent))
    {
        // Nor is it told what else there is.
        return Ok(Err(CorrectError::NoEntry(n)));
    }
    let Some(capture) = capture else {
        let Some((kind, of)) = steps::other(connection, n)? else { return Ok(Err(CorrectError::NoEntry(n))) };
        let kind = Kind::from_number(kind).map_or("posting", Kind::name);
        return Ok(Err(CorrectError::NoCapture { n, kind, of }));
    };
    if let What::Void { unproven_since: Some(_) } = order.what {
        if open.contains(&n) || postgres::lease::may_tell(connection, &capture)? {
            return Ok(Err(CorrectError::OnItsWay(n)));
        }
        if told.contains(&n) {
            return Ok(Err(CorrectError::Proven(n)));
        }
    }
    let standing = steps::standing(connection, &capture)?;
    Ok(decide(&standing, order, rules, now_ms).map(|decision| {
        let steps = match &decision {
            Decision::Post(steps) => &steps[..],
            Decision::Was(_) => &[],
        };
        let notes = steps.iter().map(|step| note(order, step)).collect();
        Plan { capture, standing, decision, notes }
    }))
}

/// The evidence of a step, with its digest.
fn note(order: &Order, step: &Step) -> (Vec<u8>, Hash) {
    let reference = match &order.what {
        What::Refund { reference, .. } => Some(reference.trim().to_owned()),
        _ => None,
    };
    let (by, proof) = match &order.by {
        By::Operator => ("operator", None),
        By::Agent(signed) => ("agent", Some(signed.proof())),
    };
    let note = Note {
        state: step.state.map_or("voided", State::name).to_owned(),
        number: (step.number >> 8) as u8,
        reference,
        reason: order.reason.trim().to_owned(),
        by: by.to_owned(),
        proof,
    };
    let bytes = note.encode();
    let digest = chain::evidence_digest(&bytes);
    (bytes, digest)
}

fn carry_out<'e>(
    post: &mut Poster<'_, 'e>,
    plan: &'e Plan,
    stamp: Stamp,
    voided: &mut Vec<(UseKey, i64)>,
) -> Result<Result<Corrected, CorrectError>, BatchError> {
    let Plan { capture, standing, .. } = plan;
    let (capture_n, asset) = (capture.n, capture.asset.clone());
    let at_once = is_settled_at_once(&capture.scheme);
    let mut void_n = standing.void_n;
    let steps = match &plan.decision {
        Decision::Was(matter) => {
            let (n, number, amount) = (matter.ended_n.unwrap_or(matter.n), matter.number, matter.amount);
            let state = Some(matter.state);
            return Ok(Ok(Corrected { capture_n, n, number, state, amount, asset, void_n, at_once, was: true }));
        }
        Decision::Post(steps) => steps,
    };
    let mut first = None;
    for (step, (evidence, digest)) in steps.iter().zip(&plan.notes) {
        let mut entry = capture.entry(step.kind, post.next_n(), stamp);
        entry.key = PostingKey::new(step.kind, &capture.key.payment(), step.number);
        (entry.amount, entry.status) = (step.amount, step.state.map(State::code));
        (entry.evidence, entry.evidence_digest) = (Some(&evidence[..]), Some(&digest[..]));
        let n = entry.n;
        if post.insert(&entry)?.is_none() {
            // Ordered twice in one breath, or by another gateway at this moment.
            let by = post.find(&entry.key).map_err(sort)?.unwrap_or_default();
            return Ok(Err(match step.kind {
                Kind::Void => CorrectError::Voided { n: capture_n, by },
                Kind::Dispute => CorrectError::Disputed { n: capture_n, by },
                _ => CorrectError::Refused(format!(
                    "entry {by} was posted at the same moment; look at it, and order again"
                )),
            }));
        }
        if step.kind == Kind::Void {
            void_n = Some(n);
            if let Some(asset) = Asset::parse(&capture.asset) {
                voided.push(((capture.account.clone(), asset, capture.period), capture.amount));
            }
        }
        first = first.or(Some((n, step)));
    }
    // A decision has a step.
    let Some((n, step)) = first else { return Ok(Err(CorrectError::NoEntry(capture_n))) };
    let (number, state, amount) = ((step.number >> 8) as u8, step.state, step.amount);
    Ok(Ok(Corrected { capture_n, n, number, state, amount, asset, void_n, at_once, was: false }))
}

impl Writer {
    /// Memory follows what is on disk, then whoever ordered it is told.
    pub(super) fn corrected(
        &mut self,
        done: Result<Done, BatchError>,
        orders: &[Order],
        ticket: &Arc<Ticket<CorrectResult>>,
    ) -> Result<(), Broken> {
        let failed = |writer: &mut Writer, what: &str| {
            writer.unsure.extend(orders.iter().map(|order| order.n));
            let broken = writer.broken(what);
            ticket.fill(Err(Unavailable(broken.0.clone())));
            broken
        };
        match done {
            Ok(done) => {
                for (key, amount) in &done.voided {
                    self.shared.claims.credit.void(key, *amount);
                }
                let posted = done.results.iter().flatten().filter(|corrected| !corrected.was);
                for corrected in posted {
                    if let Err(error) = self.follow_books(corrected.capture_n) {
                        return Err(failed(self, &error.to_string()));
                    }
                }
                ticket.fill(Ok(done.results));
                Ok(())
            }
            Err(BatchError::Row(what)) => {
                ticket.fill(Ok(orders.iter().map(|_| Err(CorrectError::Refused(what.clone()))).collect()));
                Ok(())
            }
            // Certain not to have taken place, and nothing is wrong with the books.
            Err(BatchError::Conflict(what)) => {
                ticket.fill(Err(Unavailable(what.into())));
                Ok(())
            }
            Err(BatchError::Disk(what)) => {
                self.doubt = Some((*self.books.head(), self.books.attempted()));
                Err(failed(self, &what))
            }
        }
    }

    /// What is fetched no longer, or again, is so in memory too.
    pub(super) fn follow_books(&self, capture_n: i64) -> SqlResult<()> {
        let connection = &self.books.connection;
        let Some(capture) = captured(connection, capture_n)? else { return Ok(()) };
        let payment = capture.key.payment();
        match turns::stand(connection, &capture)? {
            Stand::Over => self.shared.claims.end_owed(&payment, capture_n),
            Stand::Owed => self.shared.claims.owe(&payment, capture_n),
            Stand::Unknown => {}
        }
        Ok(())
    }

    /// The same for all that was ordered when the file failed.
    pub(super) fn follow_unsure(&mut self) -> SqlResult<()> {
        while let Some(n) = self.unsure.last() {
            self.follow_books(*n)?;
            self.unsure.pop();
        }
        Ok(())
    }
}
