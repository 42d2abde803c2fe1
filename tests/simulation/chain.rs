//! A chain, and the facilitator before it: what moves, and what is said about it, which are two things.

use std::collections::BTreeMap;

use tollgate::wire::x402::facilitator::{Settled, is_definite};

/// What a call of `/settle` brings back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said {
    Success,
    /// The reason.
    Refused(&'static str),
    /// No answer, or one without a verdict.
    Nothing,
    /// The call did not go out.
    NotSent,
}

impl Said {
    /// A refusal after which certainly nothing moves by this call.
    pub fn is_definite(self) -> bool {
        let settled = Settled {
            success: false,
            reason: None,
            transaction: String::new(),
            network: None,
            payer: None,
            amount: None,
        };
        matches!(self, Said::Refused(reason) if is_definite(reason, &settled))
    }
}

/// An authorisation moves money at most once, before it ends.
#[derive(Debug, Default)]
pub struct Chain {
    /// By payment.
    moved: BTreeMap<usize, i64>,
    /// Sent and not taken in yet.
    pending: BTreeMap<usize, i64>,
}

impl Chain {
    pub fn settle(&mut self, payment: usize, amount: i64, expired: bool, luck: u8) -> Said {
        if self.moved.contains_key(&payment) {
            // The payer has less by now, so a check that comes before the nonce fails first.
            return match luck {
                0..30 => Said::Refused("insufficient_funds"),
                30..50 => Said::Refused("authorization_used"),
                50..65 => Said::Nothing,
                _ => Said::Success,
            };
        }
        if self.pending.contains_key(&payment) {
            return if luck < 50 { Said::Nothing } else { Said::Refused("settlement_pending") };
        }
        if expired {
            return Said::Refused("authorization_valid_before");
        }
        match luck {
            0..10 => Said::NotSent,
            10..18 => Said::Nothing,
            18..26 => Said::Refused("insufficient_funds"),
            26..36 => {
                self.pending.insert(payment, amount);
                Said::Nothing
            }
            _ => {
                self.moved.insert(payment, amount);
                match luck {
                    36..50 => Said::Nothing,
                    50..55 => Said::Refused("unexpected_settle_error"),
                    _ => Said::Success,
                }
            }
        }
    }

    /// Takes in what was sent.
    pub fn mine(&mut self) {
        self.moved.append(&mut self.pending);
    }

    pub fn moved(&self, payment: usize) -> Option<i64> {
        self.moved.get(&payment).copied()
    }

    /// Whether it may still move.
    pub fn is_pending(&self, payment: usize) -> bool {
        self.pending.contains_key(&payment)
    }
}
