//! x402, versions 1 and 2, of the schemes that move tokens: what a client sends, what is asked of it, what a facilitator
//! answers.

pub mod assets;
pub mod facilitator;
pub mod json;
pub mod network;
pub mod payload;
pub mod receipt;
pub mod requirements;
pub mod svm;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

/// The version of the protocol that a client speaks; v1 pays with `X-PAYMENT`, v2 with `PAYMENT-SIGNATURE`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Version {
    /// `X-PAYMENT`, `X-PAYMENT-RESPONSE`.
    V1,
    /// `PAYMENT-REQUIRED`, `PAYMENT-SIGNATURE`, `PAYMENT-RESPONSE`.
    V2,
}

impl Version {
    /// `x402Version`.
    pub const fn number(self) -> u64 {
        match self {
            Version::V1 => 1,
            Version::V2 => 2,
        }
    }
}

/// Base64 of either alphabet, with or without padding.
pub(crate) fn decode_base64(text: &[u8]) -> Option<Vec<u8>> {
    let lenient = GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    GeneralPurpose::new(&alphabet::STANDARD, lenient)
        .decode(text)
        .or_else(|_| GeneralPurpose::new(&alphabet::URL_SAFE, lenient).decode(text))
        .ok()
}
