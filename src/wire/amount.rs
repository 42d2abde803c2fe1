//! Money: decimal text ↔ integer units of a currency ↔ atomic amounts on the wire.
//!
//! There is no floating point anywhere. The books count in [`Units`], millionths of a fiat unit; the wire counts in
//! the smallest unit that the asset's name promises: `USD` in cents, `USD6` in millionths.

use std::fmt;
use std::sync::Arc;

/// Decimals of a ledger unit: one unit is 10⁻⁶ of the currency.
pub const LEDGER_DECIMALS: u32 = 6;
/// Largest amount that the books hold in one posting: 9.2 trillion of a currency, less one unit of headroom.
pub const UNITS_MAX: i64 = i64::MAX / 2;

/// An amount in ledger units (10⁻⁶ of a currency), `0..=UNITS_MAX`; `10_000` is 0.01 USD.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Units(i64);

impl Units {
    /// No money.
    pub const ZERO: Units = Units(0);
    /// The most that the books hold.
    pub const MAX: Units = Units(UNITS_MAX);

    /// Takes a count of ledger units; `None` when negative or above [`UNITS_MAX`].
    pub const fn new(units: i64) -> Option<Units> {
        if units < 0 || units > UNITS_MAX { None } else { Some(Units(units)) }
    }

    /// The count, never negative.
    pub const fn get(self) -> i64 {
        self.0
    }

    /// Sum, or `None` above [`UNITS_MAX`].
    pub fn checked_add(self, other: Units) -> Option<Units> {
        self.0.checked_add(other.0).and_then(Units::new)
    }

    /// Difference, or `None` below zero.
    pub fn checked_sub(self, other: Units) -> Option<Units> {
        self.0.checked_sub(other.0).and_then(Units::new)
    }
}

/// Alphabetic codes of ISO 4217, without metals and codes for no currency.
const ACTIVE: &str = "AED AFN ALL AMD AOA ARS AUD AWG AZN BAM BBD BDT BHD BIF BMD BND BOB BOV BRL BSD BTN BWP BYN BZD \
                      CAD CDF CHE CHF CHW CLF CLP CNY COP COU CRC CUP CVE CZK DJF DKK DOP DZD EGP ERN ETB EUR FJD FKP \
                      GBP GEL GHS GIP GMD GNF GTQ GYD HKD HNL HTG HUF IDR ILS INR IQD IRR ISK JMD JOD JPY KES KGS KHR \
                      KMF KPW KRW KWD KYD KZT LAK LBP LKR LRD LSL LYD MAD MDL MGA MKD MMK MNT MOP MRU MUR MVR MWK MXN \
                      MXV MYR MZN NAD NGN NIO NOK NPR NZD OMR PAB PEN PGK PHP PKR PLN PYG QAR RON RSD RUB RWF SAR SBD \
                      SCR SDG SEK SGD SHP SLE SOS SRD SSP STN SVC SYP SZL THB TJS TMT TND TOP TRY TTD TWD TZS UAH UGX \
                      USD USN UYI UYU UYW UZS VED VES VND VUV WST XAF XCD XCG XDR XOF XPF XSU XUA YER ZAR ZMW ZWG";

/// An ISO 4217 code, three upper-case letters: `USD`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Currency([u8; 3]);

impl Currency {
    /// Reads `USD` (any case is accepted, as in pay per crawl).
    ///
    /// # Errors
    /// [`AmountError::Currency`] unless it is exactly three ASCII letters.
    pub fn parse(text: &str) -> Result<Currency, AmountError> {
        let bytes: [u8; 3] = text.as_bytes().try_into().map_err(|_| AmountError::Currency(text.to_owned()))?;
        if !bytes.iter().all(u8::is_ascii_alphabetic) {
            return Err(AmountError::Currency(text.to_owned()));
        }
        Ok(Currency(bytes.map(|b| b.to_ascii_uppercase())))
    }

    /// `"USD"`.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or("???")
    }

    /// Whether the code stands for a currency in use (ISO 4217, list one, January 2026).
    pub fn is_active(&self) -> bool {
        ACTIVE.split(' ').any(|code| code.as_bytes() == self.0)
    }

    /// Decimals of the currency's minor unit (ISO 4217): 2 for USD, 0 for JPY, 3 for KWD.
    pub fn minor_decimals(&self) -> u32 {
        match &self.0 {
            b"BIF" | b"CLP" | b"DJF" | b"GNF" | b"ISK" | b"JPY" | b"KMF" | b"KRW" | b"PYG" | b"RWF" | b"UGX"
            | b"VND" | b"VUV" | b"XAF" | b"XOF" | b"XPF" => 0,
            b"BHD" | b"IQD" | b"JOD" | b"KWD" | b"LYD" | b"OMR" | b"TND" => 3,
            _ => 2,
        }
    }
}

impl fmt::Display for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What an amount in the books is of.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Asset {
    /// `USD`, in units of 10⁻⁶.
    Currency(Currency),
    /// A token by its CAIP-19 name, `eip155:8453/erc20:0x833589fcd6edb6e08f4c7c32d4f71b54bda02913`, in units of
    /// 10^-min(decimals, 9).
    Token(Arc<str>),
    /// `prepaid:USD`, money that was paid in beforehand, in units of 10⁻⁶.
    Prepaid(Prepaid),
    /// `requests`, of which an account has so many without charge; a unit is one.
    Requests,
}

impl Asset {
    /// As the books name [`Asset::Requests`].
    pub const REQUESTS: &'static str = "requests";

    /// Reads what the books hold; `None` for anything else.
    pub fn parse(text: &str) -> Option<Asset> {
        if text == Asset::REQUESTS {
            return Some(Asset::Requests);
        }
        if let Some(currency) = text.strip_prefix(Prepaid::PREFIX) {
            return Currency::parse(currency).ok().map(|currency| Asset::Prepaid(Prepaid::of(currency)));
        }
        match Currency::parse(text) {
            Ok(currency) => Some(Asset::Currency(currency)),
            Err(_) => (text.contains(':') && text.contains('/')).then(|| Asset::Token(text.into())),
        }
    }

    /// As the books hold it.
    pub fn as_str(&self) -> &str {
        match self {
            Asset::Currency(currency) => currency.as_str(),
            Asset::Token(name) => name,
            Asset::Prepaid(prepaid) => prepaid.as_str(),
            Asset::Requests => Asset::REQUESTS,
        }
    }

    /// The currency that its amounts are of.
    pub fn currency(&self) -> Option<Currency> {
        match self {
            Asset::Currency(currency) => Some(*currency),
            Asset::Prepaid(prepaid) => Some(prepaid.currency()),
            Asset::Token(_) | Asset::Requests => None,
        }
    }

    /// Whether whoever bought has paid for it before, so that nothing of it is owed.
    pub fn is_paid_before(&self) -> bool {
        matches!(self, Asset::Prepaid(_) | Asset::Requests)
    }
}

/// A currency that was paid in beforehand: `prepaid:USD`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prepaid([u8; 11]);

impl Prepaid {
    const PREFIX: &'static str = "prepaid:";

    /// Of this currency.
    pub fn of(currency: Currency) -> Prepaid {
        let mut name = *b"prepaid:???";
        name[Prepaid::PREFIX.len()..].copy_from_slice(&currency.0);
        Prepaid(name)
    }

    /// The currency.
    pub fn currency(&self) -> Currency {
        Currency([self.0[8], self.0[9], self.0[10]])
    }

    /// `"prepaid:USD"`.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or("prepaid:???")
    }
}

impl fmt::Display for Asset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Asset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl From<Currency> for Asset {
    fn from(currency: Currency) -> Asset {
        Asset::Currency(currency)
    }
}

/// An amount of a currency; `"0.01 USD"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Money {
    /// How much, in ledger units.
    pub units: Units,
    /// Of what.
    pub currency: Currency,
}

/// An amount as offers carry it: an integer of the asset's smallest unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WireAmount {
    /// Count of the asset's smallest unit, `1` for one cent.
    pub amount: u128,
    /// Which currency.
    pub currency: Currency,
    /// True when the asset is named with the suffix `6` and counts millionths.
    pub millionths: bool,
}

impl WireAmount {
    /// `USD`, or `USD6` when it counts millionths.
    pub fn asset(&self) -> String {
        if self.millionths { format!("{}6", self.currency) } else { self.currency.to_string() }
    }

    /// Decimals of the asset's smallest unit: 2 for `USD`, 6 for `USD6`.
    pub fn decimals(&self) -> u32 {
        if self.millionths { LEDGER_DECIMALS } else { self.currency.minor_decimals() }
    }
}

impl Money {
    /// Reads decimal text with a currency: `0.001 USD`, `5 EUR`.
    ///
    /// Digits, at most one point, at most six decimals; no sign, no exponent, no leading zero before another digit,
    /// exactly one space.
    ///
    /// # Errors
    /// Says what is wrong, with the text that arrived.
    pub fn parse(text: &str) -> Result<Money, AmountError> {
        let (number, currency) = text.split_once(' ').ok_or_else(|| AmountError::Shape(text.to_owned()))?;
        Ok(Money { currency: Currency::parse(currency)?, units: parse_decimal(number, LEDGER_DECIMALS)? })
    }

    /// The amount as an offer carries it: whole minor units as `USD`, anything finer as `USD6`.
    pub fn wire(&self) -> WireAmount {
        let step = 10_i64.pow(LEDGER_DECIMALS - self.currency.minor_decimals());
        let millionths = self.units.get() % step != 0;
        let amount = if millionths { self.units.get() } else { self.units.get() / step };
        // A count of units is never negative.
        WireAmount { amount: amount.unsigned_abs().into(), currency: self.currency, millionths }
    }
}

impl fmt::Display for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let minor = self.currency.minor_decimals() as usize;
        let (whole, part) = (self.units.get() / 1_000_000, self.units.get() % 1_000_000);
        let digits = format!("{part:06}");
        let kept = digits.trim_end_matches('0').len().max(minor);
        if kept == 0 {
            write!(f, "{whole} {}", self.currency)
        } else {
            write!(f, "{whole}.{} {}", &digits[..kept], self.currency)
        }
    }
}

/// Decimal digits → units of 10^-`decimals`; no sign, exponent or superfluous zero.
///
/// # Errors
/// Says what is wrong, with the text that arrived.
pub fn parse_decimal(text: &str, decimals: u32) -> Result<Units, AmountError> {
    let shape = || AmountError::Shape(text.to_owned());
    let (whole, part) = text.split_once('.').unwrap_or((text, "0"));
    let all_digits = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
    if !all_digits(whole) || !all_digits(part) || (whole.len() > 1 && whole.starts_with('0')) {
        return Err(shape());
    }
    let significant = part.trim_end_matches('0');
    if significant.len() > decimals as usize {
        return Err(AmountError::Precision { text: text.to_owned(), decimals });
    }
    let too_large = || AmountError::TooLarge(text.to_owned());
    let scale = 10_i64.pow(decimals);
    let whole: i64 = whole.parse().map_err(|_| too_large())?;
    let part: i64 = format!("{significant:0<width$}", width = decimals as usize).parse().map_err(|_| too_large())?;
    whole.checked_mul(scale).and_then(|w| w.checked_add(part)).and_then(Units::new).ok_or_else(too_large)
}

/// Why a text is no amount of money.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AmountError {
    /// Not `DIGITS[.DIGITS] CODE`.
    #[error("expected an amount such as `0.01 USD`, found `{0}`")]
    Shape(String),
    /// The code is not three letters.
    #[error("expected a three-letter currency such as `USD`, found `{0}`")]
    Currency(String),
    /// Finer than the books can hold.
    #[error("`{text}` has more than {decimals} decimals, the finest that the ledger keeps")]
    Precision {
        /// What arrived.
        text: String,
        /// The most that is allowed.
        decimals: u32,
    },
    /// Above [`UNITS_MAX`].
    #[error("`{0}` is more than the ledger can hold")]
    TooLarge(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, asset: &str, amount: u128, shown: &str) {
        let money = Money::parse(text).unwrap_or_else(|e| panic!("{text}: {e}"));
        let wire = money.wire();
        assert_eq!((wire.asset().as_str(), wire.amount, money.to_string().as_str()), (asset, amount, shown), "{text}");
    }

    #[test]
    fn whole_cents_are_usd_and_anything_finer_is_usd6() {
        check("0.01 USD", "USD", 1, "0.01 USD");
        check("0.010 usd", "USD", 1, "0.01 USD");
        check("12 USD", "USD", 1200, "12.00 USD");
        check("0.001 USD", "USD6", 1000, "0.001 USD");
        check("0.000001 EUR", "EUR6", 1, "0.000001 EUR");
        check("150 JPY", "JPY", 150, "150 JPY");
        check("0.5 JPY", "JPY6", 500_000, "0.5 JPY");
        check("0.005 KWD", "KWD", 5, "0.005 KWD");
        check("0 USD", "USD", 0, "0.00 USD");
    }

    #[test]
    fn assets_read_back_and_each_name_has_one_meaning() {
        let usd = Currency::parse("USD").unwrap();
        let prepaid = Asset::Prepaid(Prepaid::of(usd));
        for asset in [usd.into(), prepaid.clone(), Asset::Requests, Asset::Token("eip155:1/erc20:0x1".into())] {
            assert_eq!(Asset::parse(asset.as_str()), Some(asset.clone()));
        }
        assert_eq!((prepaid.as_str(), prepaid.currency()), ("prepaid:USD", Some(usd)));
        assert_eq!(["prepaid:", "prepaid:USDC", "Requests", "token"].map(Asset::parse), [const { None }; 4]);
    }

    #[test]
    fn everything_else_is_refused() {
        for text in [
            "",
            "USD",
            "0.01",
            "1e3 USD",
            "+1 USD",
            "-1 USD",
            "01 USD",
            "1. USD",
            ".5 USD",
            "1,5 USD",
            "0.01  USD",
            " 1 USD",
            "1 USD ",
            "0x1 USD",
            "1 US",
            "1 USDC",
            "1 U$D",
            "1.2.3 USD",
            "٣ USD",
            "1_000 USD",
            "NaN USD",
            "0.0000001 USD",
            "9223372036855 USD",
            "340282366920938463463374607431768211456 USD",
        ] {
            assert!(Money::parse(text).is_err(), "{text:?} was accepted");
        }
    }
}
