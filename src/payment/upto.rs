//! What an origin takes of an `upto` payment: the client signs a maximum, the answer names the amount.
//!
//! ```text
//! Settlement-Overrides: {"amount":"4000"}      what the official middlewares read
//! PAYMENT-SETTLEMENT: {"amount":"4000"}        what Cloudflare's gateway reads
//! ```
//!
//! `amount` is text: atomic units (`"4000"`), hundredths of the maximum (`"40%"`, at most two decimals, rounded down), or
//! dollars (`"$0.004"`, for tokens that are worth dollars, rounded down). Absent or above it, the maximum is taken.
//! Source: `resolveSettlementOverrideAmount` of `@x402/core` 2.27; x402 `specs/schemes/upto/scheme_upto.md`.

use http::HeaderMap;

use super::token::{DECIMALS_MAX, Token};
use crate::wire::amount::Units;
use crate::wire::x402::json;

/// The scheme.
pub const SCHEME: &str = "upto";
/// The fields, in either of which the amount may stand.
pub const FIELDS: [&str; 2] = ["settlement-overrides", "payment-settlement"];
/// Longest field that is read, bytes.
const FIELD_BYTES_MAX: usize = 1024;
/// Hundredths of a percent that are everything.
const WHOLE: u128 = 10_000;
/// Most decimals of a dollar that are read.
const DOLLAR_DECIMALS_MAX: usize = DECIMALS_MAX as usize;

/// What an origin said in its fields, to be judged once it is known for which payment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said(Result<String, SaidError>);

/// What is settled of a payment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Actual {
    /// In ledger units, at most the maximum.
    pub units: Units,
    /// In the token's smallest unit: the same.
    pub atomic: u128,
    /// More was named than was signed; the maximum is settled.
    pub capped: bool,
}

/// Why what an origin said is not followed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SaidError {
    /// The field stands twice, or both do and differ.
    #[error("the amount is named twice")]
    Twice,
    /// Not `{"amount":"…"}`.
    #[error("expected {{\"amount\":\"4000\"}}, with the amount as text")]
    Form,
    /// Not one of the three forms.
    #[error("expected atomic units such as `4000`, `40%`, or `$0.004` for a token worth dollars; found `{0}`")]
    Amount(String),
}

impl Said {
    /// What stands in an answer's fields; `None` where there is nothing.
    pub fn of(headers: &HeaderMap) -> Option<Said> {
        let lines: Vec<&[u8]> = FIELDS.iter().flat_map(|name| headers.get_all(*name)).map(|v| v.as_bytes()).collect();
        let (first, others) = lines.split_first()?;
        // Both fields may say the same.
        let repeated = FIELDS.iter().any(|name| headers.get_all(*name).iter().nth(1).is_some());
        let amount = |line: &[u8]| {
            let read = (line.len() <= FIELD_BYTES_MAX).then(|| json::parse(line).ok()).flatten();
            read.and_then(|value| Some(value.get("amount")?.as_str()?.to_owned())).ok_or(SaidError::Form)
        };
        Some(Said(match amount(first) {
            Ok(text) if !repeated && others.iter().all(|other| amount(other).as_ref() == Ok(&text)) => Ok(text),
            Ok(_) => Err(SaidError::Twice),
            Err(error) => Err(error),
        }))
    }

    /// What to settle of `maximum` in `token`, rounded down to what the books can hold.
    ///
    /// # Errors
    /// What is wrong with what was said.
    pub fn actual(&self, token: &Token, maximum: Units) -> Result<Actual, SaidError> {
        let text = self.0.as_ref().map_err(Clone::clone)?;
        let most = token.atomic(maximum);
        let unread = || SaidError::Amount(text.chars().take(40).collect());
        let atomic = if let Some(percent) = text.strip_suffix('%') {
            let hundredths = decimal(percent, 2).ok_or_else(unread)?;
            // 10²⁸ at most: ledger units are 64 bits, and a token has at most 24 decimals.
            most.checked_mul(hundredths).map(|scaled| scaled / WHOLE)
        } else if let Some(dollars) = text.strip_prefix('$').filter(|_| token.currency.as_str() == "USD") {
            let finest = decimal(dollars, DOLLAR_DECIMALS_MAX).ok_or_else(unread)?;
            let finer = DOLLAR_DECIMALS_MAX.saturating_sub(token.decimals as usize);
            10_u128.checked_pow(finer as u32).map(|step| finest / step)
        } else {
            whole(text).ok_or_else(unread)?
        };
        // The client signed no more, whatever the origin would like.
        let within = atomic.filter(|atomic| *atomic <= most);
        let units = token.units_below(within.unwrap_or(most)).unwrap_or_default();
        Ok(Actual { units, atomic: token.atomic(units), capped: within.is_none() })
    }
}

/// Digits only; the inner `None` is more than 128 bits hold.
fn whole(text: &str) -> Option<Option<u128>> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| text.parse().ok())
}

/// `12.5` with `decimals` 2 is 1250; at most so many decimals.
fn decimal(text: &str, decimals: usize) -> Option<u128> {
    let (front, back) = text.split_once('.').unwrap_or((text, ""));
    let is_digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    if front.is_empty() || back.len() > decimals || !is_digits(front) || !is_digits(back) {
        return None;
    }
    format!("{front}{back:0<decimals$}").parse().ok()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::payment::token::Transfer;
    use crate::wire::amount::{Currency, Money};
    use crate::wire::x402::network::Network;

    fn token(decimals: u32, currency: &str) -> Arc<Token> {
        let network = Network::parse("eip155:84532").unwrap();
        let address = "0x036CbD53842c5426634e7929541eC2318f3dCF7e";
        Arc::new(Token {
            book: Token::book_name(&network, address),
            network,
            address: address.into(),
            symbol: "USDC".into(),
            decimals,
            currency: Currency::parse(currency).unwrap(),
            pay_to: "0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC".into(),
            transfer: Transfer::Eip3009 { name: "USDC".into(), version: "2".into() },
            facilitator: None,
        })
    }

    fn said(lines: &[(&'static str, &str)]) -> Option<Said> {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, value.parse().unwrap());
        }
        Said::of(&headers)
    }

    /// Of 0.01, in a token of 6 decimals.
    fn of_a_cent(amount: &str) -> Result<u128, SaidError> {
        let token = token(6, "USD");
        let maximum = token.units(Money::parse("0.01 USD").unwrap()).unwrap();
        let line = serde_json::json!({ "amount": amount }).to_string();
        said(&[(FIELDS[0], &line)]).unwrap().actual(&token, maximum).map(|actual| actual.atomic)
    }

    #[test]
    fn the_three_forms_are_read() {
        for (amount, atomic) in [
            ("4000", 4000),
            ("0", 0),
            ("10000", 10_000),
            ("0004000", 4000),
            ("40%", 4000),
            ("100%", 10_000),
            ("0%", 0),
            ("33.33%", 3333),
            ("0.01%", 1),
            ("99.", 0),
            ("0.009%", 0),
            ("$0.004", 4000),
            ("$0.01", 10_000),
            ("$0.0000019", 1),
            ("$0", 0),
        ] {
            match amount {
                "99." | "0.009%" => assert!(matches!(of_a_cent(amount), Err(SaidError::Amount(_))), "{amount}"),
                _ => assert_eq!(of_a_cent(amount), Ok(atomic), "{amount}"),
            }
        }
    }

    #[test]
    fn what_is_no_amount_is_refused_and_what_is_too_much_is_the_maximum() {
        for text in ["", "-1", "+1", "1.5", "0x10", "1e3", " 1", "$", "%", "$-1", "$1%", "1 USD", "٣", "$.5", ".5%"] {
            assert!(matches!(of_a_cent(text), Err(SaidError::Amount(_))), "{text}");
        }
        for text in ["10001", "100.01%", "101%", "$0.010001", "$1000000000", &"9".repeat(39), &"9".repeat(99)] {
            assert_eq!(of_a_cent(text), Ok(10_000), "{text}");
        }
        assert!(of_a_cent(&format!("{}%", "9".repeat(60))).is_err());
        let euro = token(6, "EUR");
        let maximum = euro.units(Money::parse("1 EUR").unwrap()).unwrap();
        let dollars = said(&[(FIELDS[0], r#"{"amount":"$0.1"}"#)]).unwrap();
        assert!(matches!(dollars.actual(&euro, maximum), Err(SaidError::Amount(_))), "dollars of a euro");
    }

    #[test]
    fn one_amount_may_stand_in_both_fields_and_nothing_else() {
        let four = r#"{"amount":"4000"}"#;
        let read = |lines: &[(&'static str, &str)]| said(lines).map(|said| said.0);
        assert_eq!(read(&[]), None);
        assert_eq!(read(&[(FIELDS[1], four)]), Some(Ok("4000".into())));
        assert_eq!(read(&[(FIELDS[0], four), (FIELDS[1], r#" {"x":1, "amount" : "4000"}"#)]), Some(Ok("4000".into())));
        assert_eq!(read(&[(FIELDS[0], four), (FIELDS[0], four)]), Some(Err(SaidError::Twice)));
        assert_eq!(read(&[(FIELDS[0], four), (FIELDS[1], r#"{"amount":"4001"}"#)]), Some(Err(SaidError::Twice)));
        assert_eq!(read(&[(FIELDS[0], four), (FIELDS[1], "x")]), Some(Err(SaidError::Twice)));
        for bad in
            ["", "4000", "{}", r#"{"amount":4000}"#, r#"{"amount":"1","amount":"2"}"#, "[]", r#"{"amount":null}"#]
        {
            assert_eq!(read(&[(FIELDS[0], bad)]), Some(Err(SaidError::Form)), "{bad}");
        }
        let long = format!(r#"{{"amount":"1","x":"{}"}}"#, "x".repeat(FIELD_BYTES_MAX));
        assert_eq!(read(&[(FIELDS[0], &long)]), Some(Err(SaidError::Form)));
    }

    #[test]
    fn what_the_books_cannot_hold_is_rounded_down_for_the_payer() {
        let token = token(18, "USD");
        let maximum = token.units(Money::parse("0.01 USD").unwrap()).unwrap();
        let of = |amount: &str| {
            let line = serde_json::json!({ "amount": amount }).to_string();
            said(&[(FIELDS[0], &line)]).unwrap().actual(&token, maximum).unwrap()
        };
        assert_eq!(
            of("4000000000000000"),
            Actual { units: Units::new(4_000_000).unwrap(), atomic: 4_000_000_000_000_000, capped: false }
        );
        assert_eq!(of("4000000000999999").atomic, 4_000_000_000_000_000);
        assert_eq!(of("999999999"), Actual { units: Units::ZERO, atomic: 0, capped: false });
    }

    proptest! {
        #[test]
        fn no_text_panics_or_takes_more_than_was_signed(
            text in r"(\$|)[0-9.]{0,45}(%|)|\PC{0,20}", decimals in 0_u32..=24, units in 0..=Units::MAX.get(),
        ) {
            let token = token(decimals, "USD");
            let maximum = Units::new(units).unwrap();
            if let Ok(actual) = Said(Ok(text)).actual(&token, maximum) {
                prop_assert!(actual.units <= maximum);
                prop_assert_eq!(token.atomic(actual.units), actual.atomic);
            }
        }

        #[test]
        fn no_field_panics(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            if let Ok(value) = http::HeaderValue::from_bytes(&bytes) {
                let mut headers = HeaderMap::new();
                headers.insert(FIELDS[0], value);
                prop_assert!(Said::of(&headers).is_some());
            }
        }
    }
}
