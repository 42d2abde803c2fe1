//! Wycheproof's signatures, with our keys: what it calls valid verifies, and nothing else does.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::json;
use tollgate::wire::jwk::{Jwk, PublicKey};
use wycheproof::{HashFunction, TestResult, ecdsa, eddsa, rsa_pss_verify};

fn text(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

#[test]
fn ed25519_has_no_other_opinion() {
    let set = eddsa::TestSet::load(eddsa::TestName::Ed25519).unwrap();
    let mut tests = 0;
    for group in &set.test_groups {
        let x = text(&group.key.pk[..]);
        for test in &group.tests {
            tests += 1;
            let verified = PublicKey::from_x(&x).is_ok_and(|key| key.verifies(&test.msg, &test.sig));
            assert_eq!(verified, test.result == TestResult::Valid, "{} {}", test.tc_id, test.comment);
        }
    }
    assert_eq!(tests, 151);
}

fn ecdsa(name: ecdsa::TestName, curve: &str) -> usize {
    let set = ecdsa::TestSet::load(name).unwrap();
    let mut tests = 0;
    for group in &set.test_groups {
        let (x, y) = group.key.key[1..].split_at((group.key.key.len() - 1) / 2);
        let jwk: Jwk = serde_json::from_value(json!({"kty": "EC", "crv": curve, "x": text(x), "y": text(y)})).unwrap();
        let key = jwk.public_key(false).unwrap();
        for test in &group.tests {
            tests += 1;
            let verified = key.verifies(&test.msg, &test.sig);
            assert_eq!(verified, test.result == TestResult::Valid, "{} {}", test.tc_id, test.comment);
        }
    }
    tests
}

#[test]
fn ecdsa_has_no_other_opinion() {
    assert!(ecdsa(ecdsa::TestName::EcdsaSecp256r1Sha256P1363, "P-256") > 200);
    assert!(ecdsa(ecdsa::TestName::EcdsaSecp384r1Sha384P1363, "P-384") > 200);
}

#[test]
fn no_der_signature_and_no_other_hash_verifies() {
    for (name, curve) in [
        (ecdsa::TestName::EcdsaSecp256r1Sha256, "P-256"),
        (ecdsa::TestName::EcdsaSecp256r1Sha512P1363, "P-256"),
        (ecdsa::TestName::EcdsaSecp384r1Sha384, "P-384"),
        (ecdsa::TestName::EcdsaSecp384r1Sha512P1363, "P-384"),
    ] {
        let set = ecdsa::TestSet::load(name).unwrap();
        for group in &set.test_groups {
            let (x, y) = group.key.key[1..].split_at((group.key.key.len() - 1) / 2);
            let jwk: Jwk =
                serde_json::from_value(json!({"kty": "EC", "crv": curve, "x": text(x), "y": text(y)})).unwrap();
            let key = jwk.public_key(false).unwrap();
            assert!(group.tests.iter().all(|test| !key.verifies(&test.msg, &test.sig)));
        }
    }
}

/// How many signatures verified.
fn rsa(name: rsa_pss_verify::TestName) -> usize {
    let set = rsa_pss_verify::TestSet::load(name).unwrap();
    let mut verified = 0;
    for group in &set.test_groups {
        let ours = group.hash == HashFunction::Sha2_512
            && group.mgf_hash == Some(HashFunction::Sha2_512)
            && group.salt_size == 64;
        let strip = |bytes: &[u8]| text(&bytes[bytes.iter().position(|byte| *byte != 0).unwrap()..]);
        let jwk = json!({"kty": "RSA", "n": strip(&group.key.n), "e": strip(&group.key.e)});
        let Ok(key) = serde_json::from_value::<Jwk>(jwk).unwrap().public_key(false) else {
            assert!(!(2048..=4096).contains(&group.key_size), "a key of {} bits is not taken", group.key_size);
            continue;
        };
        for test in &group.tests {
            let holds = key.verifies(&test.msg, &test.sig);
            verified += usize::from(holds);
            assert_eq!(holds, ours && test.result == TestResult::Valid, "{} {}", test.tc_id, test.comment);
        }
    }
    verified
}

#[test]
fn rsa_pss_with_a_salt_of_64_bytes_has_no_other_opinion_and_no_other_form_verifies() {
    use rsa_pss_verify::TestName as Name;
    assert!(rsa(Name::RsaPss4096Sha512Mgf1SaltLen64) > 40);
    for other in [
        Name::RsaPss4096Sha512Mgf1SaltLen32,
        Name::RsaPss4096Sha384Mgf1SaltLen48,
        Name::RsaPss2048Sha256Mgf1SaltLen32,
        Name::RsaPss2048Sha1Mgf1SaltLen20,
        Name::RsaPss3072Sha256Mgf1SaltLen32,
    ] {
        assert_eq!(rsa(other), 0, "{other:?}");
    }
    rsa(Name::RsaPssmisc);
}
