//! Private keys of the kinds that our own client does not have.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, EcdsaSigningAlgorithm,
    KeyPair as _, RSA_PSS_SHA512, RsaKeyPair,
};
use serde_json::json;
use tollgate::wire::jwk::Jwk;

/// A private key, as PKCS #8.
#[derive(Clone, Debug)]
pub enum OtherKey {
    P256(Vec<u8>),
    P384(Vec<u8>),
    /// One of 2048 bits, in this folder.
    Rsa,
}

impl OtherKey {
    pub fn p256() -> OtherKey {
        OtherKey::P256(generate(&ECDSA_P256_SHA256_FIXED_SIGNING))
    }

    pub fn p384() -> OtherKey {
        OtherKey::P384(generate(&ECDSA_P384_SHA384_FIXED_SIGNING))
    }

    pub fn jwk(&self) -> Jwk {
        let text = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let ec = |crv: &str, pair: EcdsaKeyPair| {
            let (x, y) = pair.public_key().as_ref()[1..].split_at((pair.public_key().as_ref().len() - 1) / 2);
            json!({"kty": "EC", "crv": crv, "x": text(x), "y": text(y)})
        };
        let jwk = match self {
            OtherKey::P256(pkcs8) => ec("P-256", ecdsa(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8)),
            OtherKey::P384(pkcs8) => ec("P-384", ecdsa(&ECDSA_P384_SHA384_FIXED_SIGNING, pkcs8)),
            OtherKey::Rsa => {
                let public: ring::rsa::PublicKeyComponents<Vec<u8>> = rsa().public().into();
                json!({"kty": "RSA", "n": text(&public.n), "e": text(&public.e)})
            }
        };
        serde_json::from_value(jwk).unwrap()
    }

    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match self {
            OtherKey::P256(pkcs8) => {
                let pair = ecdsa(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8);
                pair.sign(&random, message).unwrap().as_ref().to_vec()
            }
            OtherKey::P384(pkcs8) => {
                let pair = ecdsa(&ECDSA_P384_SHA384_FIXED_SIGNING, pkcs8);
                pair.sign(&random, message).unwrap().as_ref().to_vec()
            }
            OtherKey::Rsa => {
                let pair = rsa();
                let mut signature = vec![0; pair.public().modulus_len()];
                pair.sign(&RSA_PSS_SHA512, &random, message, &mut signature).unwrap();
                signature
            }
        }
    }
}

/// The other form of an ECDSA P-256 signature: r ‖ n − s. Nobody needs the private key to make it.
pub fn malleated(signature: &[u8]) -> Vec<u8> {
    const ORDER: [u8; 32] = [
        0xff, 0xff, 0xff, 0xff, 0x00, 0x00, 0x00, 0x00, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xbc, 0xe6,
        0xfa, 0xad, 0xa7, 0x17, 0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63, 0x25, 0x51,
    ];
    let mut other = signature.to_vec();
    let mut borrow = 0;
    for at in (0..32).rev() {
        let difference = i16::from(ORDER[at]) - i16::from(signature[32 + at]) - borrow;
        borrow = i16::from(difference < 0);
        other[32 + at] = difference.rem_euclid(256) as u8;
    }
    other
}

fn generate(algorithm: &'static EcdsaSigningAlgorithm) -> Vec<u8> {
    EcdsaKeyPair::generate_pkcs8(algorithm, &SystemRandom::new()).unwrap().as_ref().to_vec()
}

fn ecdsa(algorithm: &'static EcdsaSigningAlgorithm, pkcs8: &[u8]) -> EcdsaKeyPair {
    EcdsaKeyPair::from_pkcs8(algorithm, pkcs8, &SystemRandom::new()).unwrap()
}

fn rsa() -> RsaKeyPair {
    RsaKeyPair::from_pkcs8(include_bytes!("rsa_2048.pkcs8.der")).unwrap()
}
