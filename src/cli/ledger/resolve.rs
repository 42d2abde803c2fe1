//! `tollgate ledger resolve`

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use clap::ValueEnum;
use serde_json::{Value, json};

use super::{Failure, Where};
use crate::cli::Exit;
use crate::cli::output::{error, say};
use crate::clock::Clock;
use crate::ledger::resolve::{Resolution, resolve};
use crate::ledger::sqlite::{SqliteOptions, SqliteStore};
use crate::payment::key::PaymentKey;
use crate::server::admin;

/// The gateway may be waiting for its disk.
const PATIENCE: Duration = Duration::from_secs(20);

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
    #[arg(long, value_name = "TEXT")]
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
        let Some(key) = PaymentKey::from_hex(&self.payment) else {
            error(format_args!("`{}` is no payment key: expected 34 digits of hex", self.payment));
            return Ok(Exit::Unusable);
        };
        let ledger = self.place.path()?;
        let zone = self.place.open()?.zone()?;
        let answered = match UnixStream::connect(admin::socket_of(&ledger)) {
            Ok(stream) => self.ask(stream),
            Err(_) => self.resolve_here(key, SqliteOptions::offline(ledger, zone, Clock::system())),
        };
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

    /// Tells the gateway that runs.
    fn ask(&self, mut stream: UnixStream) -> Result<String, String> {
        let failed = |e: std::io::Error| format!("the gateway did not answer: {e}");
        let asked = json!({"do": "resolve", "payment": self.payment, "moved": self.moved(),
            "transaction": self.transaction, "reason": self.reason, "force": self.force});
        stream.set_read_timeout(Some(PATIENCE)).map_err(failed)?;
        stream.write_all(format!("{asked}\n").as_bytes()).map_err(failed)?;
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).map_err(failed)?;
        let answer: Value = serde_json::from_str(&line).map_err(|e| format!("the gateway did not answer: {e}"))?;
        match (answer["n"].as_str(), answer["error"].as_str()) {
            (Some(n), _) => Ok(n.to_owned()),
            (None, said) => Err(said.unwrap_or("the gateway gave no answer").to_owned()),
        }
    }

    /// No gateway runs: the ledger's lock is ours for a moment.
    fn resolve_here(&self, key: PaymentKey, options: SqliteOptions) -> Result<String, String> {
        let store = SqliteStore::open(options).map_err(|e| e.to_string())?;
        let resolution = Resolution {
            moved: self.moved(),
            transaction: self.transaction.clone(),
            by: "operator",
            reason: self.reason.clone(),
            not_before_ms: (!self.force).then(|| store.now_ms()),
        };
        let runtime = tokio::runtime::Builder::new_current_thread().build().map_err(|e| e.to_string())?;
        let receipt = runtime.block_on(resolve(&*store, key, &resolution)).map_err(|e| e.to_string());
        store.close().map_err(|e| e.to_string())?;
        receipt.map(|receipt| receipt.n.to_string())
    }
}
