//! Directories that sign their own answer, and gateways that ask for it.

use ed25519_dalek::SigningKey;
use tollgate::identity::publish::response_parts;
use tollgate::payment::gateway_key::GatewayKey;

use super::support::{Gate, Reply, Site, allow, directory, key, ok, said, thumbprint};

/// A directory of keys 1 and 2 that key `by` signed for this host, at the tests' time.
fn signed(by: u8, authority: &str) -> Vec<u8> {
    let (body, kind) = response_parts(&[key(1), key(2)]);
    let signer = GatewayKey::new(SigningKey::from_bytes(&[by; 32]));
    let fields = signer.directory_fields(authority, body.as_bytes(), 1_799_999_990, 3600);
    let fields = format!(
        "Content-Type: {kind}\r\nContent-Digest: {}\r\nSignature-Input: {}\r\nSignature: {}\r\n",
        fields.content_digest, fields.signature_input, fields.signature,
    );
    ok(&fields, &body)
}

async fn said_of(identity: &str, reply: impl FnOnce(&Site) -> Vec<u8>) -> String {
    let site = Site::start(Reply::Bytes(Vec::new())).await;
    site.set(Reply::Bytes(reply(&site)));
    let gate = Gate::start(&format!("{}\n{identity}", allow(&[&site])));
    said(gate.look(&site.agent(), &thumbprint(&key(1))).await)
}

#[tokio::test]
async fn a_signature_of_a_directory_holds_or_the_directory_is_not_read() {
    let found = thumbprint(&key(1));
    assert_eq!(said_of("", |site| signed(2, &site.agent().authority())).await, found);
    let other = said_of("", |_| signed(2, "other.example")).await;
    assert!(other.contains("its signature does not verify under the key that it names"), "{other}");
    let changed = said_of("", |site| {
        let text = String::from_utf8(signed(2, &site.agent().authority())).unwrap();
        // Another body of the same length.
        text.replace("\"use\"", "\"USE\"").replace("\"kid\"", "\"KID\"").into_bytes()
    });
    let changed = changed.await;
    assert!(changed.contains("its `Content-Digest` is not that of its body"), "{changed}");
    // One that is of no key of the directory says nothing.
    assert_eq!(said_of("", |site| signed(3, &site.agent().authority())).await, found);
}

#[tokio::test]
async fn a_gateway_may_ask_for_signed_directories() {
    let (found, require) = (thumbprint(&key(1)), "require_signed_directories = true");
    assert_eq!(said_of(require, |site| signed(1, &site.agent().authority())).await, found);
    for unsigned in [
        said_of(require, |_| directory(&[key(1)])).await,
        said_of(require, |site| signed(3, &site.agent().authority())).await,
    ] {
        assert!(unsigned.contains("none of its keys has signed it"), "{unsigned}");
    }
    // Without keys there is nothing to sign with: it takes them all away.
    assert_eq!(said_of(require, |_| directory(&[])).await, "no such key");
}
