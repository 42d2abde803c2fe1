//! A paid request as a gateway takes it from claim to answer: the order of calls, and what is decided between them, are
//! those of `proxy/exchange`. Each step of the simulation takes it to the next call; what is asked of a store is answered
//! when the store gets round to it.

use tollgate::{
    ledger::store::{
        Bought, CaptureError, Claim, ClaimError, Look, OwedTurn, Receipt, Released, Settling, StoreFuture, Unavailable,
    },
    payment::key::PaymentKey,
};

use tollgate::ledger::open_accounts::TOTAL;

use super::{
    answer::Answer,
    bugs::Bug,
    chain::Said,
    equations::Broken,
    payments::{Means, Payment},
    world::{Admission, End, World},
};

pub struct Request {
    pub payment: usize,
    pub key: PaymentKey,
    pub replica: usize,
    /// The claim that it was granted.
    admission: Option<usize>,
    /// Its client is gone.
    left: bool,
    /// Its client does not read.
    pub stalled: bool,
    pub stage: Stage,
}

pub enum Stage {
    /// The bug: asked before the claim.
    LookingFirst(StoreFuture<Result<Look, Unavailable>>),
    Looked,
    Claiming(StoreFuture<Result<Claim, ClaimError>>),
    Claimed(Claim),
    Looking(Claim, StoreFuture<Result<Look, Unavailable>>),
    /// Nothing stands in the way.
    Ready(Claim),
    AtOrigin(Claim),
    Capturing(StoreFuture<Result<Receipt, CaptureError>>),
    Intending(StoreFuture<Result<Settling, CaptureError>>),
    Adopting(StoreFuture<Option<Settling>>),
    Settling {
        settling: Settling,
        tries: u8,
        doubtful: bool,
        owed: bool,
    },
    Posting {
        posted: StoreFuture<Result<Receipt, CaptureError>>,
        owed: bool,
    },
    Failing(StoreFuture<Result<Receipt, CaptureError>>),
    /// Settled first; the origin is asked now.
    Serving(Receipt),
    Answering(Answer),
    Finding(StoreFuture<Result<Option<Bought>, Unavailable>>),
    Owed,
    Taking(StoreFuture<Option<OwedTurn>>),
    Turn(OwedTurn),
    Redelivering(StoreFuture<Result<Receipt, CaptureError>>),
}

impl Request {
    /// Its claim, if the ledger was asked to write something of it and has not answered.
    pub fn may_be_written(&self) -> Option<usize> {
        self.admission.filter(|_| matches!(self.stage, Stage::Capturing(_) | Stage::Intending(_)))
    }
}

impl World {
    /// A request with a payment arrives; none where it is refused at once.
    pub fn arrive(&mut self, payment: &Payment, key: PaymentKey, replica: usize) -> Option<Request> {
        let store = self.stores.store(replica)?;
        // Too late to be settled; but what was begun in time may come back.
        if payment.is_exact() && self.now_ms + 10_000 > payment.ends_ms() {
            let known = self.poll(replica, &mut store.knows(key));
            if !matches!(known, Some(Ok(true))) {
                return None;
            }
        }
        let stage = if self.bug == Some(Bug::LooksThenClaims) {
            Stage::LookingFirst(store.look(key))
        } else {
            Stage::Claiming(store.claim(payment.request(key, self.stores.now_ms(replica))))
        };
        Some(Request { payment: payment.number, key, replica, admission: None, left: false, stalled: false, stage })
    }

    /// What a request does when the store has answered it.
    pub fn hear(&mut self, mut request: Request) -> Option<Request> {
        let replica = request.replica;
        // A process that stands still hears nothing.
        if self.stores.is_frozen(replica) {
            return Some(request);
        }
        request.stage = match std::mem::replace(&mut request.stage, Stage::Looked) {
            Stage::LookingFirst(mut look) => match self.poll(replica, &mut look) {
                None => Stage::LookingFirst(look),
                Some(Ok(Look::Unknown)) => Stage::Looked,
                Some(_) => return None,
            },
            Stage::Claiming(mut claiming) => match self.poll(replica, &mut claiming) {
                None => Stage::Claiming(claiming),
                Some(Ok(claim)) => {
                    request.admission = Some(self.admit(&request, &claim));
                    Stage::Claimed(claim)
                }
                Some(Err(error)) => return self.come_back(request, &error),
            },
            Stage::Looking(claim, mut look) => match self.poll(replica, &mut look) {
                None => Stage::Looking(claim, look),
                Some(Ok(Look::Unknown)) => {
                    self.of(&request).looked = true;
                    Stage::Ready(claim)
                }
                Some(Ok(Look::Captured(_))) => return self.release(&request, claim, Released::ClientLeft),
                Some(Err(_)) => return self.release(&request, claim, Released::OriginFailed),
            },
            Stage::Capturing(mut captured) => match self.poll(replica, &mut captured) {
                None => Stage::Capturing(captured),
                Some(Ok(receipt)) => {
                    self.of(&request).end = End::Captured(receipt.n);
                    return self.answer(request, receipt);
                }
                Some(Err(_)) => return self.end(&request, End::Withheld),
            },
            Stage::Intending(mut intended) => match self.poll(replica, &mut intended) {
                None => Stage::Intending(intended),
                Some(Ok(settling)) => {
                    self.of(&request).end = End::Intended;
                    Stage::Settling { settling, tries: 0, doubtful: false, owed: false }
                }
                Some(Err(_)) => return self.end(&request, End::Withheld),
            },
            Stage::Adopting(mut adopted) => match self.poll(replica, &mut adopted) {
                None => Stage::Adopting(adopted),
                Some(None) => return None,
                Some(Some(settling)) => Stage::Settling { settling, tries: 0, doubtful: true, owed: true },
            },
            Stage::Posting { mut posted, owed } => match self.poll(replica, &mut posted) {
                None => Stage::Posting { posted, owed },
                Some(Ok(_)) if owed => return None,
                Some(Ok(receipt)) if self.payments[request.payment].means == (Means::Transfer { first: true }) => {
                    self.seen.entry(request.payment).or_default().calls += 1;
                    Stage::Serving(receipt)
                }
                Some(Ok(receipt)) => return self.answer(request, receipt),
                Some(Err(_)) => return None,
            },
            Stage::Failing(mut posted) => match self.poll(replica, &mut posted) {
                None => Stage::Failing(posted),
                Some(_) => return None,
            },
            Stage::Finding(mut found) => match self.poll(replica, &mut found) {
                None => Stage::Finding(found),
                Some(Ok(Some(_))) => Stage::Owed,
                Some(_) => return None,
            },
            Stage::Taking(mut taken) => match self.poll(replica, &mut taken) {
                None => Stage::Taking(taken),
                Some(None) => return None,
                Some(Some(turn)) => {
                    self.seen.entry(request.payment).or_default().turns += 1;
                    Stage::Turn(turn)
                }
            },
            Stage::Redelivering(mut posted) => match self.poll(replica, &mut posted) {
                None => Stage::Redelivering(posted),
                Some(Ok(_)) if !request.left => {
                    self.seen.entry(request.payment).or_default().answers += 1;
                    return None;
                }
                Some(_) => return None,
            },
            stage => stage,
        };
        Some(request)
    }

    /// The next thing that a request does by itself, or that is done to it from outside.
    pub fn go(&mut self, mut request: Request, luck: u8) -> Option<Request> {
        let store = self.stores.store(request.replica)?;
        let payment = self.payments[request.payment].clone();
        let waits_for_nobody = !matches!(
            request.stage,
            Stage::Capturing(_)
                | Stage::Intending(_)
                | Stage::Settling { .. }
                | Stage::Posting { .. }
                | Stage::Failing(_)
                | Stage::Redelivering(_)
                | Stage::Claiming(_)
                | Stage::Adopting(_)
                | Stage::Taking(_)
        );
        if request.left && waits_for_nobody {
            return self.leave(request);
        }
        request.stage = match std::mem::replace(&mut request.stage, Stage::Looked) {
            Stage::Looked => {
                Stage::Claiming(store.claim(payment.request(request.key, self.stores.now_ms(request.replica))))
            }
            Stage::Claimed(claim) if self.bug == Some(Bug::LooksThenClaims) => {
                self.of(&request).looked = true;
                Stage::Ready(claim)
            }
            Stage::Claimed(claim) => {
                let look = store.look(request.key);
                Stage::Looking(claim, look)
            }
            Stage::Ready(claim) if payment.is_exact() && luck < 8 => {
                // The facilitator does not like it.
                return self.release(&request, claim, Released::NotAsked);
            }
            Stage::Ready(claim) if payment.means == (Means::Transfer { first: true }) => {
                Stage::Intending(store.intend(claim, payment.intent()))
            }
            Stage::Ready(claim) => {
                self.seen.entry(request.payment).or_default().calls += 1;
                Stage::AtOrigin(claim)
            }
            Stage::AtOrigin(claim) => match luck {
                0..20 => return self.release(&request, claim, Released::OriginFailed),
                20..40 => Stage::AtOrigin(claim),
                _ if payment.is_exact() => Stage::Intending(store.intend(claim, payment.intent())),
                // Some are charged less than they claimed.
                _ => {
                    let amount = claim.request.amount.get() - i64::from(luck.is_multiple_of(3));
                    Stage::Capturing(store.capture(claim, payment.posting(amount)))
                }
            },
            Stage::Settling { settling, tries, doubtful, owed } => {
                return self.settle(request, (settling, tries, doubtful, owed), luck);
            }
            Stage::Serving(receipt) => match luck {
                0..20 => {
                    store.owe(request.key, receipt);
                    return None;
                }
                20..40 => Stage::Serving(receipt),
                _ => return self.answer(request, receipt),
            },
            Stage::Answering(answer) if !answer.begun && luck < 12 => {
                // Its connection breaks before anything is written.
                answer.lost();
                return None;
            }
            Stage::Answering(mut answer) if !answer.begun => {
                self.seen.entry(request.payment).or_default().answers += 1;
                answer.begin();
                self.stall(&answer, request.stalled);
                Stage::Answering(answer)
            }
            Stage::Answering(answer) => {
                match luck {
                    0..15 => answer.lost(),
                    15..40 => {
                        // Such a client could read nearly everything, and stop.
                        if request.stalled {
                            self.stalled.insert(answer.receipt.n);
                        }
                        answer.cut();
                    }
                    // It is given up.
                    _ if request.stalled => answer.lost(),
                    _ => answer.complete(),
                }
                return None;
            }
            Stage::Owed => Stage::Taking(store.take_owed(request.key)),
            Stage::Turn(turn) => match luck {
                0..30 => {
                    store.give_back(turn);
                    return None;
                }
                30..40 => Stage::Turn(turn),
                _ => Stage::Redelivering(store.redelivered(turn)),
            },
            // It waits for the store.
            stage => stage,
        };
        Some(request)
    }

    /// The facilitator is asked to settle: once more if it gives no verdict. After that only a success is one, for a refusal
    /// may mean that the first try paid.
    fn settle(
        &mut self,
        mut request: Request,
        (settling, tries, doubtful, owed): (Settling, u8, bool, bool),
        luck: u8,
    ) -> Option<Request> {
        let store = self.stores.store(request.replica)?;
        let payment = self.payments[request.payment].clone();
        let before = (self.chain.moved(payment.number), self.chain.is_pending(payment.number));
        let said = self.chain.settle(payment.number, payment.amount, self.now_ms > payment.ends_ms(), luck);
        if before != (self.chain.moved(payment.number), self.chain.is_pending(payment.number)) {
            self.must_be_intended(&request);
        }
        let proof = !doubtful || self.bug == Some(Bug::RefusalIsProof);
        let owed = owed || request.left;
        request.stage = match said {
            Said::Success => {
                Stage::Posting { posted: store.settled(settling, payment.posting(payment.amount), owed), owed }
            }
            Said::Refused(_) if said.is_definite() && proof => {
                Stage::Failing(store.failed(settling, payment.posting(payment.amount)))
            }
            _ if tries > 0 => {
                store.unknown(settling);
                return None;
            }
            _ => Stage::Settling { settling, tries: tries + 1, doubtful: doubtful || said != Said::NotSent, owed },
        };
        Some(request)
    }

    /// Money moves only after its intent is durable.
    fn must_be_intended(&mut self, request: &Request) {
        let intent = tollgate::ledger::entry::Kind::Intent;
        if !self.books.entries.iter().any(|entry| entry.kind == intent && entry.key == request.key) {
            let what = format!("money of {} moves without an intent", request.key);
            self.broken.get_or_insert(Broken { equation: 4, what });
        }
    }

    /// What the socket notices of a client that does not read.
    fn stall(&self, answer: &Answer, stalled: bool) {
        if answer.begun && self.bug != Some(Bug::VoidsOnStall) {
            answer.blocks(stalled);
        }
    }

    /// The client stops reading, or goes on.
    pub fn turn_away(&mut self, mut request: Request) -> Option<Request> {
        request.stalled = !request.stalled;
        if let Stage::Answering(answer) = &request.stage {
            self.stall(answer, request.stalled);
        }
        Some(request)
    }

    /// The client leaves. Until something is queued that cannot be taken back, the payment is good again.
    pub fn leave(&mut self, mut request: Request) -> Option<Request> {
        let store = self.stores.store(request.replica)?;
        request.left = true;
        request.stage = match std::mem::replace(&mut request.stage, Stage::Looked) {
            Stage::LookingFirst(_) | Stage::Looked | Stage::Finding(_) | Stage::Owed => return None,
            Stage::Claimed(claim) | Stage::Looking(claim, _) | Stage::Ready(claim) => {
                let exact = self.payments[request.payment].is_exact();
                let why = if exact { Released::NotAsked } else { Released::ClientLeft };
                return self.release(&request, claim, why);
            }
            Stage::AtOrigin(claim) => return self.release(&request, claim, Released::ClientLeft),
            Stage::Settling { settling, tries, doubtful, owed } => {
                store.in_doubt(&settling);
                Stage::Settling { settling, tries, doubtful, owed }
            }
            Stage::Serving(receipt) => {
                store.owe(request.key, receipt);
                return None;
            }
            Stage::Answering(answer) => {
                answer.lost();
                return None;
            }
            Stage::Turn(turn) => {
                store.give_back(turn);
                return None;
            }
            stage => stage,
        };
        Some(request)
    }

    /// Its task panics: guards give back what they hold, futures are dropped.
    pub fn panic(&mut self, mut request: Request) -> Option<Request> {
        let store = self.stores.store(request.replica)?;
        match std::mem::replace(&mut request.stage, Stage::Looked) {
            Stage::Settling { settling, .. } => store.unknown(settling),
            Stage::Capturing(_) => {
                self.of(&request).end = End::Dropped;
                self.unclear.insert(request.replica);
            }
            // Whatever became of it is left to be resolved.
            Stage::Intending(_) => {
                self.of(&request).end = End::Died;
                self.unclear.insert(request.replica);
            }
            Stage::Posting { .. } | Stage::Failing(_) | Stage::Redelivering(_) => {}
            stage => {
                let whole = Request { stage, ..request };
                let asks = matches!(whole.stage, Stage::Claiming(_) | Stage::Adopting(_) | Stage::Taking(_));
                return if asks { Some(whole) } else { self.leave(whole) };
            }
        }
        None
    }

    fn admit(&mut self, request: &Request, claim: &Claim) -> usize {
        let asked = &claim.request;
        self.asked.insert((asked.account.to_string(), asked.asset.to_string(), asked.period));
        if asked.within.is_some() {
            self.asked.insert((TOTAL.to_owned(), asked.asset.to_string(), asked.period));
        }
        self.admissions.push(Admission {
            payment: request.payment,
            key: request.key,
            account: asked.account.to_string(),
            asset: asked.asset.to_string(),
            period: asked.period,
            amount: asked.amount.get(),
            limit: asked.limit.get(),
            replica: request.replica,
            at_ms: self.now_ms,
            end: End::Live,
            suspect: false,
            looked: false,
        });
        self.admitted.push(self.admissions.len() - 1);
        self.admissions.len() - 1
    }

    fn of(&mut self, request: &Request) -> &mut Admission {
        let number = request.admission.expect("only a request with a claim ends one");
        &mut self.admissions[number]
    }

    fn end(&mut self, request: &Request, end: End) -> Option<Request> {
        self.of(request).end = end;
        None
    }

    fn release(&mut self, request: &Request, claim: Claim, why: Released) -> Option<Request> {
        self.stores.store(request.replica)?.release(claim, why);
        self.end(request, End::Released)
    }

    /// The answer is handed to whoever still waits for it.
    fn answer(&mut self, mut request: Request, receipt: Receipt) -> Option<Request> {
        let answer = Answer::new(self.stores.store(request.replica)?, receipt);
        if request.left {
            answer.not_sent();
            return None;
        }
        request.stage = Stage::Answering(answer);
        Some(request)
    }

    /// The same payment again, after it was claimed, settled or lost before.
    fn come_back(&mut self, mut request: Request, error: &ClaimError) -> Option<Request> {
        let store = self.stores.store(request.replica)?;
        if !self.payments[request.payment].is_exact() {
            return None;
        }
        request.stage = match error {
            ClaimError::Unresolved => Stage::Adopting(store.adopt(request.key)),
            ClaimError::Owed | ClaimError::AlreadyCaptured(_) => Stage::Finding(store.find(request.key)),
            _ => return None,
        };
        Some(request)
    }
}
