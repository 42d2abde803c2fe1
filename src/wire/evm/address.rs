//! Addresses: 20 bytes, `0x` and 40 hex digits on the wire.

use std::fmt;

use super::eip712::keccak256;
use super::{from_hex, to_hex};

/// An address of an account or a contract. Two are equal when their bytes are, whatever the case of their text.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address([u8; 20]);

impl Address {
    /// Takes 20 bytes.
    pub const fn new(bytes: [u8; 20]) -> Address {
        Address(bytes)
    }

    /// Reads `0x` and 40 hex digits of any case. The checksum of mixed case is not checked: x402 compares without case,
    /// and official clients pay to addresses with a wrong one.
    ///
    /// # Errors
    /// [`AddressError`] for anything else.
    pub fn parse(text: &str) -> Result<Address, AddressError> {
        let bytes = from_hex(text).and_then(|bytes| bytes.try_into().ok());
        bytes.map(Address).ok_or(AddressError)
    }

    /// The bytes.
    pub const fn as_bytes(&self) -> &[u8; 20] {
        &self.0
    }
}

/// With the checksum of EIP-55: `0x036CbD53842c5426634e7929541eC2318f3dCF7e`.
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lower = to_hex(&self.0);
        let hash = keccak256(&[&lower.as_bytes()[2..]]);
        f.write_str("0x")?;
        for (i, digit) in lower.chars().skip(2).enumerate() {
            let nibble = if i % 2 == 0 { hash[i / 2] >> 4 } else { hash[i / 2] & 15 };
            write!(f, "{}", if nibble >= 8 { digit.to_ascii_uppercase() } else { digit })?;
        }
        Ok(())
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A text is no address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected an address, `0x` and 40 hex digits")]
pub struct AddressError;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_case_is_read_and_the_checksum_of_eip_55_written() {
        // The examples of EIP-55.
        for text in [
            "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed",
            "0xfB6916095ca1df60bB79Ce92cE3Ea74c37c5d359",
            "0xdbF03B407c01E7cD3CBea99509d93f8DDDC8C6FB",
            "0xD1220A0cf47c7B9Be7A2E6BA89F429762e7b9aDb",
            "0x52908400098527886E0F7030069857D2E4169EE7",
            "0xde709f2102306220921060314715629080e2fb77",
        ] {
            let digits = &text[2..];
            for spelling in [digits.to_owned(), digits.to_lowercase(), digits.to_uppercase()] {
                assert_eq!(Address::parse(&format!("0x{spelling}")).unwrap().to_string(), text);
            }
        }
    }

    #[test]
    fn everything_else_is_refused() {
        let good = "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed";
        for text in [
            "",
            "0x",
            &good[2..],
            &good[..41],
            &format!("{good}0"),
            &format!("{good}00"),
            &good.replace("0x", "0X"),
            &good.replace('5', "g"),
            &format!(" {good}"),
            &good.replace("5a", "é"),
        ] {
            assert_eq!(Address::parse(text), Err(AddressError), "{text:?}");
        }
    }
}
