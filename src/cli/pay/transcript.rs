//! What happened on the way: told on standard error as it happens, and kept for `--json`.

use std::sync::{Mutex, PoisonError};

use http::{HeaderMap, StatusCode};
use serde_json::{Value, json};
use sfv::{BareItem, Dictionary, ListEntry, Parser};

use crate::agent::Offer;
use crate::agent::layer::{Event, Paid, UNCLEAR};
use crate::agent::offer::{Transfer, Way, shortened};
use crate::agent::signer::Committed;
use crate::cli::output::{Paint, note};
use crate::wire::evm::to_hex;
use crate::wire::x402::receipt::Receipt;

pub(super) struct Transcript {
    quiet: bool,
    verbose: bool,
    paint: Paint,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    status: Option<u16>,
    offer: Option<Offer>,
    payment: Option<Committed>,
    receipt: Option<Value>,
    bytes: u64,
}

impl Transcript {
    pub(super) fn new(quiet: bool, verbose: bool) -> Transcript {
        Transcript { quiet, verbose, paint: Paint::stderr(), kept: Mutex::default() }
    }

    /// One line: a word, and what it is about.
    pub(super) fn say(&self, word: &str, text: &str) {
        if !self.quiet {
            note(&format!("{} {text}", self.paint.bold(&format!("{word:<9}"))));
        }
    }

    pub(super) fn event(&self, event: &Event<'_>) {
        match event {
            Event::Offered(offers) => {
                self.status(StatusCode::PAYMENT_REQUIRED);
                self.offered(offers);
            }
            Event::Paying { offer, payment } => {
                self.chosen(offer);
                self.keep(|kept| kept.payment = Some(payment.payment.clone()));
                self.say(
                    "pay",
                    &match &payment.payment {
                        Committed::Deferred(payment) => format!("{} with id {}", offer.price, payment.id),
                        Committed::Transfer(transfer) => {
                            format!("{} from {} with nonce {}", offer.price, transfer.from, to_hex(&transfer.nonce))
                        }
                    },
                );
                if self.verbose {
                    for (name, value) in &payment.fields {
                        note(&format!("> {name}: {}", value.to_str().unwrap_or_default()));
                    }
                    note("* signed text:");
                    payment.base.lines().for_each(|line| note(&format!("*   {line}")));
                }
            }
            Event::Resending { why, after } => {
                let seconds = after.as_secs_f32();
                self.say("again", &format!("{}; the same payment goes out again in {seconds} s", shortened(why)));
            }
        }
    }

    pub(super) fn status(&self, status: StatusCode) {
        self.keep(|kept| kept.status = Some(status.as_u16()));
    }

    pub(super) fn offered(&self, offers: &[Offer]) {
        for offer in offers {
            let lasts = if offer.expires.is_some() { "" } else { ", without end" };
            let token = token(offer).map_or_else(String::new, |transfer| format!(" in {}", transfer.token.symbol));
            let paper = self::token(offer).is_some_and(|transfer| transfer.network.is_testnet() == Some(true));
            let paper = if paper { " (a test network)" } else { "" };
            let (price, scheme) = (offer.price, offer.scheme());
            let mut text = format!("{price} by {scheme}{token} on {}{paper}{lasts}", shortened(&offer.network));
            let (description, pay_to) = (offer.description.as_deref(), offer.pay_to.as_deref());
            for (word, more) in [("for", description), ("to", pay_to), ("terms", offer.terms_url())] {
                if let Some(more) = more {
                    text += &format!(", {word} {}", shortened(more));
                }
            }
            self.say("offer", &text);
        }
        self.keep(|kept| kept.offer = offers.first().cloned());
    }

    pub(super) fn chosen(&self, offer: &Offer) {
        self.keep(|kept| kept.offer = Some(offer.clone()));
    }

    /// What is known of the payment when there will be no more.
    pub(super) fn standing(&self) -> String {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        match (&kept.payment, &kept.offer) {
            (Some(_), Some(offer)) if kept.receipt.is_some() => format!("{} was charged", offer.price),
            (Some(_), Some(offer)) => format!("{} may have been charged", offer.price),
            _ => "nothing was paid".to_owned(),
        }
    }

    /// The head of the answer that is handed on.
    pub(super) fn answered(&self, status: StatusCode, headers: &HeaderMap, paid: Option<&Paid>) {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let field = text("payment-response").or_else(|| text("x-payment-response"));
        let settled = field.and_then(|field| Receipt::decode(field.as_bytes()));
        let code = text("tollgate-reason").unwrap_or_default();
        let charged = match (paid, &settled) {
            (None, _) if code == "payment_required" && status.is_success() => {
                "refused: the price stands in the result of the call, which this command does not read".to_owned()
            }
            (None, _) => "nothing to pay".to_owned(),
            // The lost answer of an earlier attempt may have been the one that counts.
            (Some(_), _) if matches!(code, "already_used" | "payment_already_used") => {
                let entry = text("tollgate-receipt").map(|entry| format!(", as {}", shortened(entry)));
                format!("the answer to this payment was lost; charged once{}", entry.unwrap_or_default())
            }
            (Some(paid), Some(receipt)) if receipt.success => {
                let transaction = match receipt.transaction.as_str() {
                    "" => String::new(),
                    hash => format!(" in transaction {}", shortened(hash)),
                };
                format!("charged {}{transaction}", paid.offer.price)
            }
            (Some(_), Some(receipt)) => {
                let reason = receipt.error_reason.as_deref().map(|reason| format!(": {}", shortened(reason)));
                format!("nothing charged{}", reason.unwrap_or_default())
            }
            (Some(paid), None) if field.is_some() && paid.offer.id().is_some() => match text("tollgate-charged") {
                // An agreed price, an allowance, a pass.
                Some(charged) if charged != paid.offer.price.to_string() => {
                    format!("charged {} instead of {}", shortened(charged), paid.offer.price)
                }
                _ => format!("charged {}", paid.offer.price),
            },
            (Some(_), None) if status == StatusCode::SERVICE_UNAVAILABLE && UNCLEAR.contains(&code) => {
                "what became of the payment is not known".to_owned()
            }
            // A gateway may leave some successes uncharged; of a transfer it is the wallet's books that tell.
            (Some(paid), None) if status.is_success() && paid.offer.id().is_none() => "no receipt came".to_owned(),
            (Some(_), None) => "nothing charged".to_owned(),
        };
        let receipt = settled.map(|receipt| settlement(&receipt)).or_else(|| field.and_then(receipt));
        let reason = text("tollgate-reason").map_or_else(String::new, |reason| format!(" ({})", shortened(reason)));
        self.say("answer", &format!("{status}{reason}, {charged}"));
        self.keep(|kept| (kept.status, kept.receipt) = (Some(status.as_u16()), receipt));
    }

    pub(super) fn count(&self, bytes: usize) {
        self.keep(|kept| kept.bytes += bytes as u64);
    }

    pub(super) fn ended(&self) {
        let bytes = self.keep(|kept| kept.bytes);
        if self.verbose {
            self.say("body", &format!("{bytes} bytes"));
        }
    }

    pub(super) fn to_json(&self, error: Option<&str>) -> Value {
        self.keep(|kept| {
            json!({
                "status": kept.status,
                "offer": kept.offer.as_ref().map(offer),
                "payment": kept.payment.as_ref().map(|payment| match payment {
                    Committed::Deferred(payment) => json!({
                        "scheme": payment.scheme, "network": payment.network, "id": payment.id,
                    }),
                    Committed::Transfer(transfer) => json!({
                        "scheme": "exact",
                        "network": kept.offer.as_ref().map(|offer| &offer.network),
                        "payer": transfer.from.to_string(),
                        "nonce": to_hex(&transfer.nonce),
                    }),
                }),
                "receipt": kept.receipt,
                "bytes": kept.bytes,
                "error": error,
            })
        })
    }

    fn keep<T>(&self, change: impl FnOnce(&mut Kept) -> T) -> T {
        change(&mut self.kept.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn token(offer: &Offer) -> Option<&Transfer> {
    match &offer.way {
        Way::Exact(transfer) => Some(transfer),
        Way::Deferred { .. } => None,
    }
}

fn offer(offer: &Offer) -> Value {
    let mut value = json!({
        "scheme": offer.scheme(),
        "network": offer.network,
        "id": offer.id(),
        "price": offer.price.to_string(),
        "resource": offer.resource,
        "payTo": offer.pay_to,
        "termsUrl": offer.terms_url(),
        "description": offer.description,
        "expires": offer.expires,
    });
    if let Some(Transfer { token, amount, .. }) = token(offer) {
        value["asset"] = json!(token.address);
        value["symbol"] = json!(token.symbol);
        value["amount"] = json!(amount.to_string());
    }
    value
}

/// x402's payment response.
fn settlement(receipt: &Receipt) -> Value {
    json!({
        "success": receipt.success,
        "errorReason": receipt.error_reason,
        "transaction": receipt.transaction,
        "network": receipt.network,
        "payer": receipt.payer,
    })
}

/// `Payment-Response` of `deferred` as an object; `None` when it can't be read.
fn receipt(field: &str) -> Option<Value> {
    let dictionary: Dictionary = Parser::new(field).parse().ok()?;
    let mut receipt = serde_json::Map::new();
    for (name, entry) in &dictionary {
        let ListEntry::Item(item) = entry else { continue };
        let value = match &item.bare_item {
            BareItem::String(text) => json!(text.as_str()),
            BareItem::Token(text) => json!(text.as_str()),
            BareItem::Integer(number) => json!(i64::from(*number)),
            _ => continue,
        };
        receipt.insert(name.as_str().to_owned(), value);
    }
    Some(Value::Object(receipt))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payment_response_becomes_an_object() {
        assert_eq!(
            receipt(r#"scheme="deferred", network="n", id=abc, timestamp=17, x=(1 2)"#),
            Some(json!({"scheme": "deferred", "network": "n", "id": "abc", "timestamp": 17}))
        );
        assert_eq!(receipt("?"), None);
    }
}
