//! What happened on the way: told on standard error as it happens, and kept for `--json`.

use std::sync::{Mutex, PoisonError};

use http::{HeaderMap, StatusCode};
use serde_json::{Value, json};
use sfv::{BareItem, Dictionary, ListEntry, Parser};

use crate::agent::Offer;
use crate::agent::layer::{Event, Paid};
use crate::agent::offer::shortened;
use crate::cli::output::{Paint, note};
use crate::wire::deferred::Payment;

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
    payment: Option<Payment>,
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
                self.say("pay", &format!("{} with id {}", offer.price, payment.payment.id));
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
            let mut text = format!("{} by deferred on {}{lasts}", offer.price, shortened(&offer.network));
            for (word, more) in [("for", &offer.description), ("to", &offer.pay_to), ("terms", &offer.terms_url)] {
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
        let receipt = text("payment-response").and_then(receipt);
        let charged = match (paid, &receipt) {
            (None, _) => "nothing to pay".to_owned(),
            (Some(paid), Some(_)) => format!("charged {}", paid.offer.price),
            // The lost answer of an earlier attempt may have been the one that counts.
            (Some(_), None) if text("tollgate-reason") == Some("already_used") => {
                format!(
                    "the answer to this payment was lost; charged once, as {}",
                    text("tollgate-receipt").unwrap_or("?")
                )
            }
            (Some(_), None) => "nothing charged".to_owned(),
        };
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
                "offer": kept.offer.as_ref().map(|offer| json!({
                    "scheme": "deferred",
                    "network": offer.network,
                    "id": offer.id,
                    "price": offer.price.to_string(),
                    "resource": offer.resource,
                    "payTo": offer.pay_to,
                    "termsUrl": offer.terms_url,
                    "description": offer.description,
                    "expires": offer.expires,
                })),
                "payment": kept.payment.as_ref().map(|payment| json!({
                    "scheme": payment.scheme, "network": payment.network, "id": payment.id,
                })),
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

/// `Payment-Response` as an object; `None` when it can't be read.
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
