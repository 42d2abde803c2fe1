//! What the `exact` scheme needs of Ethereum: addresses, 256-bit numbers, typed-data digests and secp256k1 signatures.
//! No chain is asked for anything.

pub mod address;
pub mod ecdsa;
pub mod eip3009;
pub mod eip712;
pub mod permit2;
pub mod u256;

/// The bytes of `0x` and hex digits of any case; `None` for anything else or an odd count.
pub fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits = text.strip_prefix("0x")?.as_bytes();
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let pairs = digits.chunks(2).map(|pair| match pair {
        // A hex digit is below 16, so two of them fit a byte.
        [high, low] => Some((digit(*high)? * 16 + digit(*low)?) as u8),
        _ => None,
    });
    pairs.collect()
}

/// `0x` and two lower-case hex digits a byte.
pub fn to_hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    let mut text = String::with_capacity(2 + 2 * bytes.len());
    text.push_str("0x");
    for byte in bytes {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}
