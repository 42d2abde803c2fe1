//! The port over memory, the writer, and, where the ledger is on a server, its desk.

use std::{future, sync::Arc, time::Instant};

use super::{
    ledger_store::LedgerStore,
    limits,
    mailbox::{Answer, Filled, Lent, Ticket},
    postgres::desk::Word,
    queue::{Act, Ask, Job, Redelivery, TurnEnd},
    store::{
        Bought, CaptureError, Claim, ClaimError, ClaimRequest, CorrectResult, Delivery, Health, Held, HeldResult,
        Intent, Look, Observation, Order, Outcome, Outcomes as _, OwedTurn, Posting, Purchase, Receipt, Released,
        Settling, Store, StoreFuture, Terms, Unavailable, Unresolved,
    },
};
use crate::payment::key::PaymentKey;
use crate::wire::amount::Asset;

impl Store for LedgerStore {
    fn claim(&self, request: ClaimRequest) -> StoreFuture<Result<Claim, ClaimError>> {
        let now_ms = self.shared.clock.now_ms();
        let claim = self.open_now().map_err(ClaimError::from).and_then(|()| self.shared.claims.claim(request, now_ms));
        match (claim, &self.shared.desk) {
            (Ok(claim), Some(desk)) => {
                let ticket = Ticket::new();
                desk.say(Word::Claim(Box::new(claim.request.clone()), ticket.clone(), Instant::now()));
                Box::pin(self.shared.granted(Filled(ticket), claim))
            }
            (claim, _) => Box::pin(future::ready(claim)),
        }
    }

    fn look(&self, key: PaymentKey) -> StoreFuture<Result<Look, Unavailable>> {
        // Memory holds every capture above the floor, and below it nothing is claimed.
        Box::pin(future::ready(Ok(self.shared.claims.look(&key))))
    }

    fn release(&self, claim: Claim, why: Released) {
        self.shared.release(&claim, why);
    }

    fn capture(&self, claim: Claim, posting: Posting) -> StoreFuture<Result<Receipt, CaptureError>> {
        if !self.shared.claims.is_live(&claim) {
            return Box::pin(future::ready(Err(CaptureError::Lost)));
        }
        if let Err(what) = limits::check(&claim, &posting) {
            // Counted in every way: this request has cost an origin call, and would cost one each time.
            self.shared.release(&claim, Released::ClientLeft);
            return Box::pin(future::ready(Err(Unavailable(what.into()).into())));
        }
        let (answer, filled) = Answer::new();
        match self.shared.queue.push_capture(Job { claim, posting, act: Act::Capture, answer }) {
            Ok(()) => Box::pin(self.shared.answered(filled)),
            Err((job, unavailable)) => {
                self.shared.give_back(&job.claim);
                Box::pin(future::ready(Err(unavailable.into())))
            }
        }
    }

    fn intend(&self, claim: Claim, intent: Intent) -> StoreFuture<Result<Settling, CaptureError>> {
        if !self.shared.claims.is_live(&claim) {
            return Box::pin(future::ready(Err(CaptureError::Lost)));
        }
        if let Err(what) = limits::check(&claim, &intent.posting) {
            self.shared.release(&claim, Released::ClientLeft);
            return Box::pin(future::ready(Err(Unavailable(what.into()).into())));
        }
        let (answer, filled) = Answer::new();
        let intent = Arc::new(intent);
        let settling = Settling { claim: claim.twin(), intent: intent.clone() };
        let posting = intent.posting.clone();
        match self.shared.queue.push_capture(Job { claim, posting, act: Act::Intend(intent), answer }) {
            // Whoever drops this future never asks a facilitator: the payment is unresolved only for the look of it.
            Ok(()) => Box::pin(self.shared.intended(filled, settling)),
            Err((job, unavailable)) => {
                self.shared.give_back(&job.claim);
                Box::pin(future::ready(Err(unavailable.into())))
            }
        }
    }

    fn settled(&self, settling: Settling, posting: Posting, owed: bool) -> StoreFuture<Result<Receipt, CaptureError>> {
        let Settling { claim, intent } = settling;
        self.end(claim, posting, Act::Settle { intent, owed })
    }

    fn failed(&self, settling: Settling, posting: Posting) -> StoreFuture<Result<Receipt, CaptureError>> {
        let Settling { claim, intent } = settling;
        self.end(claim, posting, Act::Fail(intent))
    }

    fn in_doubt(&self, settling: &Settling) {
        let (request, intent) = (settling.claim.request.clone(), settling.intent.clone());
        if let Some(desk) = &self.shared.desk {
            desk.say(Word::Doubt { key: request.key, unknown: false });
        }
        self.shared.claims.unresolved.insert(Unresolved { request, intent });
    }

    fn replay_floor_ms(&self) -> u64 {
        self.shared.claims.floor_ms()
    }

    fn knows(&self, key: PaymentKey) -> StoreFuture<Result<bool, Unavailable>> {
        match &self.shared.desk {
            Some(desk) if !self.shared.claims.knows(&key) => Box::pin(desk.ask(|told| Word::Knows(key, told))),
            _ => Box::pin(future::ready(Ok(self.shared.claims.knows(&key)))),
        }
    }

    fn unknown(&self, settling: Settling) {
        self.shared.unresolve(settling);
    }

    fn unresolved(&self) -> StoreFuture<Result<Vec<Unresolved>, Unavailable>> {
        match &self.shared.desk {
            Some(desk) => Box::pin(desk.ask(Word::Unresolved)),
            None => Box::pin(future::ready(Ok(self.shared.claims.unresolved.all()))),
        }
    }

    fn adopt(&self, key: PaymentKey) -> StoreFuture<Option<Settling>> {
        let Some(desk) = &self.shared.desk else { return Box::pin(future::ready(self.shared.claims.adopt(&key))) };
        let (adopted, shared, heir) =
            (desk.ask(|told| Word::Adopt(key, told)), self.shared.clone(), self.shared.clone());
        let adopted = Lent::new(adopted, move |adopted: Result<Option<_>, _>| {
            if let (Ok(Some(_)), Some(desk)) = (adopted, &heir.desk) {
                desk.say(Word::Doubt { key, unknown: true });
            }
        });
        Box::pin(async move { Some(shared.claims.take_over(adopted.await.ok()??)) })
    }

    fn find(&self, key: PaymentKey) -> StoreFuture<Result<Option<Bought>, Unavailable>> {
        let ticket = Ticket::new();
        self.shared.queue.ask(Ask::Find(key, ticket.clone()));
        Box::pin(Filled(ticket))
    }

    fn held(&self, held: Held) -> StoreFuture<HeldResult> {
        let shared = self.shared.clone();
        let asked = self.lookups.read(move |reader| reader.held(&held));
        Box::pin(async move {
            let passes = asked.await?;
            for pass in &passes {
                let key = (pass.account.clone(), Asset::Requests, pass.n);
                shared.claims.credit.know(&key, pass.used, pass.ends_ms);
            }
            Ok(passes)
        })
    }

    fn has_used(&self, account: Arc<str>) -> StoreFuture<Result<bool, Unavailable>> {
        Box::pin(self.lookups.read(move |reader| reader.has_used(&account)))
    }

    fn owe(&self, key: PaymentKey, receipt: Receipt) {
        self.shared.claims.owe(&key, receipt.n);
        if let Some(desk) = &self.shared.desk {
            desk.say(Word::Owe(key, receipt.n));
        }
        self.outcome(Outcome { n: receipt.n, delivery: Delivery::NotSent, void: true, ms: 0, bytes: 0 });
    }

    fn is_throttled(&self, payer: &str) -> bool {
        self.shared.claims.is_throttled(payer, self.shared.clock.now_ms())
    }

    fn is_in_doubt(&self, purchase: Purchase) -> StoreFuture<Result<bool, Unavailable>> {
        match &self.shared.desk {
            Some(desk) => Box::pin(desk.ask(|told| Word::IsInDoubt(purchase, told))),
            None => Box::pin(future::ready(Ok(self.shared.claims.unresolved.has(&purchase)))),
        }
    }

    fn give_back(&self, turn: OwedTurn) {
        let OwedTurn { key, n } = turn;
        match &self.shared.desk {
            Some(_) => self.shared.owe_again(&key, n),
            None if self.shared.claims.give_back_owed(&key, n) => self.shared.lapse(key, n),
            None => {}
        }
    }

    fn take_owed(&self, key: PaymentKey) -> StoreFuture<Option<OwedTurn>> {
        let turn = move |n| OwedTurn { key, n };
        match &self.shared.desk {
            Some(desk) => {
                let shared = self.shared.clone();
                let taken = Lent::new(desk.ask(|told| Word::TakeOwed(key, told)), move |taken| {
                    if let Ok(Some(n)) = taken {
                        shared.owe_again(&key, n);
                    }
                });
                Box::pin(async move { taken.await.ok().flatten().map(turn) })
            }
            None => Box::pin(future::ready(self.shared.claims.take_owed(&key).map(turn))),
        }
    }

    fn redelivered(&self, turn: OwedTurn) -> StoreFuture<Result<Receipt, CaptureError>> {
        let OwedTurn { key, n } = turn;
        let (answer, filled) = Answer::new();
        match self.shared.queue.push_redelivery(Redelivery { key, n, end: TurnEnd::Served, answer }) {
            Ok(()) => Box::pin(filled),
            Err(unavailable) => {
                self.shared.owe_again(&key, n);
                Box::pin(future::ready(Err(unavailable.into())))
            }
        }
    }

    fn correct(&self, orders: Vec<Order>) -> StoreFuture<CorrectResult> {
        if let Err(unavailable) = self.open_now() {
            return Box::pin(future::ready(Err(unavailable)));
        }
        let ticket = Ticket::new();
        self.shared.queue.ask(Ask::Correct(orders, ticket.clone()));
        Box::pin(Filled(ticket))
    }

    fn observed(&self, observation: Observation) {
        self.shared.queue.push_observation(observation);
    }

    fn remember_terms(&self, terms: Vec<([u8; 32], Vec<u8>)>) -> StoreFuture<Result<(), Unavailable>> {
        let ticket = Ticket::new();
        self.shared.queue.ask(Ask::Remember(terms, ticket.clone()));
        Box::pin(Filled(ticket))
    }

    fn recent_terms(&self, since_ms: u64) -> StoreFuture<Result<Terms, Unavailable>> {
        let ticket = Ticket::new();
        self.shared.queue.ask(Ask::Recent(since_ms, ticket.clone()));
        Box::pin(Filled(ticket))
    }

    fn health(&self) -> Health {
        self.shared.health()
    }

    fn is_open(&self) -> bool {
        self.shared.is_open() && !self.shared.claims.is_full()
    }
}
