//! Unsigned 256-bit numbers: decimal text on the wire, 32 bytes in a digest.

use std::fmt;

/// A `uint256`. Ordered by value.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct U256([u8; 32]);

impl U256 {
    /// Reads decimal digits: `10000`, `0`. No sign, no leading zero, nothing above 2²⁵⁶ − 1.
    ///
    /// # Errors
    /// [`U256Error`] for anything else.
    pub fn parse(text: &str) -> Result<U256, U256Error> {
        let canonical = text == "0" || !text.starts_with('0');
        if text.is_empty() || !canonical || !text.bytes().all(|b| b.is_ascii_digit()) {
            return Err(U256Error::Shape);
        }
        let mut bytes = [0_u8; 32];
        for digit in text.bytes() {
            let mut carry = u32::from(digit - b'0');
            for byte in bytes.iter_mut().rev() {
                let value = u32::from(*byte) * 10 + carry;
                *byte = (value & 0xff) as u8;
                carry = value >> 8;
            }
            if carry != 0 {
                return Err(U256Error::TooLarge);
            }
        }
        Ok(U256(bytes))
    }

    /// Takes 32 bytes, big-endian.
    pub const fn from_be_bytes(bytes: [u8; 32]) -> U256 {
        U256(bytes)
    }

    /// 32 bytes, big-endian: how ABI encoding has it.
    pub const fn to_be_bytes(self) -> [u8; 32] {
        self.0
    }

    /// The number, when it fits 128 bits.
    pub fn as_u128(self) -> Option<u128> {
        let (high, low) = self.0.split_at(16);
        // The second half of 32 bytes has 16.
        let low: [u8; 16] = low.try_into().ok()?;
        high.iter().all(|b| *b == 0).then(|| u128::from_be_bytes(low))
    }
}

impl From<u128> for U256 {
    fn from(value: u128) -> U256 {
        let mut bytes = [0; 32];
        bytes[16..].copy_from_slice(&value.to_be_bytes());
        U256(bytes)
    }
}

impl From<u64> for U256 {
    fn from(value: u64) -> U256 {
        U256::from(u128::from(value))
    }
}

/// Decimal digits.
impl fmt::Display for U256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (mut rest, mut digits) = (self.0, Vec::with_capacity(78));
        loop {
            let mut remainder = 0_u32;
            for byte in &mut rest {
                let value = remainder << 8 | u32::from(*byte);
                *byte = (value / 10) as u8;
                remainder = value % 10;
            }
            digits.push(char::from(b'0' + remainder as u8));
            if rest == [0; 32] {
                return f.write_str(&digits.iter().rev().collect::<String>());
            }
        }
    }
}

impl fmt::Debug for U256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Why a text is no `uint256`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum U256Error {
    /// Not decimal digits, or with a leading zero.
    #[error("expected decimal digits without a leading zero")]
    Shape,
    /// Above 2²⁵⁶ − 1.
    #[error("more than 256 bits")]
    TooLarge,
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: &str = "115792089237316195423570985008687907853269984665640564039457584007913129639935";

    #[test]
    fn decimal_text_round_trips_up_to_the_largest() {
        for text in ["0", "1", "9", "10", "255", "256", "10000", "340282366920938463463374607431768211456", MAX] {
            assert_eq!(U256::parse(text).unwrap().to_string(), text);
        }
        assert_eq!(U256::parse(MAX).unwrap().to_be_bytes(), [0xff; 32]);
        assert_eq!(U256::parse("340282366920938463463374607431768211455").unwrap().as_u128(), Some(u128::MAX));
        assert_eq!(U256::parse("340282366920938463463374607431768211456").unwrap().as_u128(), None);
        assert_eq!(U256::from(1_700_000_000_u64), U256::parse("1700000000").unwrap());
        assert!(U256::from(256_u64) > U256::from(255_u64));
    }

    #[test]
    fn everything_else_is_refused() {
        for text in ["", "00", "01", "+1", "-1", "1.0", "1e3", "0x1", " 1", "1 ", "٣", "1_0"] {
            assert_eq!(U256::parse(text), Err(U256Error::Shape), "{text:?}");
        }
        let above = format!("{}6", &MAX[..MAX.len() - 1]);
        for text in [above.as_str(), &format!("{MAX}0"), &"9".repeat(10_000)] {
            assert_eq!(U256::parse(text), Err(U256Error::TooLarge));
        }
    }
}
