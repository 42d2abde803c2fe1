//! Random lives of a few payments against a model of what must be true after each step.

use std::collections::BTreeMap;

use proptest::prelude::*;
use tollgate::ledger::{
    ledger_store::LedgerStore,
    store::{Claim, ClaimError, ClaimRequest, Delivery, Look, Released, Store},
};

use crate::support::*;

const LIMIT: i64 = 100;

#[derive(Clone, Debug)]
enum Step {
    Claim(u8, i64),
    Release(u8),
    Capture(u8, i64),
    Outcome(u8, bool),
    Restart,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        8 => (0_u8..6, 0_i64..40).prop_map(|(key, amount)| Step::Claim(key, amount)),
        3 => (0_u8..6).prop_map(Step::Release),
        4 => (0_u8..6, 0_i64..40).prop_map(|(key, amount)| Step::Capture(key, amount)),
        3 => (0_u8..6, any::<bool>()).prop_map(|(key, void)| Step::Outcome(key, void)),
        1 => Just(Step::Restart),
    ];
    proptest::collection::vec(step, 1..60)
}

/// What the model knows of one payment.
#[derive(Debug)]
enum Payment {
    Free { releases: u8 },
    Live { claim: Claim, releases: u8 },
    Captured { n: i64, amount: i64, voided: bool, told: bool, this_process: bool },
}

#[derive(Default)]
struct Model(BTreeMap<u8, Payment>);

impl Model {
    fn used(&self) -> i64 {
        let used = |payment: &Payment| match payment {
            Payment::Live { claim, .. } => claim.request.amount.get(),
            Payment::Captured { amount, voided: false, .. } => *amount,
            _ => 0,
        };
        self.0.values().map(used).sum()
    }

    fn step(&mut self, ledger: &mut Ledger, step: Step) {
        match step {
            Step::Claim(key, amount) => {
                let request = ClaimRequest { limit: units(LIMIT), ..request(&key.to_string(), amount) };
                let result = wait(ledger.store().claim(request));
                let (before, used) = (self.0.remove(&key).unwrap_or(Payment::Free { releases: 0 }), self.used());
                let after = match (before, result) {
                    (Payment::Free { releases: 3 }, Err(ClaimError::Burnt)) => Payment::Free { releases: 3 },
                    (Payment::Free { releases }, Err(ClaimError::CreditExhausted { used: said, .. })) => {
                        assert!(releases < 3 && used + amount > LIMIT && said.get() == used);
                        Payment::Free { releases }
                    }
                    (Payment::Free { releases }, Ok(claim)) => {
                        assert!(releases < 3 && used + amount <= LIMIT);
                        Payment::Live { claim, releases }
                    }
                    (live @ Payment::Live { .. }, Err(ClaimError::InFlight)) => live,
                    (Payment::Captured { n, amount, voided, told, this_process }, Err(error)) => {
                        // Nobody knows whether its answer left: it may be fetched once more.
                        let unproven = !this_process && !told && !voided;
                        let expected = if unproven { ClaimError::Owed } else { ClaimError::AlreadyCaptured(Some(n)) };
                        assert_eq!(error, expected);
                        Payment::Captured { n, amount, voided, told, this_process }
                    }
                    (before, result) => panic!("{before:?} gave {result:?}"),
                };
                self.0.insert(key, after);
            }
            Step::Release(key) => match self.0.remove(&key) {
                Some(Payment::Live { claim, releases }) => {
                    ledger.store().release(claim, Released::ClientLeft);
                    self.0.insert(key, Payment::Free { releases: releases + 1 });
                }
                Some(other) => _ = self.0.insert(key, other),
                None => {}
            },
            Step::Capture(key, amount) => match self.0.remove(&key) {
                Some(Payment::Live { claim, .. }) => {
                    let amount = amount.min(claim.request.amount.get());
                    let receipt = wait(ledger.store().capture(claim, posting(units(amount)))).unwrap();
                    let look = wait(ledger.store().look(crate::support::key(&key.to_string())));
                    assert_eq!(look, Ok(Look::Captured(Some(receipt.n))));
                    let captured =
                        Payment::Captured { n: receipt.n, amount, voided: false, told: false, this_process: true };
                    self.0.insert(key, captured);
                }
                Some(other) => _ = self.0.insert(key, other),
                None => {}
            },
            Step::Outcome(key, void) => {
                if let Some(Payment::Captured { n, voided, told, this_process, .. }) = self.0.get_mut(&key) {
                    ledger.outcome(*n, Delivery::Complete, void);
                    *voided |= void;
                    *told |= *this_process;
                    // The void's credit comes back with the batch that carries it.
                    if void {
                        self.restart(ledger);
                    }
                }
            }
            Step::Restart => self.restart(ledger),
        }
        assert_eq!(ledger.used(&request("", 0)), self.used());
        assert!((0..=LIMIT).contains(&self.used()));
    }

    /// Claims and release counts are forgotten, captures are not.
    fn restart(&mut self, ledger: &mut Ledger) {
        ledger.store.take().unwrap().close().unwrap();
        let options = tollgate::ledger::ledger_store::LedgerOptions { sync: false, ..ledger.options() };
        ledger.store = Some(LedgerStore::open(options).unwrap());
        self.0.retain(|_, payment| matches!(payment, Payment::Captured { .. }));
        for payment in self.0.values_mut() {
            if let Payment::Captured { this_process, .. } = payment {
                *this_process = false;
            }
        }
    }
}

#[test]
fn money_and_keys_are_conserved() {
    random_cases(5, steps(), |steps| {
        let mut ledger = Ledger::with(std::sync::Arc::new(tollgate::ledger::faults::NoFaults), |o| o.sync = false);
        let mut model = Model::default();
        for step in steps {
            model.step(&mut ledger, step);
        }
        ledger.close();
        // Dense numbers, recomputed heads and sums, at most one void and one outcome a capture.
        let report = ledger.audit();
        prop_assert_eq!(report.finding, None);
        let captured = |want: fn(bool, bool) -> bool| {
            let hits = |p: &&Payment| matches!(p, Payment::Captured { voided, told, .. } if want(*voided, *told));
            model.0.values().filter(hits).count() as u64
        };
        prop_assert_eq!(report.captures, captured(|_, _| true));
        prop_assert_eq!(report.voids, captured(|voided, _| voided));
        prop_assert_eq!(report.unproven, captured(|voided, told| !told && !voided));
        Ok(())
    });
}
