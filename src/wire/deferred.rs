//! The fields of the `deferred` scheme: `Payment` in, `Payment-Response` out.
//!
//! ```text
//! Payment: scheme="deferred", network="example-network-provider", id="abc123"
//! Payment-Response: scheme="deferred", network="example-network-provider", id="abc123", timestamp=1730872968
//! ```

use sfv::{BareItem, DictSerializer, Dictionary, Integer, KeyRef, ListEntry, Parser, StringRef};

/// Longest `id` that is read.
pub const ID_BYTES_MAX: usize = 256;

/// A payment that a client presents. Unknown members are ignored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payment {
    /// `deferred`.
    pub scheme: String,
    /// The network of the offer.
    pub network: String,
    /// The id of the offer, `A-Za-z0-9_-`, at most [`ID_BYTES_MAX`] bytes.
    pub id: String,
}

/// Why a `Payment` field can't be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PaymentError {
    /// Not a dictionary.
    #[error("expected `scheme=\"deferred\", network=\"…\", id=\"…\"`: {0}")]
    Syntax(String),
    /// A member is absent.
    #[error("member `{0}` is missing")]
    Missing(&'static str),
    /// A member is neither a String nor a Token.
    #[error("member `{0}` is not a string")]
    Type(&'static str),
    /// The id is too long or has other characters.
    #[error("`id` must be 1 to {ID_BYTES_MAX} characters of A-Z a-z 0-9 _ -")]
    Id,
}

impl Payment {
    /// Reads the field's value, all lines joined by `, `. Tokens are accepted for strings.
    ///
    /// # Errors
    /// Says which member is wrong.
    pub fn parse(text: &str) -> Result<Payment, PaymentError> {
        let dictionary: Dictionary =
            Parser::new(text).parse().map_err(|e: sfv::Error| PaymentError::Syntax(e.to_string()))?;
        let member = |name: &'static str| match dictionary.get(name) {
            None => Err(PaymentError::Missing(name)),
            Some(ListEntry::Item(item)) => match &item.bare_item {
                BareItem::String(text) => Ok(text.as_str().to_owned()),
                BareItem::Token(text) => Ok(text.as_str().to_owned()),
                _ => Err(PaymentError::Type(name)),
            },
            Some(ListEntry::InnerList(_)) => Err(PaymentError::Type(name)),
        };
        let payment = Payment { scheme: member("scheme")?, network: member("network")?, id: member("id")? };
        let id_ok = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
        if payment.id.is_empty() || payment.id.len() > ID_BYTES_MAX || !payment.id.bytes().all(id_ok) {
            return Err(PaymentError::Id);
        }
        Ok(payment)
    }

    /// The field's value; `None` when a member holds bytes that no structured-field string can (outside printable ASCII).
    pub fn to_field(&self) -> Option<String> {
        self.dictionary()?.finish()
    }

    /// The value of `Payment-Response` for this payment; `timestamp` in Unix seconds.
    pub fn response_field(&self, timestamp: i64) -> Option<String> {
        let mut dictionary = self.dictionary()?;
        dictionary.bare_item(KeyRef::from_str("timestamp").ok()?, Integer::try_from(timestamp).ok()?);
        dictionary.finish()
    }

    fn dictionary(&self) -> Option<DictSerializer<String>> {
        let mut dictionary = DictSerializer::new();
        for (key, value) in [("scheme", &self.scheme), ("network", &self.network), ("id", &self.id)] {
            dictionary.bare_item(KeyRef::from_str(key).ok()?, StringRef::from_str(value).ok()?);
        }
        Some(dictionary)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_and_tokens_are_read_and_strings_written() {
        let expect = Payment { scheme: "deferred".into(), network: "tollgate:x".into(), id: "abc123".into() };
        for text in [
            r#"scheme="deferred", network="tollgate:x", id="abc123""#,
            r#"scheme=deferred,network=tollgate:x,id=abc123;p=1, other=(1 2)"#,
        ] {
            assert_eq!(Payment::parse(text).as_ref(), Ok(&expect), "{text}");
        }
        assert_eq!(expect.to_field().unwrap(), r#"scheme="deferred", network="tollgate:x", id="abc123""#);
        assert_eq!(
            expect.response_field(1730872968).unwrap(),
            r#"scheme="deferred", network="tollgate:x", id="abc123", timestamp=1730872968"#
        );
    }

    #[test]
    fn everything_else_is_refused() {
        for text in [
            "",
            "deferred",
            r#"scheme="deferred", network="n""#,
            r#"scheme="deferred", network="n", id=1"#,
            r#"scheme="deferred", network="n", id=("a")"#,
            r#"scheme="deferred", network="n", id="a b""#,
            r#"scheme="deferred", network="n", id="""#,
            r#"scheme="deferred", network="n" id="a""#,
        ] {
            assert!(Payment::parse(text).is_err(), "{text:?} was accepted");
        }
        let long = format!(r#"scheme=d, network=n, id="{}""#, "a".repeat(ID_BYTES_MAX + 1));
        assert_eq!(Payment::parse(&long), Err(PaymentError::Id));
    }
}
