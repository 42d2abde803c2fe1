//! What is settled of a token payment: the price, or with `upto` what the origin takes of it.

use http::Response;
use serde_json::{Value, json};

use crate::ledger::resolve::asked_amount;
use crate::ledger::settling::Intent;
use crate::payment::permit::{Exact, Permit};
use crate::payment::upto::{self, Said, SaidError};
use crate::wire::amount::Units;
use crate::wire::x402::requirements::Requirements;

/// What is settled.
pub(super) struct Due {
    /// In ledger units.
    pub(super) units: Units,
    /// As the facilitator is asked.
    pub(super) requirements: Requirements,
    /// The body of `/settle`.
    pub(super) body: String,
}

impl Due {
    /// All that was signed.
    pub(super) fn all(permit: &Permit, exact: &Exact) -> Due {
        Due { units: permit.fund.amount, requirements: exact.requirements.clone(), body: exact.body.clone() }
    }

    /// What the origin takes; its word is taken out of the answer.
    ///
    /// # Errors
    /// It said something that can't be followed.
    pub(super) fn of<B>(permit: &Permit, exact: &Exact, response: &mut Response<B>) -> Result<Due, SaidError> {
        let said = response.extensions_mut().remove::<Said>();
        let all = Due::all(permit, exact);
        let Some(said) = said.filter(|_| exact.scheme == upto::SCHEME) else { return Ok(all) };
        let actual = said.actual(&exact.token, permit.fund.amount)?;
        if actual.capped {
            tracing::warn!(payment = %permit.key, "the origin takes more than was signed; the maximum is settled");
        }
        Ok(Due { units: actual.units, ..all.reduced(actual.atomic) })
    }

    /// What a settlement that was begun before was for.
    pub(super) fn intended(exact: &Exact, intent: &Intent) -> Due {
        let amount = asked_amount(intent).and_then(|amount| amount.parse().ok());
        let requirements =
            Requirements { amount: amount.unwrap_or(exact.requirements.amount), ..exact.requirements.clone() };
        let body = String::from_utf8_lossy(&intent.payload).into_owned();
        Due { units: intent.posting.amount, requirements, body }
    }

    fn reduced(self, atomic: u128) -> Due {
        // The body was made from JSON.
        let mut asked: Value = serde_json::from_str(&self.body).unwrap_or_default();
        if let Some(amount) = asked.pointer_mut("/paymentRequirements/amount") {
            *amount = json!(atomic.to_string());
        }
        Due { requirements: Requirements { amount: atomic, ..self.requirements }, body: asked.to_string(), ..self }
    }
}
