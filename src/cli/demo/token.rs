//! The second payment: a token transfer, in the sandbox.

use http::HeaderMap;

use super::exchange::{Stage, ask, books, expect, head, indented};
use crate::agent::offer::{self, Way};
use crate::cli::ledger::listing;
use crate::cli::output::{Paint, say};
use crate::clock::Clock;
use crate::ledger::entry::Kind;
use crate::wire::evm::to_hex;
use crate::wire::x402::receipt::Receipt;

/// What is bought.
const CALL: &str = "/api/tides";
/// Whom the books name for wallets.
const WALLETS: &str = "wallets";

/// Buys an API call with a token and tells of it on standard output.
///
/// # Errors
/// Says what went otherwise than it must.
pub(super) async fn play(stage: &Stage, paint: Paint) -> Result<(), String> {
    let title = "6  A wallet without any account asks for an API call. It can pay with a token:";
    say(&format!("\n{}\n", paint.bold(title)));
    say(&format!("   {}\n\n", paint.yellow("ON PAPER. This is the sandbox: signatures are checked, no money moves.")));
    let unpaid = ask(stage, CALL, &HeaderMap::new(), paint).await?;
    expect(&unpaid, 402)?;
    say(&head(&unpaid, &["tollgate-reason"], paint));
    let now = (Clock::system().now_ms() / 1000).cast_signed();
    let offers = offer::read(&unpaid.headers, &unpaid.body, now).map_err(|error| error.to_string())?;
    let token = offers.iter().find_map(|offer| match &offer.way {
        Way::Exact(transfer) => Some(transfer),
        Way::Deferred { .. } => None,
    });
    let transfer = token.ok_or("the 402 has no offer of a token")?;
    say(&indented("Payment-Required: (decoded, the entry of the token)", &paint.dim("<"), 1));
    say(&indented(&format!("{:#}", transfer.entry), &paint.dim("<"), usize::MAX));

    say(&format!("\n{}\n\n", paint.bold("7  It signs a transfer (EIP-3009), once, and asks again.")));
    let mut nonce = [0; 32];
    getrandom::fill(&mut nonce).map_err(|failure| format!("no randomness: {failure}"))?;
    let payment = stage.wallet.sign(transfer, now, nonce).map_err(|error| error.to_string())?;
    say(&indented(&payment.base, &paint.yellow("*"), usize::MAX));
    let paid = ask(stage, CALL, &HeaderMap::from_iter(payment.fields), paint).await?;
    say(&head(&paid, &["content-type", "tollgate-reason"], paint));
    let receipt = paid.headers.get("payment-response").and_then(|field| Receipt::decode(field.as_bytes()));
    let receipt = receipt.filter(|receipt| receipt.success).ok_or("the answer came without a receipt")?;
    let shown = format!("Payment-Response: (decoded) transaction {} ON PAPER", receipt.transaction);
    say(&indented(&shown, &paint.dim("<"), 1));
    say(&indented(&String::from_utf8_lossy(&paid.body), &paint.dim("<"), 3));
    expect(&paid, 200)?;

    let mut rows = books(stage, WALLETS).await?;
    rows.retain(|row| row.kind == Kind::Capture);
    say(&format!("\n{}\n\n", paint.bold("8  The books have it, too.")));
    say(&listing(&rows, paint));
    match &rows[..] {
        [row] if row.agent.ends_with(&to_hex(stage.wallet.address().as_bytes())) => Ok(()),
        _ => Err("the books do not have the one row that they must".to_owned()),
    }
}
