//! Offers: what a 402 asks for.
//!
//! Read are entries of two schemes, those of `PAYMENT-REQUIRED` (x402 v2, base64) before those of the JSON body:
//!
//! | scheme | in the field | in the body |
//! |---|---|---|
//! | `deferred` | `accepts[]` with `extra` | `accepts[]` with `extras`, as the proposal has it |
//! | `exact` of EIP-3009, in known tokens | x402 v2 | x402 v1, where there is no field |
//!
//! What they say is a stranger's: sizes are bounded, a price that is said twice must be the same twice, in one entry as in
//! field and body.

mod token;

use http::HeaderMap;
use serde_json::Value;

pub use token::{LIFETIME_MAX_S, Transfer};

use crate::wire::amount::{Currency, LEDGER_DECIMALS, Money, Units};
use crate::wire::deferred::Payment;
use crate::wire::x402::{decode_base64, json};

/// Largest 402 body that is read.
pub const BODY_BYTES_MAX: usize = 64 * 1024;
/// Longest `PAYMENT-REQUIRED` that is read.
pub const FIELD_BYTES_MAX: usize = 16 * 1024;
/// Most entries of `accepts` that are read.
pub const OFFERS_MAX: usize = 32;
/// Longest text inside an entry.
const TEXT_BYTES_MAX: usize = 4096;

/// One thing that can be signed to get the resource.
#[derive(Debug, Clone, PartialEq)]
pub struct Offer {
    /// What will be owed or paid: `0.01 USD`. Of a token, what so much of it is worth.
    pub price: Money,
    /// `tollgate:deferred`, `eip155:8453`.
    pub network: String,
    /// The absolute URL that is sold, as the server names it.
    pub resource: Option<String>,
    /// Who is paid, in the terms of the network.
    pub pay_to: Option<String>,
    /// What is sold, in the seller's words.
    pub description: Option<String>,
    /// Unix seconds after which it can't be paid any more, where the server says so.
    pub expires: Option<i64>,
    /// How it is paid.
    pub way: Way,
}

/// How an offer is paid.
#[derive(Debug, Clone, PartialEq)]
pub enum Way {
    /// By a signed commitment.
    Deferred {
        /// The id to commit to; single use.
        id: String,
        /// The terms that a payment agrees to.
        terms_url: Option<String>,
    },
    /// By a signed token transfer.
    Exact(Box<Transfer>),
}

/// Why nothing in a 402 can be paid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OfferError {
    /// Neither a body nor a field with `accepts`.
    #[error("the 402 carries no offer: neither a JSON body with `accepts` nor PAYMENT-REQUIRED")]
    None,
    /// Entries of other schemes only; carries their names.
    #[error("the 402 takes only {0}; this client pays by `deferred` and `exact`")]
    OtherSchemes(String),
    /// Only schemes that the payer has no means for; carries their names.
    #[error("the 402 takes only {0}: `deferred` needs an agent's key, `exact` a wallet")]
    NoMeans(String),
    /// Beyond one of the bounds of this module.
    #[error("{0}, more than is read")]
    TooLarge(String),
    /// Not base64 or not JSON.
    #[error("{place} can't be read: {reason}")]
    Syntax {
        /// `the body` or `PAYMENT-REQUIRED`.
        place: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// A member is absent, of another type, or says something that can't be.
    #[error("offer {number}: `{member}` {problem}")]
    Member {
        /// Its place in `accepts`, from 1.
        number: usize,
        /// Which member.
        member: &'static str,
        /// What is wrong.
        problem: String,
    },
}

/// The payable offers of a 402, in the server's order of preference; `now` in Unix seconds.
///
/// # Errors
/// [`OfferError`] when there is none. Among several, malformed ones are passed over; the first one's fault is named when all
/// are malformed.
pub fn read(headers: &HeaderMap, body: &[u8], now: i64) -> Result<Vec<Offer>, OfferError> {
    let body = if body.is_empty() { Err(OfferError::None) } else { parse_body(body) };
    let field = headers.get("payment-required").map(|field| parse_field(field.as_bytes()));
    let told = body.as_ref().map(token::Told::read).unwrap_or_default();
    let in_body = body.and_then(|body| accepted(&body, &Place::Body { v1: field.is_none() }, now));
    let in_field = match field {
        Some(field) => field.and_then(|field| accepted(&field, &Place::Field(told), now)),
        None => Err(OfferError::None),
    };
    match (in_field, in_body) {
        (Ok(offers), Ok(more)) => merged(offers, more),
        (Ok(offers), Err(_)) | (Err(_), Ok(offers)) => Ok(offers),
        // Pay per crawl is offered in a field of its own, with a text for people.
        (Err(OfferError::None), Err(OfferError::Syntax { .. } | OfferError::None))
            if headers.contains_key("crawler-price") =>
        {
            Err(OfferError::OtherSchemes("crawl (pay per crawl)".to_owned()))
        }
        // What says more about the server's mistake.
        (Err(field), Err(body)) => Err(if rank(&body) <= rank(&field) { body } else { field }),
    }
}

fn rank(error: &OfferError) -> u8 {
    match error {
        OfferError::Member { .. } => 0,
        OfferError::TooLarge(_) => 1,
        OfferError::OtherSchemes(_) | OfferError::NoMeans(_) => 2,
        OfferError::Syntax { .. } => 3,
        OfferError::None => 4,
    }
}

/// The field's offers, then those that only the body has. Of what both have, field and body must say the same.
fn merged(mut offers: Vec<Offer>, more: Vec<Offer>) -> Result<Vec<Offer>, OfferError> {
    let mut wrong = None;
    for offer in more {
        match offers.iter().position(|other| offer.id().is_some() && other.id() == offer.id()) {
            None => offers.push(offer),
            Some(at) if (offers[at].price, &offers[at].network) == (offer.price, &offer.network) => {}
            Some(at) => {
                offers.remove(at);
                let problem = "is not the same in PAYMENT-REQUIRED and in the body".to_owned();
                _ = wrong.get_or_insert(OfferError::Member { number: at + 1, member: "price", problem });
            }
        }
    }
    match wrong {
        Some(wrong) if offers.is_empty() => Err(wrong),
        _ => Ok(offers),
    }
}

impl Offer {
    /// `deferred` or `exact`.
    pub fn scheme(&self) -> &'static str {
        match self.way {
            Way::Deferred { .. } => "deferred",
            Way::Exact(_) => "exact",
        }
    }

    /// The id to commit to, of a deferred one.
    pub fn id(&self) -> Option<&str> {
        match &self.way {
            Way::Deferred { id, .. } => Some(id),
            Way::Exact(_) => None,
        }
    }

    /// The terms that a payment agrees to.
    pub fn terms_url(&self) -> Option<&str> {
        match &self.way {
            Way::Deferred { terms_url, .. } => terms_url.as_deref(),
            Way::Exact(_) => None,
        }
    }

    /// The commitment to a deferred one.
    pub fn payment(&self) -> Option<Payment> {
        let id = self.id()?.to_owned();
        Some(Payment { scheme: "deferred".to_owned(), network: self.network.clone(), id })
    }
}

fn parse_body(body: &[u8]) -> Result<Value, OfferError> {
    if body.len() > BODY_BYTES_MAX {
        return Err(OfferError::TooLarge(format!("the body has {} bytes", body.len())));
    }
    json::parse(body).map_err(|e| OfferError::Syntax { place: "the body", reason: format!("not JSON: {e}") })
}

fn parse_field(field: &[u8]) -> Result<Value, OfferError> {
    let syntax = |reason: String| OfferError::Syntax { place: "PAYMENT-REQUIRED", reason };
    if field.len() > FIELD_BYTES_MAX {
        return Err(OfferError::TooLarge(format!("PAYMENT-REQUIRED has {} bytes", field.len())));
    }
    let json = decode_base64(field).ok_or_else(|| syntax("not base64".to_owned()))?;
    json::parse(&json).map_err(|e| syntax(format!("not base64 of JSON: {e}")))
}

/// Where entries stand, which decides how they are written.
enum Place {
    /// The body; tokens of x402 v1 only without a field.
    Body { v1: bool },
    /// `PAYMENT-REQUIRED`, with what the body told of tokens.
    Field(token::Told),
}

fn accepted(json: &Value, place: &Place, now: i64) -> Result<Vec<Offer>, OfferError> {
    let accepts = json.get("accepts").and_then(Value::as_array).ok_or(OfferError::None)?;
    if accepts.len() > OFFERS_MAX {
        return Err(OfferError::TooLarge(format!("`accepts` has {} entries", accepts.len())));
    }
    // In x402 v2 the resource stands beside the entries.
    let resource = match place {
        Place::Body { .. } => None,
        Place::Field(_) => json.get("resource"),
    };
    let (mut offers, mut others, mut wrong) = (Vec::new(), Vec::new(), None);
    for (i, value) in accepts.iter().enumerate() {
        let extras = if matches!(place, Place::Body { .. }) { "extras" } else { "extra" };
        let entry = Entry { number: i + 1, value, extras, resource };
        let read = match (value.get("scheme").and_then(Value::as_str), place) {
            (Some("deferred"), _) => entry.deferred(now),
            (Some("exact"), Place::Field(told)) => entry.exact_v2(told, now),
            (Some("exact"), Place::Body { v1: true }) => entry.exact_v1(now),
            (Some(scheme), _) => {
                others.push(format!("`{}`", shortened(scheme)));
                continue;
            }
            (None, _) => {
                others.push("an entry without scheme".to_owned());
                continue;
            }
        };
        match read {
            Ok(offer) => offers.push(offer),
            Err(error) => wrong = wrong.or(Some(error)),
        }
    }
    match (offers.is_empty(), wrong) {
        (false, _) => Ok(offers),
        (true, Some(error)) => Err(error),
        (true, None) if others.is_empty() => Err(OfferError::None),
        (true, None) => {
            others.dedup();
            Err(OfferError::OtherSchemes(others.join(", ")))
        }
    }
}

/// One entry of `accepts`.
struct Entry<'a> {
    number: usize,
    value: &'a Value,
    /// `extras`, or `extra` in x402 v2.
    extras: &'static str,
    /// What stands beside the entries.
    resource: Option<&'a Value>,
}

impl Entry<'_> {
    fn deferred(&self, now: i64) -> Result<Offer, OfferError> {
        let network = self.required(None, "network")?;
        let id = self.required(Some(self.extras), "id")?;
        let ttl = self.whole(Some(self.extras), "ttl")?;
        let ttl = match ttl {
            None => self.whole(None, "maxTimeoutSeconds")?,
            some => some,
        };
        let offer = Offer {
            price: self.price()?,
            network,
            resource: self.sold("url").or(self.text(None, "resource")?),
            pay_to: self.text(None, "payTo")?,
            description: self.sold("description").or(self.text(None, "description")?),
            expires: ttl.map(|ttl| now.saturating_add_unsigned(ttl)),
            way: Way::Deferred { id, terms_url: self.text(Some(self.extras), "termsUrl")? },
        };
        // What goes into `Payment` must read back as it is: the id's alphabet, a network of printable ASCII.
        let field = offer.payment().and_then(|payment| payment.to_field());
        match field.and_then(|field| Payment::parse(&field).ok()) {
            Some(_) => Ok(offer),
            None if offer.network.bytes().all(|b| (b' '..=b'~').contains(&b)) => {
                Err(self.wrong("extras.id", "must be 1 to 256 characters of A-Z a-z 0-9 _ -"))
            }
            None => Err(self.wrong("network", "holds characters that no header field can")),
        }
    }

    /// The price, from `amount` and `asset`, from the text in the extras, or from both if they agree.
    fn price(&self) -> Result<Money, OfferError> {
        let said = match self.text(Some(self.extras), "price")? {
            None => None,
            Some(text) => Some(Money::parse(&text).map_err(|e| self.wrong("extras.price", &e.to_string()))?),
        };
        let counted = match (self.text(None, "amount")?, self.text(None, "asset")?) {
            (Some(amount), Some(asset)) => Some(self.count(&amount, &asset)?),
            (None, None) => None,
            (Some(_), None) => return Err(self.wrong("asset", "is missing")),
            (None, Some(_)) => return Err(self.wrong("amount", "is missing")),
        };
        match (counted, said) {
            (Some(counted), Some(said)) if counted != said => {
                Err(self.wrong("extras.price", &format!("says {said}, but `amount` and `asset` say {counted}")))
            }
            (Some(price), _) | (None, Some(price)) => Ok(price),
            (None, None) => Err(self.wrong("amount", "is missing, and no `price` is given")),
        }
    }

    /// `amount` of the smallest unit of `asset`: `USD` counts cents, `USD6` millionths.
    fn count(&self, amount: &str, asset: &str) -> Result<Money, OfferError> {
        let unknown =
            || self.wrong("asset", &format!("`{}` is no currency: expected `USD` or `USD6`", shortened(asset)));
        let (code, millionths) = match asset.len() {
            4 if asset.ends_with('6') => (&asset[..3], true),
            _ => (asset, false),
        };
        let currency = Currency::parse(code).map_err(|_| unknown())?;
        let decimals = if millionths { LEDGER_DECIMALS } else { currency.minor_decimals() };
        if self.whole(Some(self.extras), "decimals")?.is_some_and(|said| said != u64::from(decimals)) {
            return Err(self.wrong("extras.decimals", &format!("must be {decimals} for `{asset}`")));
        }
        let digits = !amount.is_empty() && amount.bytes().all(|b| b.is_ascii_digit());
        let not_whole = || self.wrong("amount", &format!("`{}` is no whole number", shortened(amount)));
        let amount: u64 = amount.parse().ok().filter(|_| digits).ok_or_else(not_whole)?;
        let units = amount.checked_mul(10_u64.pow(LEDGER_DECIMALS - decimals)).and_then(|u| i64::try_from(u).ok());
        let units = units.and_then(Units::new).ok_or_else(|| self.wrong("amount", "is more than any budget holds"))?;
        Ok(Money { units, currency })
    }

    /// A text of the resource that stands beside the entries.
    fn sold(&self, name: &str) -> Option<String> {
        let text = self.resource?.get(name)?.as_str()?;
        (!text.is_empty() && text.len() <= TEXT_BYTES_MAX).then(|| text.to_owned())
    }

    fn member(&self, within: Option<&'static str>, name: &str) -> Option<&Value> {
        let holder = match within {
            None => Some(self.value),
            Some(extras) => self.value.get(extras),
        };
        holder?.get(name).filter(|value| !value.is_null())
    }

    fn text(&self, within: Option<&'static str>, name: &'static str) -> Result<Option<String>, OfferError> {
        match self.member(within, name) {
            None => Ok(None),
            Some(Value::String(text)) if text.len() <= TEXT_BYTES_MAX => Ok(Some(text.clone())),
            Some(Value::String(_)) => Err(self.wrong(name, "is too long")),
            Some(_) => Err(self.wrong(name, "is not a string")),
        }
    }

    fn required(&self, within: Option<&'static str>, name: &'static str) -> Result<String, OfferError> {
        self.text(within, name)?.ok_or_else(|| self.wrong(name, "is missing"))
    }

    fn whole(&self, within: Option<&'static str>, name: &'static str) -> Result<Option<u64>, OfferError> {
        match self.member(within, name) {
            None => Ok(None),
            Some(value) => value.as_u64().map(Some).ok_or_else(|| self.wrong(name, "is no whole number")),
        }
    }

    fn wrong(&self, member: &'static str, problem: &str) -> OfferError {
        OfferError::Member { number: self.number, member, problem: problem.to_owned() }
    }
}

/// A stranger's text, fit to be shown: one short line of what can't steer a terminal.
pub fn shortened(text: &str) -> String {
    let mut shown: String = text.chars().take(120).flat_map(char::escape_debug).collect();
    if text.chars().nth(120).is_some() {
        shown.push('…');
    }
    shown.replace("\\\"", "\"").replace("\\'", "'")
}

#[cfg(test)]
mod tests;
