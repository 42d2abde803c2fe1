//! Golden vectors: header lines (`expect:`, `source:`), a blank line, exact bytes. And: no input panics, what is written
//! is read back.

#[path = "wire/exact.rs"]
mod exact;
#[path = "wire/keys.rs"]
mod keys;
#[path = "wire/wycheproof.rs"]
mod wycheproof;
#[path = "wire/x402.rs"]
mod x402;

use http::{HeaderMap, HeaderName, HeaderValue};
use proptest::prelude::*;
use tollgate::payment::presented::presented;
use tollgate::payment::terms::Template;
use tollgate::wire::agent_url::AgentUrl;
use tollgate::wire::amount::Money;
use tollgate::wire::deferred::Payment;
use tollgate::wire::directory::Directory;
use tollgate::wire::jwk::{Jwk, PublicKey};
use tollgate::wire::signature::{LabelledSignature, RequestView, SignatureError};
use tollgate::wire::signature_agent::covered_agent;

struct Vector {
    name: String,
    expect: String,
    key: String,
    method: String,
    path: String,
    query: Option<String>,
    authority: String,
    headers: HeaderMap,
}

fn vectors() -> Vec<Vector> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/wire/signature");
    let mut paths: Vec<_> = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
    paths.sort();
    paths.into_iter().map(|p| vector(p.file_stem().unwrap().to_str().unwrap(), &std::fs::read(&p).unwrap())).collect()
}

fn vector(name: &str, bytes: &[u8]) -> Vector {
    let text = std::str::from_utf8(bytes).unwrap();
    let (about, request) = text.split_once("\n\n").unwrap();
    let about = |key: &str| about.lines().find_map(|l| l.strip_prefix(key)).unwrap().trim().to_owned();
    let mut lines = request.split("\r\n");
    let mut start = lines.next().unwrap().split(' ');
    let (method, target) = (start.next().unwrap().to_owned(), start.next().unwrap());
    let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query.to_owned())));
    let path = path.to_owned();
    let mut headers = HeaderMap::new();
    for line in lines.take_while(|l| !l.is_empty()) {
        let (field, value) = line.split_once(": ").unwrap();
        headers.append(HeaderName::from_bytes(field.as_bytes()).unwrap(), HeaderValue::from_str(value).unwrap());
    }
    let authority = headers["host"].to_str().unwrap().to_owned();
    let (expect, key) = (about("expect:"), about("key:"));
    Vector { name: name.into(), expect, key, method, path, query, authority, headers }
}

/// `x` of an Ed25519 key, or a whole JWK.
fn public_key(text: &str) -> PublicKey {
    match text.starts_with('{') {
        true => serde_json::from_str::<Jwk>(text).unwrap().public_key(true).unwrap(),
        false => PublicKey::from_x(text).unwrap(),
    }
}

fn verdict(vector: &Vector) -> &'static str {
    let view = RequestView {
        method: &vector.method,
        scheme: "https",
        authority: &vector.authority,
        path: &vector.path,
        query: vector.query.as_deref(),
        headers: &vector.headers,
    };
    let key = public_key(&vector.key);
    let result = LabelledSignature::parse_all(&vector.headers, false)
        .and_then(|signatures| Ok((signatures[0].base(&view)?, signatures[0].signature.clone())));
    match result {
        Ok((base, signature)) if key.verifies(base.as_bytes(), &signature) => "verifies",
        Ok(_) => "differs",
        Err(SignatureError::Missing(_)) => "missing",
        Err(SignatureError::Field(_)) => "field",
        Err(SignatureError::Syntax { .. }) => "syntax",
        Err(SignatureError::TooMany(_)) => "too many",
        Err(SignatureError::NoLabel) => "no label",
        Err(SignatureError::Parameter(_)) => "parameter",
        Err(SignatureError::Component(_)) => "unsupported",
        Err(SignatureError::Repeated(_)) => "repeated",
        Err(SignatureError::Absent(_)) => "absent",
        Err(SignatureError::Ambiguous(_)) => "ambiguous",
    }
}

#[test]
fn every_vector_has_its_verdict() {
    let vectors = vectors();
    assert!(vectors.len() >= 20);
    for vector in &vectors {
        assert_eq!(verdict(vector), vector.expect, "{}", vector.name);
    }
}

#[test]
fn no_edited_byte_of_a_vector_verifies() {
    for vector in vectors().iter_mut().filter(|v| v.expect == "verifies") {
        let signature = LabelledSignature::parse_all(&vector.headers, false).unwrap().remove(0);
        let signed = signature.signature.clone();
        let is_covered = |name: &&HeaderName| {
            signature.field_components(name.as_str()).next().is_some() || name.as_str().starts_with("signature")
        };
        let mut covered: Vec<HeaderName> = vector.headers.keys().filter(is_covered).cloned().collect();
        // A field that no component names is as free as any other.
        covered
            .retain(|name| name != "signature-agent" || signature.field_components("signature-agent").next().is_some());
        for name in covered {
            let original = vector.headers[&name].clone();
            for at in 0..original.len() {
                let mut bytes = original.as_bytes().to_vec();
                bytes[at] = if bytes[at] == b'1' { b'2' } else { b'1' };
                vector.headers.insert(&name, HeaderValue::from_bytes(&bytes).unwrap());
                // Base64's spare bits may be anything (RFC 9651 §4.2.7); the signature is still the same bytes.
                if name == "signature"
                    && LabelledSignature::parse_all(&vector.headers, false).is_ok_and(|s| s[0].signature == signed)
                {
                    continue;
                }
                assert_ne!(verdict(vector), "verifies", "{} {name} byte {at}", vector.name);
            }
            vector.headers.insert(&name, original);
        }
    }
}

fn field_map(name: &'static str, value: &str) -> Option<HeaderMap> {
    let mut headers = HeaderMap::new();
    headers.insert(name, HeaderValue::from_str(value).ok()?);
    Some(headers)
}

proptest! {
    #[test]
    fn no_text_panics_a_parser(text in "\\PC{0,200}", ascii in "[ -~]{0,200}") {
        for text in [&text, &ascii] {
            let _ = Payment::parse(text);
            let _ = Money::parse(text);
            let _ = AgentUrl::parse(text);
            let _ = Directory::parse(text.as_bytes(), 32, false, |_, _| {});
            let _ = Template::from_bytes(text.as_bytes());
            for name in ["payment", "payment-signature", "x-payment"] {
                field_map(name, text).map(|headers| presented(&headers).is_ok());
            }
            if let Some(mut headers) = field_map("signature-input", text) {
                headers.insert("signature", HeaderValue::from_static("a=:AA==:"));
                if let Ok(signatures) = LabelledSignature::parse_all(&headers, true) {
                    for signature in signatures {
                        let _ = covered_agent(&signature, text);
                    }
                }
            }
        }
    }

    #[test]
    fn signature_inputs_near_the_grammar_do_not_panic(
        components in proptest::collection::vec("(\"[@a-z-]{1,12}\"(;(key=\"[a-z]{0,3}\"|name=\"[a-z%]{0,3}\"|sf|req|bs|tr)){0,2})", 0..6),
        params in "(;(created|expires|keyid|tag|nonce|alg|x)(=([0-9]{1,15}|\"[ -~&&[^\"\\\\]]{0,8}\"|:[A-Za-z0-9+/]{0,8}:|\\?1|[a-z]{1,4}))?){0,6}",
    ) {
        let text = format!("sig=({}){params}", components.join(" "));
        let Some(mut headers) = field_map("signature-input", &text) else { return Ok(()) };
        headers.insert("signature", HeaderValue::from_static("sig=:AAAA:"));
        let view = RequestView { method: "GET", scheme: "https", authority: "a.example", path: "/", query: None, headers: &headers };
        if let Ok(signatures) = LabelledSignature::parse_all(&headers, false) {
            for signature in signatures {
                let _ = signature.base(&view);
            }
        }
    }

    #[test]
    fn payments_templates_and_amounts_survive_their_text(
        scheme in "[ -~]{1,10}", network in "[ -~]{1,20}", id in "[A-Za-z0-9_-]{1,64}", units in 0_i64..1_000_000_000_000, decimals in 0_u32..30, ttl in 1_u64..100_000,
    ) {
        let payment = Payment { scheme: scheme.clone(), network: network.clone(), id };
        prop_assert_eq!(Payment::parse(&payment.to_field().unwrap()), Ok(payment));
        let template = Template { ttl, class: "public".into(), scheme, network, asset: "USD".into(), decimals, pay_to: "m".into(), terms_url: String::new() };
        prop_assert_eq!(Template::from_bytes(&template.to_bytes()), Some(template));
        let text = format!("{}.{:06} USD", units / 1_000_000, units % 1_000_000);
        let money = Money::parse(&text).unwrap();
        prop_assert_eq!(money.units.get(), units);
        prop_assert_eq!(Money::parse(&money.to_string()), Ok(money));
        let wire = money.wire();
        prop_assert_eq!(wire.amount * 10_u128.pow(6 - wire.decimals()), units as u128);
    }
}
