//! Keys of every kind: names, refusals, and signatures that a library made.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use proptest::prelude::*;
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, KeyPair, RSA_PSS_SHA512,
};
use serde_json::{Value, json};
use tollgate::wire::directory::Directory;
use tollgate::wire::jwk::{Algorithm, Jwk, JwkError, PublicKey};

/// RFC 7638 §3.1.
const RFC7638_N: &str = "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw";
/// `test-key-ecc-p256` of RFC 9421 B.1.3.
const P256_X: &str = "qIVYZVLCrPZHGHjP17CTW0_-D9Lfw0EkjqF7xB4FivA";
const P256_Y: &str = "Mc4nN9LTDOBhfoUeg8Ye9WedFRhnZXZJA12Qp0zZ6F0";

fn parse(jwk: Value) -> Result<PublicKey, JwkError> {
    serde_json::from_value::<Jwk>(jwk).unwrap().public_key(false)
}

fn point(curve: &str, point: &[u8]) -> PublicKey {
    let (x, y) = point[1..].split_at((point.len() - 1) / 2);
    parse(json!({"kty": "EC", "crv": curve, "x": URL_SAFE_NO_PAD.encode(x), "y": URL_SAFE_NO_PAD.encode(y)})).unwrap()
}

#[test]
fn thumbprints_are_made_of_the_required_members_alone() {
    let key = parse(json!({"kty": "RSA", "n": RFC7638_N, "e": "AQAB", "kid": "2011-04-29", "use": "sig"})).unwrap();
    assert_eq!(key.thumbprint(), "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs");
    assert_eq!(key.canonical_jwk(), format!(r#"{{"e":"AQAB","kty":"RSA","n":"{RFC7638_N}"}}"#));
    assert_eq!(key.algorithm(), Algorithm::RsaPss);
    let again: Jwk = serde_json::from_str(&key.canonical_jwk()).unwrap();
    assert_eq!(again.public_key(false).unwrap().thumbprint(), key.thumbprint());
    let p256: Jwk =
        serde_json::from_value(json!({"kty": "EC", "crv": "P-256", "x": P256_X, "y": P256_Y, "alg": "ES256"})).unwrap();
    let key = p256.public_key(true).unwrap();
    assert_eq!(key.thumbprint(), "ydQXMtvbsOsZyFir-Y7A8t7fKEM1gbKPvyFkdpu4fvI");
    assert_eq!(p256.public_key(false).unwrap_err(), JwkError::TestKey);
}

#[test]
fn keys_that_prove_nothing_or_cost_too_much_are_refused() {
    let rsa = |n: &[u8], e: &[u8]| {
        parse(json!({"kty": "RSA", "n": URL_SAFE_NO_PAD.encode(n), "e": URL_SAFE_NO_PAD.encode(e)})).map(drop)
    };
    let sized = |bits: usize| {
        let mut n = vec![0xff; bits.div_ceil(8)];
        n[0] = 0xff >> (n.len() * 8 - bits);
        n
    };
    for bits in [512, 1024, 2047, 4097, 8192] {
        assert_eq!(rsa(&sized(bits), &[1, 0, 1]), Err(JwkError::RsaBits(bits)));
    }
    // 2^2048 - 1 is divisible by 3; an even modulus has no odd factors to hide.
    assert!(matches!(rsa(&sized(2048), &[1, 0, 1]), Err(JwkError::Weak(_))));
    let n = URL_SAFE_NO_PAD.decode(RFC7638_N).unwrap();
    assert!(matches!(rsa(&[&n[..255], &[0x82]].concat(), &[1, 0, 1]), Err(JwkError::Weak(_))));
    assert_eq!(rsa(&n, &[3]), Ok(()));
    for e in [&[1][..], &[2], &[1, 0, 0], &[2, 0, 0, 0, 1], &[1, 0, 0, 0, 0, 0, 0, 0, 1]] {
        assert_eq!(rsa(&n, e), Err(JwkError::Exponent), "{e:?}");
    }
    assert!(matches!(rsa(&[&[0], &n[..]].concat(), &[1, 0, 1]), Err(JwkError::Member("n", _))));
    assert!(matches!(rsa(&n, &[0, 3]), Err(JwkError::Member("e", _))));
    assert!(matches!(rsa(&n, &[]), Err(JwkError::Member("e", _))));

    let ec = |x: &str, y: &str| parse(json!({"kty": "EC", "crv": "P-256", "x": x, "y": y})).map(drop);
    assert!(matches!(ec(P256_Y, P256_X), Err(JwkError::Weak(_))));
    assert!(matches!(ec(&"A".repeat(43), &"A".repeat(43)), Err(JwkError::Weak(_))));
    assert!(matches!(ec(&P256_X[..42], P256_Y), Err(JwkError::Member("x", _))));
    assert!(matches!(ec(P256_X, ""), Err(JwkError::Member("y", _))));
    // A curve of its own size only.
    let other = parse(json!({"kty": "EC", "crv": "P-384", "x": P256_X, "y": P256_Y}));
    assert!(matches!(other, Err(JwkError::Member("x", _))));
    for alg in ["RS256", "PS256", "PS384", "ES256", "rsa-v1_5-sha256"] {
        let jwk = json!({"kty": "RSA", "n": RFC7638_N, "e": "AQAB", "alg": alg});
        assert_eq!(parse(jwk).unwrap_err(), JwkError::Purpose("alg"), "{alg}");
    }
    assert!(parse(json!({"kty": "RSA", "n": RFC7638_N, "e": "AQAB", "alg": "PS512"})).is_ok());
}

#[test]
fn a_directory_says_why_it_leaves_a_key_out() {
    let private = json!({"kty": "RSA", "n": RFC7638_N, "e": "AQAB", "p": "AQAB"});
    let short = json!({"kty": "RSA", "n": "AQAB", "e": "AQAB"});
    let good = json!({"kty": "RSA", "n": RFC7638_N, "e": "AQAB"});
    let body = json!({"keys": [private, short, good]}).to_string();
    let mut skipped = Vec::new();
    let keys = Directory::parse(body.as_bytes(), 32, false, |index, error| skipped.push((index, error))).unwrap();
    assert_eq!((keys.len(), skipped), (1, vec![(0, JwkError::Private), (1, JwkError::RsaBits(17))]));
}

#[test]
fn a_p256_signature_of_rfc_9421_over_a_response_verifies() {
    let jwk: Jwk = serde_json::from_value(json!({"kty": "EC", "crv": "P-256", "x": P256_X, "y": P256_Y})).unwrap();
    let base = concat!(
        "\"@status\": 200\n\"content-type\": application/json\n\"content-digest\": ",
        "sha-512=:mEWXIS7MaLRuGgxOBdODa3xqM1XdEvxoYhvlCFJ41QJgJc4GTsPp29l5oGX69wWdXymyU0rjJuahq4l5aGgfLQ==:\n",
        "\"content-length\": 23\n\"@signature-params\": ",
        "(\"@status\" \"content-type\" \"content-digest\" \"content-length\");created=1618884473;keyid=\"test-key-ecc-p256\"",
    );
    let signature = "wNmSUAhwb5LxtOtOpNa6W5xj067m5hFrj0XQ4fvpaCLx0NKocgPquLgyahnzDnDAUy5eCdlYUEkLIj-32oiasw";
    let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
    assert!(jwk.public_key(true).unwrap().verifies(base.as_bytes(), &signature));
}

/// A key of 2048 bits, made for this test.
fn rsa_pair() -> (ring::signature::RsaKeyPair, PublicKey) {
    let pair = ring::signature::RsaKeyPair::from_pkcs8(include_bytes!("../support/rsa_2048.pkcs8.der")).unwrap();
    let public: ring::rsa::PublicKeyComponents<Vec<u8>> = pair.public().into();
    let (n, e) = (URL_SAFE_NO_PAD.encode(&public.n), URL_SAFE_NO_PAD.encode(&public.e));
    let key = parse(json!({"kty": "RSA", "n": n, "e": e})).unwrap();
    (pair, key)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn what_is_signed_verifies_and_nothing_near_it(message in proptest::collection::vec(any::<u8>(), 0..300), at in any::<prop::sample::Index>(), bit in 0_u32..8) {
        let random = SystemRandom::new();
        for (algorithm, curve) in [(&ECDSA_P256_SHA256_FIXED_SIGNING, "P-256"), (&ECDSA_P384_SHA384_FIXED_SIGNING, "P-384")] {
            let pkcs8 = EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap();
            let pair = EcdsaKeyPair::from_pkcs8(algorithm, pkcs8.as_ref(), &random).unwrap();
            let key = point(curve, pair.public_key().as_ref());
            let signature = pair.sign(&random, &message).unwrap().as_ref().to_vec();
            prop_assert!(key.verifies(&message, &signature));
            prop_assert!(near(&key, &message, &signature, at.index(signature.len()), bit));
        }
        let (pair, key) = rsa_pair();
        let mut signature = vec![0; pair.public().modulus_len()];
        pair.sign(&RSA_PSS_SHA512, &random, &message, &mut signature).unwrap();
        prop_assert!(key.verifies(&message, &signature));
        prop_assert!(near(&key, &message, &signature, at.index(signature.len()), bit));
    }

    #[test]
    fn no_members_panic_the_parser(kty in "OKP|EC|RSA", crv in "(P-256|P-384|Ed25519)?", x in "[A-Za-z0-9_-]{0,70}", y in "[A-Za-z0-9_-]{0,70}", n in "[A-Za-z0-9_-]{0,700}", e in "[A-Za-z0-9_-]{0,16}") {
        if let Ok(key) = parse(json!({"kty": kty, "crv": crv, "x": x, "y": y, "n": n, "e": e})) {
            let again = parse(serde_json::from_str(&key.canonical_jwk()).unwrap()).unwrap();
            prop_assert_eq!(again.thumbprint(), key.thumbprint());
        }
    }
}

/// No signature with one bit turned, cut or grown holds, and none for another message.
fn near(key: &PublicKey, message: &[u8], signature: &[u8], at: usize, bit: u32) -> bool {
    let mut turned = signature.to_vec();
    turned[at] ^= 1 << bit;
    let longer = [signature, &[0]].concat();
    let other = [message, b"!"].concat();
    !key.verifies(message, &turned)
        && !key.verifies(message, &signature[1..])
        && !key.verifies(message, &longer)
        && !key.verifies(&other, signature)
}
