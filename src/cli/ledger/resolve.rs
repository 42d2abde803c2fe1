//! `tollgate ledger resolve`

use clap::ValueEnum;
use serde_json::json;

use super::{Failure, Where, owner};
use crate::cli::Exit;
use crate::cli::output::{error, say};
use crate::payment::key::PaymentKey;

/// Say what became of a payment whose settlement had no verdict.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Look it up first, on the chain or with the facilitator: your word is what the books will say. `settled` posts the charge
and owes the payer the answer, which is served when the same payment comes again; `failed` spends the payment.
A running gateway is told through its socket beside the ledger, which only its owner can use; without one the ledger is
opened here.

Examples:
  tollgate ledger list --state unresolved
  tollgate ledger resolve 03d5f0… --as settled --transaction 0x9c1a… --reason \"block 1234567\"
  tollgate ledger resolve 03d5f0… --as failed --reason \"authorization expired unused\"")]
pub struct Resolve {
    #[command(flatten)]
    place: Where,
    /// The payment's key, in hex.
    #[arg(value_name = "PAYMENT")]
    payment: String,
    /// What became of it.
    #[arg(long = "as")]
    outcome: Outcome,
    /// Why you know.
    #[arg(long, value_name = "TEXT", value_parser = super::line)]
    reason: String,
    /// The transaction that moved the money.
    #[arg(long, value_name = "HASH", default_value = "")]
    transaction: String,
    /// Take `failed` although the payment could still move money.
    #[arg(long)]
    force: bool,
    /// Print a JSON object.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Outcome {
    /// The money moved.
    Settled,
    /// It did not, and will not.
    Failed,
}

impl Resolve {
    pub(super) fn run(self) -> Result<Exit, Failure> {
        if PaymentKey::from_hex(&self.payment).is_none() {
            error(format_args!("`{}` is no payment key: expected 34 digits of hex", self.payment));
            return Ok(Exit::Unusable);
        }
        let ledger = self.place.location()?;
        let zone = self.place.open()?.zone()?;
        let order = json!({"do": "resolve", "payment": self.payment, "moved": self.moved(),
            "transaction": self.transaction, "reason": self.reason, "force": self.force});
        let answered = owner::order(&ledger, &zone, None, &order);
        let answered = answered.map(|answer| answer["n"].as_str().unwrap_or_default().to_owned());
        match answered {
            Ok(n) if self.json => say(&format!("{}\n", json!({"n": n}))),
            Ok(n) => say(&format!("resolved as {}: entry {n}\n", if self.moved() { "settled" } else { "failed" })),
            Err(reason) => {
                error(reason);
                return Ok(Exit::Failed);
            }
        }
        Ok(Exit::Done)
    }

    fn moved(&self) -> bool {
        self.outcome == Outcome::Settled
    }
}
