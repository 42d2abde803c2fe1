//! Pay per crawl: a price in a field of its own, which a message signature covers, and charged again with each crawl.
//!
//! ```text
//! 402                     crawler-price: USD 0.01
//! crawler-exact-price: USD 0.01, or crawler-max-price: USD 0.05, and a signature     200  crawler-charged: USD 0.01
//! ```
//!
//! Source: Cloudflare's documentation of AI Crawl Control, `features/pay-per-crawl`.

use http::HeaderMap;

use super::reason::{Reason, Refusal};
use super::signed::{Cover, Server};
use crate::wire::amount::{Currency, Money};

/// The scheme, as the configuration and the books name it.
pub const SCHEME: &str = "crawl";
/// The price, on a 402.
pub const PRICE_FIELD: &str = "crawler-price";
/// What was charged, on a paid answer.
pub const CHARGED_FIELD: &str = "crawler-charged";
/// What is wrong, on a refusal.
pub const ERROR_FIELD: &str = "crawler-error";
/// How a paid request came about, to the origin.
pub const ORIGIN_FIELD: &str = "cf-pay-per-crawl";
/// The price is the gateway's; the origin has no say in it.
pub const ORIGIN_VALUE: &str = "protocol=tollgate, pricing=zone-default";
/// The origin may name the price, in [`PRICE_FIELD`] of its answer.
pub const ORIGIN_VALUE_IN_BAND: &str = "protocol=tollgate, pricing=in-band";
/// `crawler-error` of a request that names no price.
pub const MISSING_PRICE: &str = "MissingCrawlerPrice";

const EXACT: &str = "crawler-exact-price";
const MAX: &str = "crawler-max-price";

/// What proves a bid of exactly the price.
pub const COVER: Cover = Cover { field: EXACT, server: Server::Either, has_id: false, whole: false };

/// What a crawler pays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bid {
    /// `crawler-exact-price`: the price, or nothing.
    Exact(Money),
    /// `crawler-max-price`: at most this.
    Max(Money),
}

/// What an origin's answer says that it costs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named(Result<Money, String>);

impl Named {
    /// What stands in an answer's fields; `None` where there is no price.
    pub fn of(headers: &HeaderMap) -> Option<Named> {
        let mut lines = headers.get_all(PRICE_FIELD).iter();
        let first = lines.next()?;
        let money = first.to_str().ok().and_then(parse).filter(|_| lines.next().is_none());
        Some(Named(money.ok_or_else(|| {
            let shown: String = String::from_utf8_lossy(first.as_bytes()).chars().take(40).collect();
            format!("`{PRICE_FIELD}` must stand once, a currency and an amount such as `USD 0.01`; found `{shown}`")
        })))
    }

    /// The price, which must be in `currency`; nothing is a price, too.
    ///
    /// # Errors
    /// [`Reason::OriginPrice`].
    pub fn price(self, currency: Currency) -> Result<Money, Refusal> {
        let wrong = |detail| Err(Refusal::new(Reason::OriginPrice, detail));
        match self.0 {
            Ok(money) if money.currency == currency => Ok(money),
            Ok(money) => wrong(format!("the origin names {}, the route is in {currency}", text_of(money))),
            Err(detail) => wrong(detail),
        }
    }
}

/// Whether a request pays in this way, rightly or wrongly.
pub fn is_presented(headers: &HeaderMap) -> bool {
    headers.contains_key(EXACT) || headers.contains_key(MAX)
}

impl Bid {
    /// The most that it pays.
    pub fn most(&self) -> Money {
        match self {
            Bid::Exact(money) | Bid::Max(money) => *money,
        }
    }

    /// Reads the one price field that a request carries.
    ///
    /// # Errors
    /// [`Reason::SeveralPayments`] for a repeated one, [`Reason::InvalidPayment`] for one that is no amount.
    pub fn read(headers: &HeaderMap, name: &'static str) -> Result<Bid, Refusal> {
        let mut lines = headers.get_all(name).iter();
        let (Some(line), None) = (lines.next(), lines.next()) else {
            return Err(Refusal::new(Reason::SeveralPayments, format!("`{name}` stands more than once")));
        };
        let money = line.to_str().ok().and_then(parse);
        let money = money.ok_or_else(|| {
            Refusal::new(
                Reason::InvalidPayment,
                format!("`{name}` must be a currency and an amount such as `USD 0.01`"),
            )
        })?;
        Ok(if name == EXACT { Bid::Exact(money) } else { Bid::Max(money) })
    }

    /// What a signature must cover to prove it.
    pub fn cover(&self) -> Cover {
        let field = match self {
            Bid::Exact(_) => EXACT,
            Bid::Max(_) => MAX,
        };
        Cover { field, ..COVER }
    }

    /// Whether it pays this price; never more than the price is charged.
    ///
    /// # Errors
    /// [`Reason::PriceNotAcceptable`].
    pub fn pays(&self, price: Money) -> Result<(), Refusal> {
        let (bid, pays, word) = match self {
            Bid::Exact(bid) => (bid, bid.units == price.units, "InvalidCrawlerExactPrice"),
            Bid::Max(bid) => (bid, bid.units >= price.units, "InvalidCrawlerMaxPrice"),
        };
        if pays && bid.currency == price.currency {
            return Ok(());
        }
        let detail = format!("the price is {}, offered are {}", text_of(price), text_of(*bid));
        Err(Refusal::new(Reason::PriceNotAcceptable, detail).error(word))
    }
}

/// Reads `USD 0.01`; the currency in any case, and as many zeros at the end as one likes.
fn parse(text: &str) -> Option<Money> {
    let (currency, amount) = text.split_once(' ')?;
    Money::parse(&format!("{amount} {currency}")).ok()
}

/// `USD 0.01`
pub fn text_of(money: Money) -> String {
    let text = money.to_string();
    match text.split_once(' ') {
        Some((amount, currency)) => format!("{currency} {amount}"),
        None => text,
    }
}

/// `crawler-error` for a refusal that says nothing more exact. Reasons that are not the crawler's fault are
/// `InternalError`: come back later.
pub fn word(reason: Reason) -> &'static str {
    match reason {
        Reason::Blocked | Reason::AgentBlocked | Reason::SignatureAgentUnknown => "CrawlerForbidden",
        Reason::SignatureRequired => "StrongAuthRequired",
        Reason::InvalidSignature | Reason::SignatureExpired | Reason::SignatureUsed => "InvalidSignature",
        Reason::InvalidPayment => "InvalidCrawlerPriceValue",
        Reason::SeveralPayments => "ConflictingPriceHeaders",
        Reason::PaymentFailed => "PaymentFailed",
        Reason::OriginPrice => "InvalidContentPrice",
        _ => "InternalError",
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;
    use crate::payment::presented::{Presented, presented};
    use crate::payment::signed::{Rules, candidates};
    use crate::wire::jwk::PublicKey;
    use crate::wire::signature::RequestView;

    const RULES: Rules =
        Rules { skew: 30, window: 86_400, require_authority: false, require_path: false, lenient_signature: true };

    #[test]
    fn the_golden_payment_holds() {
        let text = include_str!("../../tests/wire/signature/pay_per_crawl.txt");
        let lines = text.split_once("\n\n").unwrap().1.lines().skip(1).map_while(|l| l.trim_end().split_once(": "));
        let field = |(n, v): (&str, &str)| {
            (http::HeaderName::from_bytes(n.as_bytes()).unwrap(), HeaderValue::from_str(v).unwrap())
        };
        let headers: HeaderMap = lines.map(field).collect();
        let Presented::Crawl(bid) = presented(&headers).unwrap() else { panic!("no crawl") };
        assert_eq!(bid.pays(Money::parse("0.01 USD").unwrap()), Ok(()));
        let view = RequestView {
            method: "GET",
            scheme: "https",
            authority: "example.com",
            path: "/",
            query: None,
            headers: &headers,
        };
        let candidate = candidates(&view, &bid.cover(), &RULES, 1_700_000_010_000).unwrap().remove(0);
        let key = PublicKey::from_x("JrQLj5P_89iXES9-vFgrIy29clF9CC_oPPsw3c5D0bs").unwrap();
        assert!(key.verifies(candidate.base.as_bytes(), &candidate.signature) && !candidate.names_request);
    }

    #[test]
    fn prices_are_compared_as_numbers() {
        let price = Money::parse("0.01 USD").unwrap();
        let check = |name, text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(name, text.parse().unwrap());
            let paid = Bid::read(&headers, name).and_then(|bid| bid.pays(price));
            paid.map_err(|refusal| refusal.error.map_or(word(refusal.reason).to_owned(), Into::into))
        };
        for text in ["USD 0.01", "USD 0.010", "usd 0.01", "Usd 0.01000000000"] {
            assert_eq!(check(EXACT, text), Ok(()), "{text}");
            assert_eq!(check(MAX, text), Ok(()), "{text}");
        }
        for text in ["USD 0.011", "USD 0.009", "EUR 0.01", "USD 0", "USD 1"] {
            assert_eq!(check(EXACT, text), Err("InvalidCrawlerExactPrice".into()), "{text}");
        }
        assert_eq!(check(MAX, "USD 1"), Ok(()));
        for text in ["USD 0.009", "EUR 1", "USD 0"] {
            assert_eq!(check(MAX, text), Err("InvalidCrawlerMaxPrice".into()), "{text}");
        }
        for text in
            ["", "USD", "0.01", "0.01 USD", "USD  0.01", "USD 0.01 ", "USD -1", "USD 1e3", "USD 0.0000001", "$1"]
        {
            assert_eq!(check(EXACT, text), Err("InvalidCrawlerPriceValue".into()), "{text}");
        }
    }

    #[test]
    fn an_origin_names_one_price_in_the_routes_currency() {
        let usd = Currency::parse("USD").unwrap();
        let named = |lines: &[&str]| {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(PRICE_FIELD, line.parse().unwrap());
            }
            Named::of(&headers).map(|named| named.price(usd).map(text_of).map_err(|refusal| refusal.reason))
        };
        assert_eq!(named(&[]), None);
        assert_eq!(named(&["USD 0.05"]), Some(Ok("USD 0.05".into())));
        assert_eq!(named(&["usd 0"]), Some(Ok("USD 0.00".into())));
        for bad in [&["0.05 USD"][..], &["USD -1"], &[""], &["EUR 0.05"], &["USD 0.05", "USD 0.05"], &["USD 1e3"]] {
            assert_eq!(named(bad), Some(Err(Reason::OriginPrice)), "{bad:?}");
        }
    }

    #[test]
    fn prices_are_shown_as_crawlers_write_them() {
        for (price, shown) in [("0.01 USD", "USD 0.01"), ("0.001 EUR", "EUR 0.001"), ("150 JPY", "JPY 150")] {
            assert_eq!(text_of(Money::parse(price).unwrap()), shown);
            assert_eq!(parse(shown), Money::parse(price).ok());
        }
    }
}
