//! Offers: what a 402 asks for.
//!
//! Read are entries of the scheme `deferred`: in the JSON body (`accepts[]` with `extras`), or, where the body has none, in
//! `PAYMENT-REQUIRED` (`accepts[]` with `extra`, base64). What they say is a stranger's: sizes are bounded, a price that is
//! said twice must be the same twice.

use base64::Engine as _;
use base64::alphabet::{STANDARD, URL_SAFE};
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use http::HeaderMap;
use serde_json::Value;

use crate::wire::amount::{Currency, LEDGER_DECIMALS, Money, Units};
use crate::wire::deferred::Payment;

/// Largest 402 body that is read.
pub const BODY_BYTES_MAX: usize = 64 * 1024;
/// Longest `PAYMENT-REQUIRED` that is read.
pub const FIELD_BYTES_MAX: usize = 16 * 1024;
/// Most entries of `accepts` that are read.
pub const OFFERS_MAX: usize = 32;
/// Longest text inside an entry.
const TEXT_BYTES_MAX: usize = 4096;

/// One thing that can be signed to get the resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    /// What will be owed: `0.01 USD`.
    pub price: Money,
    /// `tollgate:deferred`.
    pub network: String,
    /// The id to commit to; single use.
    pub id: String,
    /// The absolute URL that is sold, as the server names it.
    pub resource: Option<String>,
    /// Who is paid, in the terms of the network.
    pub pay_to: Option<String>,
    /// The terms that a payment agrees to.
    pub terms_url: Option<String>,
    /// What is sold, in the seller's words.
    pub description: Option<String>,
    /// Unix seconds after which the id buys nothing, where the server says so.
    pub expires: Option<i64>,
}

/// Why nothing in a 402 can be paid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OfferError {
    /// Neither a body nor a field with `accepts`.
    #[error("the 402 carries no offer: neither a JSON body with `accepts` nor PAYMENT-REQUIRED")]
    None,
    /// Entries of other schemes only; carries their names.
    #[error("the 402 takes only {0}; this client pays by `deferred`")]
    OtherSchemes(String),
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
    let in_body = if body.is_empty() { Err(OfferError::None) } else { read_body(body, now) };
    let in_body = match in_body {
        Ok(offers) => return Ok(offers),
        Err(error) => error,
    };
    let Some(field) = headers.get("payment-required") else { return Err(in_body) };
    match read_field(field.as_bytes(), now) {
        // A malformed deferred entry in the body says more than a field without one.
        Err(OfferError::None | OfferError::OtherSchemes(_)) if matches!(in_body, OfferError::Member { .. }) => {
            Err(in_body)
        }
        other => other,
    }
}

impl Offer {
    /// The payment that commits to this offer.
    pub fn payment(&self) -> Payment {
        Payment { scheme: "deferred".to_owned(), network: self.network.clone(), id: self.id.clone() }
    }
}

fn read_body(body: &[u8], now: i64) -> Result<Vec<Offer>, OfferError> {
    if body.len() > BODY_BYTES_MAX {
        return Err(OfferError::TooLarge(format!("the body has {} bytes", body.len())));
    }
    let json: Value = serde_json::from_slice(body)
        .map_err(|e| OfferError::Syntax { place: "the body", reason: format!("not JSON: {e}") })?;
    accepted(&json, "extras", now)
}

fn read_field(field: &[u8], now: i64) -> Result<Vec<Offer>, OfferError> {
    let syntax = |reason: String| OfferError::Syntax { place: "PAYMENT-REQUIRED", reason };
    if field.len() > FIELD_BYTES_MAX {
        return Err(OfferError::TooLarge(format!("PAYMENT-REQUIRED has {} bytes", field.len())));
    }
    let lenient = GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let json = GeneralPurpose::new(&STANDARD, lenient)
        .decode(field)
        .or_else(|_| GeneralPurpose::new(&URL_SAFE, lenient).decode(field))
        .map_err(|_| syntax("not base64".to_owned()))?;
    let json: Value = serde_json::from_slice(&json).map_err(|e| syntax(format!("not base64 of JSON: {e}")))?;
    let mut offers = accepted(&json, "extra", now)?;
    // In x402 v2 the resource stands beside the entries.
    let resource = json.pointer("/resource/url").and_then(Value::as_str).filter(|url| url.len() <= TEXT_BYTES_MAX);
    for offer in &mut offers {
        offer.resource = offer.resource.take().or_else(|| resource.map(str::to_owned));
    }
    Ok(offers)
}

fn accepted(json: &Value, extras: &'static str, now: i64) -> Result<Vec<Offer>, OfferError> {
    let accepts = json.get("accepts").and_then(Value::as_array).ok_or(OfferError::None)?;
    if accepts.len() > OFFERS_MAX {
        return Err(OfferError::TooLarge(format!("`accepts` has {} entries", accepts.len())));
    }
    let (mut offers, mut others, mut wrong) = (Vec::new(), Vec::new(), None);
    for (i, value) in accepts.iter().enumerate() {
        match value.get("scheme").and_then(Value::as_str) {
            Some("deferred") => match (Entry { number: i + 1, value, extras }).offer(now) {
                Ok(offer) => offers.push(offer),
                Err(error) => wrong = wrong.or(Some(error)),
            },
            Some(scheme) => others.push(format!("`{}`", shortened(scheme))),
            None => others.push("an entry without scheme".to_owned()),
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
}

impl Entry<'_> {
    fn offer(&self, now: i64) -> Result<Offer, OfferError> {
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
            id,
            resource: self.text(None, "resource")?,
            pay_to: self.text(None, "payTo")?,
            terms_url: self.text(Some(self.extras), "termsUrl")?,
            description: self.text(None, "description")?,
            expires: ttl.map(|ttl| now.saturating_add_unsigned(ttl)),
        };
        // What goes into `Payment` must read back as it is: the id's alphabet, a network of printable ASCII.
        let field = offer.payment().to_field();
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
mod tests {
    use base64::engine::general_purpose;
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn entry() -> Value {
        json!({"scheme": "deferred", "network": "tollgate:deferred", "resource": "https://a.example/p", "amount": "1",
            "asset": "USD", "payTo": "merchant", "maxTimeoutSeconds": 300, "description": "An article",
            "extras": {"id": "abc", "price": "0.01 USD", "ttl": 200, "decimals": 2, "termsUrl": "https://a.example/t"}})
    }

    fn body(accepts: &[Value]) -> Vec<u8> {
        json!({"accepts": accepts, "error": "payment_required"}).to_string().into_bytes()
    }

    fn read_body(body: &[u8]) -> Result<Vec<Offer>, OfferError> {
        read(&HeaderMap::new(), body, 1000)
    }

    /// Reads one entry after `change`.
    fn one(change: impl FnOnce(&mut Value)) -> Result<Offer, String> {
        let mut entry = entry();
        change(&mut entry);
        read_body(&body(&[entry])).map(|mut offers| offers.remove(0)).map_err(|e| e.to_string())
    }

    #[test]
    fn a_complete_offer_is_read() {
        let offer = one(|_| {}).unwrap();
        assert_eq!(offer.price, Money::parse("0.01 USD").unwrap());
        assert_eq!((offer.id.as_str(), offer.network.as_str()), ("abc", "tollgate:deferred"));
        assert_eq!(offer.expires, Some(1200));
        assert_eq!(offer.terms_url.as_deref(), Some("https://a.example/t"));
        assert_eq!(offer.payment().to_field().unwrap(), r#"scheme="deferred", network="tollgate:deferred", id="abc""#);
    }

    #[test]
    fn the_proposals_own_offer_needs_a_price_and_no_more() {
        let least = |price: Value| {
            read_body(&body(&[json!({"scheme": "deferred", "network": "example-network-provider",
                "resource": "https://a.example/p", "extras": {"id": "abc123", "price": price}})]))
        };
        assert_eq!(least(json!("0.001 USD")).unwrap()[0].price.to_string(), "0.001 USD");
        assert_eq!(
            least(Value::Null).unwrap_err().to_string(),
            "offer 1: `amount` is missing, and no `price` is given"
        );
    }

    #[test]
    fn what_is_malformed_is_named() {
        let check = |change: &dyn Fn(&mut Value), expect: &str| {
            let error = one(change).unwrap_err();
            assert!(error.contains(expect), "{error}, not {expect}");
        };
        check(&|e| _ = e.as_object_mut().unwrap().remove("extras"), "`id` is missing");
        check(&|e| e["extras"]["id"] = json!(7), "`id` is not a string");
        check(&|e| e["extras"]["id"] = json!("a b"), "`extras.id` must be");
        check(&|e| e["extras"]["id"] = json!("a".repeat(300)), "`extras.id` must be");
        check(&|e| e["network"] = json!("n\u{e9}"), "`network` holds characters");
        check(&|e| e["network"] = json!(null), "`network` is missing");
        check(&|e| e["network"] = json!("n".repeat(5000)), "`network` is too long");
        check(&|e| e["amount"] = json!(1), "`amount` is not a string");
        check(&|e| e["amount"] = json!("1.0"), "`1.0` is no whole number");
        check(&|e| e["amount"] = json!("-1"), "no whole number");
        check(&|e| e["amount"] = json!("+1"), "no whole number");
        check(&|e| e["amount"] = json!("9999999999999999999"), "more than any budget holds");
        check(&|e| e["asset"] = json!("0x036CbD53"), "is no currency");
        check(&|e| e["asset"] = json!("USD\u{e9}"), "is no currency");
        check(&|e| e["asset"] = json!(null), "`asset` is missing");
        check(&|e| e["amount"] = json!("2"), "says 0.01 USD, but `amount` and `asset` say 0.02 USD");
        check(&|e| e["asset"] = json!("EUR"), "say 0.01 EUR");
        check(&|e| e["extras"]["decimals"] = json!(6), "`extras.decimals` must be 2");
        check(&|e| e["extras"]["price"] = json!("1e3 USD"), "`extras.price` expected an amount");
        check(&|e| e["extras"]["ttl"] = json!(-1), "`ttl` is no whole number");
    }

    #[test]
    fn a_402_without_payable_offer_says_why() {
        let check = |body: &[u8], expect: OfferError| assert_eq!(read_body(body), Err(expect));
        check(b"", OfferError::None);
        check(b"{}", OfferError::None);
        check(b"{\"accepts\": 1}", OfferError::None);
        check(b"{\"accepts\": []}", OfferError::None);
        check(
            &body(&[json!({"scheme": "exact"}), json!(1)]),
            OfferError::OtherSchemes("`exact`, an entry without scheme".into()),
        );
        assert!(matches!(read_body(b"<html>"), Err(OfferError::Syntax { place: "the body", .. })));
        assert!(matches!(read_body(&vec![b' '; BODY_BYTES_MAX + 1]), Err(OfferError::TooLarge(_))));
        assert!(matches!(read_body(&body(&vec![entry(); OFFERS_MAX + 1])), Err(OfferError::TooLarge(_))));
    }

    #[test]
    fn good_offers_among_bad_ones_are_read_in_order() {
        let (mut bad, mut dear) = (entry(), entry());
        bad["amount"] = json!("x");
        dear["extras"]["id"] = json!("second");
        let offers = read_body(&body(&[json!({"scheme": "exact"}), bad, entry(), dear])).unwrap();
        assert_eq!(offers.iter().map(|o| o.id.as_str()).collect::<Vec<_>>(), ["abc", "second"]);
    }

    #[test]
    fn the_field_is_read_where_the_body_has_no_offer() {
        let mut entry = entry();
        entry["extra"] = entry["extras"].take();
        entry.as_object_mut().unwrap().remove("resource");
        let field =
            json!({"x402Version": 2, "resource": {"url": "https://a.example/p"}, "accepts": [entry]}).to_string();
        let with = |field: String, body: &[u8]| {
            let headers = HeaderMap::from_iter([("payment-required".parse().unwrap(), field.parse().unwrap())]);
            read(&headers, body, 1000)
        };
        for text in [general_purpose::STANDARD.encode(&field), general_purpose::URL_SAFE_NO_PAD.encode(&field)] {
            for body in [&b""[..], b"{\"x402Version\":1,\"accepts\":[{\"scheme\":\"exact\"}]}", b"<html>"] {
                let offers = with(text.clone(), body).unwrap();
                assert_eq!(
                    (offers[0].id.as_str(), offers[0].resource.as_deref()),
                    ("abc", Some("https://a.example/p"))
                );
            }
        }
        for bad in ["!", "e30", "eyI="] {
            assert!(with(bad.into(), b"").is_err(), "{bad}");
        }
        assert!(matches!(with("A".repeat(FIELD_BYTES_MAX + 1), b""), Err(OfferError::TooLarge(_))));
    }

    #[test]
    fn shown_texts_cannot_steer_a_terminal() {
        assert_eq!(shortened("a \"b\"\u{1b}[2J\n"), "a \"b\"\\u{1b}[2J\\n");
        assert_eq!(shortened(&"x".repeat(200)).chars().count(), 121);
    }

    proptest! {
        #[test]
        fn no_answer_panics(body: Vec<u8>, field in "[!-~]{0,60}", amount in "\\PC{0,25}", asset in "\\PC{0,6}") {
            let headers = HeaderMap::from_iter([("payment-required".parse().unwrap(), field.parse().unwrap())]);
            let _ = read(&headers, &body, i64::MAX);
            let _ = one(|e| (e["amount"], e["asset"]) = (json!(amount), json!(asset)));
        }
    }
}
