//! Public keys that may verify: Ed25519, ECDSA over P-256 and P-384, RSA-PSS; their thumbprints.
//!
//! The key decides on the algorithm, never the message. What a check costs is bounded by the key: at most 4096 bits of RSA
//! and an exponent of 33 bits.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use ed25519_dalek::{Signature, VerifyingKey};
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, RSA_PSS_2048_8192_SHA512, RsaPublicKeyComponents,
    UnparsedPublicKey,
};
use sha2::{Digest, Sha256};

use super::{Jwk, JwkError};

/// Sizes of an RSA modulus that are taken, bits.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=4096;
/// Largest exponent that is taken: what the library verifies with.
const EXPONENT_MAX: u64 = (1 << 33) - 1;
/// A modulus with a factor below that was made wrongly.
const SMALL_FACTOR: u32 = 256;

/// A signature algorithm of agents (RFC 9421 §3.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// `ed25519`
    Ed25519,
    /// `ecdsa-p256-sha256`, r and s of 32 bytes each.
    EcdsaP256,
    /// `ecdsa-p384-sha384`, r and s of 48 bytes each.
    EcdsaP384,
    /// `rsa-pss-sha512`, with a salt of 64 bytes.
    RsaPss,
}

impl Algorithm {
    /// All that is verified.
    pub const ALL: [Algorithm; 4] = [Algorithm::Ed25519, Algorithm::EcdsaP256, Algorithm::EcdsaP384, Algorithm::RsaPss];

    /// As the parameter `alg` of a signature names it: `ecdsa-p256-sha256`.
    pub fn name(self) -> &'static str {
        match self {
            Algorithm::Ed25519 => "ed25519",
            Algorithm::EcdsaP256 => "ecdsa-p256-sha256",
            Algorithm::EcdsaP384 => "ecdsa-p384-sha384",
            Algorithm::RsaPss => "rsa-pss-sha512",
        }
    }

    /// For people: `ECDSA P-256`.
    pub fn title(self) -> &'static str {
        match self {
            Algorithm::Ed25519 => "Ed25519",
            Algorithm::EcdsaP256 => "ECDSA P-256",
            Algorithm::EcdsaP384 => "ECDSA P-384",
            Algorithm::RsaPss => "RSA-PSS",
        }
    }

    /// Whether `alg` of a JWK allows it: the names of RFC 7518 and RFC 8037, and ours.
    pub(super) fn is_named(self, alg: &str) -> bool {
        let jose = match self {
            Algorithm::Ed25519 => "EdDSA",
            Algorithm::EcdsaP256 => "ES256",
            Algorithm::EcdsaP384 => "ES384",
            Algorithm::RsaPss => "PS512",
        };
        alg.eq_ignore_ascii_case(jose) || alg.eq_ignore_ascii_case(self.name())
    }
}

/// A usable public key, parsed once.
#[derive(Debug, Clone)]
pub struct PublicKey {
    key: Key,
    thumbprint: String,
}

#[derive(Debug, Clone)]
enum Key {
    Ed25519(VerifyingKey),
    /// Uncompressed points, on their curve.
    P256(Box<[u8; 65]>),
    P384(Box<[u8; 97]>),
    /// Big-endian, without leading zeros.
    Rsa {
        n: Box<[u8]>,
        e: Box<[u8]>,
    },
}

impl PublicKey {
    /// Reads the members that make a key of this algorithm.
    pub(super) fn of(jwk: &Jwk, algorithm: Algorithm) -> Result<PublicKey, JwkError> {
        let key = match algorithm {
            Algorithm::Ed25519 => return PublicKey::from_x(jwk.x.as_deref().unwrap_or_default()),
            Algorithm::EcdsaP256 => {
                let expected = "43 characters of base64url, 32 bytes of a point's coordinate";
                let point: [u8; 65] = point(jwk, 32, expected)?;
                p256::PublicKey::from_sec1_bytes(&point).map_err(|_| JwkError::Weak("no point of its curve"))?;
                Key::P256(Box::new(point))
            }
            Algorithm::EcdsaP384 => {
                let expected = "64 characters of base64url, 48 bytes of a point's coordinate";
                let point: [u8; 97] = point(jwk, 48, expected)?;
                p384::PublicKey::from_sec1_bytes(&point).map_err(|_| JwkError::Weak("no point of its curve"))?;
                Key::P384(Box::new(point))
            }
            Algorithm::RsaPss => rsa(jwk)?,
        };
        Ok(PublicKey::new(key))
    }

    /// Reads the `x` member of an Ed25519 JWK.
    ///
    /// # Errors
    /// [`JwkError::Member`] for the form, [`JwkError::Weak`] for the point.
    pub fn from_x(x: &str) -> Result<PublicKey, JwkError> {
        let form = JwkError::Member("x", "43 characters of base64url, the 32 bytes of an Ed25519 public key");
        let Some(bytes) = URL_SAFE_NO_PAD.decode(x).ok().and_then(|bytes| <[u8; 32]>::try_from(bytes).ok()) else {
            return Err(form);
        };
        let weak = JwkError::Weak("no canonical Ed25519 point of large order");
        let Ok(key) = VerifyingKey::from_bytes(&bytes) else { return Err(weak) };
        // A non-canonical encoding parses but would give one point two thumbprints.
        if key.is_weak() || key.to_edwards().compress().to_bytes() != bytes {
            return Err(weak);
        }
        Ok(PublicKey::new(Key::Ed25519(key)))
    }

    fn new(key: Key) -> PublicKey {
        PublicKey { thumbprint: digest(&key.canonical()), key }
    }

    /// RFC 7638 thumbprint, base64url: `poqkLGiymh_W0uP6PZFw-dvez3QJT5SolqXBCW38r0U`.
    pub fn thumbprint(&self) -> &str {
        &self.thumbprint
    }

    /// The required members in the thumbprint's order, no spaces: what the ledger keeps as evidence.
    pub fn canonical_jwk(&self) -> String {
        self.key.canonical()
    }

    /// What the key signs with; there is no choice.
    pub fn algorithm(&self) -> Algorithm {
        match self.key {
            Key::Ed25519(_) => Algorithm::Ed25519,
            Key::P256(_) => Algorithm::EcdsaP256,
            Key::P384(_) => Algorithm::EcdsaP384,
            Key::Rsa { .. } => Algorithm::RsaPss,
        }
    }

    /// Whether the signature holds. Ed25519 strictly: canonical S, no small-order key or R. A valid ECDSA signature has a
    /// second form that is valid too, so no signature's bytes may be taken for a name of what was signed.
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        match &self.key {
            Key::Ed25519(key) => {
                Signature::from_slice(signature).is_ok_and(|signature| key.verify_strict(message, &signature).is_ok())
            }
            Key::P256(point) => {
                UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, &point[..]).verify(message, signature).is_ok()
            }
            Key::P384(point) => {
                UnparsedPublicKey::new(&ECDSA_P384_SHA384_FIXED, &point[..]).verify(message, signature).is_ok()
            }
            Key::Rsa { n, e } => {
                RsaPublicKeyComponents { n, e }.verify(&RSA_PSS_2048_8192_SHA512, message, signature).is_ok()
            }
        }
    }
}

impl Key {
    /// RFC 7638 §3: the required members, sorted, no spaces.
    fn canonical(&self) -> String {
        let text = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        match self {
            Key::Ed25519(key) => ed25519(key),
            Key::P256(point) => ec("P-256", &point[1..]),
            Key::P384(point) => ec("P-384", &point[1..]),
            Key::Rsa { n, e } => format!(r#"{{"e":"{}","kty":"RSA","n":"{}"}}"#, text(e), text(n)),
        }
    }
}

/// RFC 7638 thumbprint of an Ed25519 key (RFC 8037 A.3).
pub fn thumbprint(key: &VerifyingKey) -> String {
    digest(&ed25519(key))
}

fn digest(canonical: &str) -> String {
    URL_SAFE_NO_PAD.encode(Sha256::digest(canonical))
}

fn ed25519(key: &VerifyingKey) -> String {
    format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{}"}}"#, URL_SAFE_NO_PAD.encode(key.as_bytes()))
}

fn ec(curve: &str, coordinates: &[u8]) -> String {
    let (x, y) = coordinates.split_at(coordinates.len() / 2);
    let (x, y) = (URL_SAFE_NO_PAD.encode(x), URL_SAFE_NO_PAD.encode(y));
    format!(r#"{{"crv":"{curve}","kty":"EC","x":"{x}","y":"{y}"}}"#)
}

/// The uncompressed point `4 ‖ x ‖ y`, each coordinate with its leading zeros (RFC 7518 §6.2.1.2).
fn point<const BYTES: usize>(jwk: &Jwk, size: usize, expected: &'static str) -> Result<[u8; BYTES], JwkError> {
    let mut point = [4; BYTES];
    for (name, member, at) in [("x", &jwk.x, 1), ("y", &jwk.y, 1 + size)] {
        let bytes = member.as_deref().and_then(|text| URL_SAFE_NO_PAD.decode(text).ok());
        let Some(bytes) = bytes.filter(|bytes| bytes.len() == size) else {
            return Err(JwkError::Member(name, expected));
        };
        point[at..at + size].copy_from_slice(&bytes);
    }
    Ok(point)
}

/// A modulus and an exponent without leading zeros (RFC 7518 §6.3.1).
fn rsa(jwk: &Jwk) -> Result<Key, JwkError> {
    let integer = |member: &Option<String>| {
        let bytes = URL_SAFE_NO_PAD.decode(member.as_deref()?).ok()?;
        bytes.first().is_some_and(|first| *first != 0).then_some(bytes)
    };
    let n = integer(&jwk.n).ok_or(JwkError::Member("n", "base64url of an integer without leading zero bytes"))?;
    let e = integer(&jwk.e).ok_or(JwkError::Member("e", "base64url of an integer without leading zero bytes"))?;
    let bits = n.len() * 8 - n[0].leading_zeros() as usize;
    if !RSA_BITS.contains(&bits) {
        return Err(JwkError::RsaBits(bits));
    }
    let exponent = match e.len() {
        0..=8 => e.iter().fold(0, |sum: u64, byte| sum << 8 | u64::from(*byte)),
        _ => u64::MAX,
    };
    if !(3..=EXPONENT_MAX).contains(&exponent) || exponent % 2 == 0 {
        return Err(JwkError::Exponent);
    }
    let remainder = |by: u32| n.iter().fold(0, |rest: u32, byte| (rest << 8 | u32::from(*byte)) % by);
    if (2..SMALL_FACTOR).any(|factor| remainder(factor) == 0) {
        return Err(JwkError::Weak("no product of two large primes"));
    }
    Ok(Key::Rsa { n: n.into(), e: e.into() })
}
