//! The gateway's own key: what it signs, anybody can hold against it later.
//!
//! | signed | as | found at |
//! |---|---|---|
//! | offers, receipts | JWS, `kid` = `did:web:HOST#THUMBPRINT` | `/.well-known/did.json` of that host |
//! | its key directory | HTTP message signature of the answer | the directory's own fields |
//! | closed days of the books | Ed25519 over bytes, see `ledger::close` | `closes.signature` in the ledger |
//!
//! Sources: RFC 7515 (JWS), RFC 8037 (EdDSA), the did:web method, RFC 9421 §2.4 (`;req`), RFC 9530 (`Content-Digest`),
//! draft-meunier-webbotauth-httpsig-protocol (a directory's signature).

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ed25519_dalek::{Signer as _, SigningKey};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::wire::jwk::{self, Jwk};
use crate::wire::signature::directory::TAG;

/// An Ed25519 key that speaks for the gateway.
#[derive(Clone)]
pub struct GatewayKey {
    key: SigningKey,
    thumbprint: String,
}

/// The fields that sign the answer of a key directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirectoryFields {
    /// `Content-Digest`: `sha-256=:…:`
    pub content_digest: String,
    /// `Signature-Input`
    pub signature_input: String,
    /// `Signature`
    pub signature: String,
}

impl GatewayKey {
    /// Reads a private JWK, as `tollgate keygen` writes it.
    ///
    /// # Errors
    /// Says what is wrong; never shows the key.
    pub fn parse(jwk: &str) -> Result<GatewayKey, String> {
        Ok(GatewayKey::new(jwk::signing_key(jwk)?))
    }

    /// Signs with this key.
    pub fn new(key: SigningKey) -> GatewayKey {
        GatewayKey { thumbprint: jwk::thumbprint(&key.verifying_key()), key }
    }

    /// RFC 7638, base64url: `poqkLGiymh_W0uP6PZFw-dvez3QJT5SolqXBCW38r0U`.
    pub fn thumbprint(&self) -> &str {
        &self.thumbprint
    }

    /// [`GatewayKey::thumbprint`], its 32 bytes.
    pub fn thumbprint_bytes(&self) -> [u8; 32] {
        // A thumbprint is the base64url of 32 bytes.
        URL_SAFE_NO_PAD.decode(&self.thumbprint).ok().and_then(|bytes| bytes.try_into().ok()).unwrap_or_default()
    }

    /// Ed25519 over bytes that say themselves what they are for.
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.key.sign(message).to_bytes()
    }

    /// The public half, `kid` its thumbprint.
    pub fn public_jwk(&self) -> Jwk {
        Jwk { kid: Some(self.thumbprint.clone()), ..Jwk::from_public(&self.key.verifying_key()) }
    }

    /// A compact JWS over JSON, in the name of the host that sells: `eyJhbGciOiJFZERTQSIs….eyJ2ZXJz….c2lnbmF0…`.
    pub fn jws(&self, authority: &str, payload: &Value) -> String {
        let header = json!({"alg": "EdDSA", "kid": self.kid(authority)});
        let mut text = URL_SAFE_NO_PAD.encode(header.to_string());
        text.push('.');
        URL_SAFE_NO_PAD.encode_string(payload.to_string(), &mut text);
        let signature = self.key.sign(text.as_bytes()).to_bytes();
        text.push('.');
        URL_SAFE_NO_PAD.encode_string(signature, &mut text);
        text
    }

    /// The DID document of a host, that names this key.
    pub fn did_document(&self, authority: &str) -> Value {
        let (did, kid) = (did_web(authority), self.kid(authority));
        let method = json!({"id": kid, "type": "JsonWebKey2020", "controller": did, "publicKeyJwk": self.public_jwk()});
        json!({
            "@context": ["https://www.w3.org/ns/did/v1", "https://w3id.org/security/suites/jws-2020/v1"],
            "id": did, "verificationMethod": [method], "assertionMethod": [kid], "authentication": [kid],
        })
    }

    /// Signs a directory's `body` for the host that was asked, from `now` for `lifetime` seconds.
    pub fn directory_fields(&self, authority: &str, body: &[u8], now: u64, lifetime: u64) -> DirectoryFields {
        let content_digest = format!("sha-256=:{}:", STANDARD.encode(Sha256::digest(body)));
        let parameters = format!(
            "(\"@authority\";req \"content-digest\");created={now};expires={};keyid=\"{}\";tag=\"{TAG}\"",
            now + lifetime,
            self.thumbprint
        );
        let base = format!(
            "\"@authority\";req: {authority}\n\"content-digest\": {content_digest}\n\"@signature-params\": {parameters}"
        );
        let signature = STANDARD.encode(self.key.sign(base.as_bytes()).to_bytes());
        DirectoryFields {
            content_digest,
            signature_input: format!("sig1={parameters}"),
            signature: format!("sig1=:{signature}:"),
        }
    }

    fn kid(&self, authority: &str) -> String {
        format!("{}#{}", did_web(authority), self.thumbprint)
    }
}

impl fmt::Debug for GatewayKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GatewayKey").field("thumbprint", &self.thumbprint).finish_non_exhaustive()
    }
}

/// `did:web:example.com`, `did:web:localhost%3A8402`. A colon of the authority would start a path.
fn did_web(authority: &str) -> String {
    format!("did:web:{}", authority.replace(':', "%3A"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::directory::Directory;

    fn key() -> GatewayKey {
        GatewayKey::new(SigningKey::from_bytes(&[7; 32]))
    }

    fn verifies(key: &GatewayKey, message: &[u8], signature: &[u8]) -> bool {
        key.public_jwk().public_key(false).unwrap().verifies(message, signature)
    }

    #[test]
    fn a_jws_verifies_and_names_the_host() {
        let key = key();
        let jws = key.jws("localhost:8402", &json!({"amount": "10000"}));
        let parts: Vec<&str> = jws.split('.').collect();
        let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).unwrap();
        let header: Value = serde_json::from_slice(&decode(parts[0])).unwrap();
        let kid = format!("did:web:localhost%3A8402#{}", key.thumbprint());
        assert_eq!(header, json!({"alg": "EdDSA", "kid": kid}));
        assert_eq!(serde_json::from_slice::<Value>(&decode(parts[1])).unwrap(), json!({"amount": "10000"}));
        let signed = format!("{}.{}", parts[0], parts[1]);
        assert!(verifies(&key, signed.as_bytes(), &decode(parts[2])));
        assert!(!verifies(&key, &signed.as_bytes()[1..], &decode(parts[2])));
        assert_eq!(key.did_document("localhost:8402")["verificationMethod"][0]["id"], json!(kid));
    }

    #[test]
    fn a_directory_is_signed_for_the_host_that_was_asked() {
        let key = key();
        let body = serde_json::to_string(&Directory::of(&[key.public_jwk()])).unwrap();
        let fields = key.directory_fields("example.com", body.as_bytes(), 1_700_000_000, 86_400);
        let parameters = fields.signature_input.strip_prefix("sig1=").unwrap();
        assert!(parameters.contains("created=1700000000;expires=1700086400"), "{parameters}");
        let base = |authority: &str| {
            let digest = &fields.content_digest;
            format!(
                "\"@authority\";req: {authority}\n\"content-digest\": {digest}\n\"@signature-params\": {parameters}"
            )
        };
        let signature = fields.signature.strip_prefix("sig1=:").and_then(|s| s.strip_suffix(':')).unwrap();
        let signature = STANDARD.decode(signature).unwrap();
        assert!(verifies(&key, base("example.com").as_bytes(), &signature));
        assert!(!verifies(&key, base("other.example").as_bytes(), &signature));
    }

    /// As whoever fetches it checks it.
    #[test]
    fn its_directory_is_signed_by_its_key() {
        use crate::wire::signature::directory::{Answer, Error, check};
        let key = key();
        let body = serde_json::to_vec(&Directory::of(&[key.public_jwk()])).unwrap();
        let fields = key.directory_fields("signer.example", &body, 1_700_000_000, 86_400);
        let mut headers = http::HeaderMap::new();
        headers.insert("content-digest", fields.content_digest.parse().unwrap());
        headers.insert("signature-input", fields.signature_input.parse().unwrap());
        headers.insert("signature", fields.signature.parse().unwrap());
        let keys = Directory::parse(&body, 1, false, |_, _| {}).unwrap();
        let check = |authority| {
            check(
                &Answer { authority, status: 200, headers: &headers, body: &body, now: 1_700_000_100, skew: 30 },
                &keys,
            )
        };
        assert_eq!((check("signer.example"), check("other.example")), (Ok(true), Err(Error::Differs)));
    }

    #[test]
    fn the_private_half_is_not_shown() {
        let secret = URL_SAFE_NO_PAD.encode([7; 32]);
        let key = key();
        let shown = format!("{key:?}{}{}", json!(key.public_jwk()), key.did_document("a.example"));
        assert!(!shown.contains(&secret) && !shown.contains("\"d\""), "{shown}");
        assert!(GatewayKey::parse("{}").is_err());
    }
}
