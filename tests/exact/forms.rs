//! Payments that are another text, or another thing: which spellings of one payment are taken, and which are not.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use crate::support::books::Books;
use crate::support::facilitator::{Behaviour, Facilitator};
use crate::support::wallet::{Draft, Wallet, send, token_shop};
use crate::support::*;
use crate::tamper::{SOLD, key};

/// A request with these payment lines.
fn ask(gateway: &Gateway, lines: &[(&str, &str)]) -> Answer {
    let lines: String = lines.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    exchange(
        gateway.addr,
        format!("GET /paid/a HTTP/1.1\r\nHost: {0}\r\n{lines}Connection: close\r\n\r\n", gateway.addr),
    )
}

fn field(version: u8) -> &'static str {
    if version == 1 { "X-PAYMENT" } else { "PAYMENT-SIGNATURE" }
}

fn draft(wallet: &Wallet, gateway: &Gateway, version: u8) -> Draft {
    if version == 1 { wallet.draft_v1(gateway.addr, "/paid/a") } else { wallet.draft(gateway.addr, "/paid/a") }
}

/// A spelling: a payload's JSON in, the value of the field out.
type Spell = Box<dyn Fn(&Value) -> String>;

fn encoded(change: impl Fn(&mut Value) + 'static) -> Spell {
    Box::new(move |payload| {
        let mut payload = payload.clone();
        change(&mut payload);
        STANDARD.encode(payload.to_string())
    })
}

fn text(change: impl Fn(String) -> String + 'static) -> Spell {
    Box::new(move |payload| STANDARD.encode(change(payload.to_string())))
}

fn each_text(value: &mut Value, at: &[&str], change: fn(&str) -> String) {
    for at in at {
        let value = value.pointer_mut(at).unwrap();
        *value = change(value.as_str().unwrap()).into();
    }
}

fn upper_hex(text: &str) -> String {
    format!("0x{}", text[2..].to_ascii_uppercase())
}

/// What may differ, by definition, in both versions.
fn harmless() -> Vec<(&'static str, Spell)> {
    const SIGNED: [&str; 4] = [
        "/payload/signature",
        "/payload/authorization/from",
        "/payload/authorization/to",
        "/payload/authorization/nonce",
    ];
    vec![
        ("as it is", encoded(|_| ())),
        ("base64url", Box::new(|p| URL_SAFE.encode(p.to_string()))),
        ("no padding", Box::new(|p| STANDARD_NO_PAD.encode(format!("{p} ")))),
        ("base64url, no padding", Box::new(|p| URL_SAFE_NO_PAD.encode(format!("{p}  ")))),
        ("white space", Box::new(|p| STANDARD.encode(format!(" {p:#}\r\n\t")))),
        ("white space around the value", Box::new(|p| format!("  {}\t", STANDARD.encode(p.to_string())))),
        ("escapes", text(|p| p.replace("\"exact\"", "\"\\u0065xact\"").replace("/", "\\/"))),
        ("hexadecimal in upper case", encoded(|p| each_text(p, &SIGNED, upper_hex))),
        ("hexadecimal in lower case", encoded(|p| each_text(p, &SIGNED, str::to_ascii_lowercase))),
        ("v of 0 and 1", text(|p| p.replace("1b\",\"auth", "00\",\"auth").replace("1c\",\"auth", "01\",\"auth"))),
        ("another order", encoded(|p| *p = reversed(p))),
        ("unknown members", encoded(unknown_members)),
        ("null extensions", encoded(|p| p["extensions"] = Value::Null)),
        ("31 levels", encoded(|p| p["x"] = nested(31))),
        ("almost 16 KiB", encoded(|p| p["x"] = "x".repeat(10_000).into())),
    ]
}

/// What may differ in v2 besides.
fn harmless_v2() -> Vec<(&'static str, Spell)> {
    vec![
        ("another description", encoded(|p| p["resource"]["description"] = "free!".into())),
        ("another type", encoded(|p| p["resource"]["mimeType"] = 7.into())),
        ("null tags", encoded(|p| (p["resource"]["tags"], p["resource"]["serviceName"]) = (Value::Null, Value::Null))),
        ("an empty list of tags", encoded(|p| p["resource"]["tags"] = json!([]))),
        ("a null resource", encoded(|p| p["resource"] = Value::Null)),
        ("no resource", encoded(|p| _ = p.as_object_mut().unwrap().remove("resource"))),
        ("extensions", encoded(|p| p["extensions"] = json!({"bazaar": {"info": {}, "schema": {"type": "object"}}}))),
        ("a number with a fraction of nothing", text(|p| p.replace("Seconds\":300", "Seconds\":300.0"))),
        ("addresses in lower case", encoded(|p| each_text(p, &OFFERED, str::to_ascii_lowercase))),
        ("addresses in upper case", encoded(|p| each_text(p, &OFFERED, upper_hex))),
    ]
}

const OFFERED: [&str; 2] = ["/accepted/asset", "/accepted/payTo"];

fn nested(depth: usize) -> Value {
    (1..depth).fold(json!([]), |inner, _| json!([inner]))
}

fn reversed(value: &Value) -> Value {
    match value {
        Value::Object(members) => {
            Value::Object(members.iter().rev().map(|(name, value)| (name.clone(), reversed(value))).collect())
        }
        other => other.clone(),
    }
}

fn unknown_members(value: &mut Value) {
    if let Value::Object(members) = value {
        members.values_mut().for_each(unknown_members);
        members.insert("x-unknown".into(), json!({"amount": 1, "payTo": "me"}));
    }
}

#[test]
fn whatever_the_spelling_a_payment_charges_once() {
    let (origin, facilitator, wallet) = (Origin::start(), Facilitator::start(), Wallet::new());
    let gateway = token_shop(&origin, &facilitator, SOLD);
    let mut keys = Vec::new();
    let both = || harmless().into_iter();
    let all = both()
        .map(|(name, spell)| (name, spell, 1))
        .chain(both().chain(harmless_v2()).map(|(name, spell)| (name, spell, 2)));
    for (name, spell, version) in all {
        let payload = wallet.sign(&draft(&wallet, &gateway, version));
        let value = spell(&payload);
        let answer = ask(&gateway, &[(field(version), &value)]);
        assert_eq!(answer.status, 200, "{name}, version {version}: {}", answer.text());
        for again in [value, STANDARD.encode(payload.to_string())] {
            let answer = ask(&gateway, &[(field(version), &again)]);
            assert_eq!((answer.status, answer.reason()), (409, "payment_already_used"), "{name}, version {version}");
        }
        keys.push(key(&wallet, payload["payload"]["authorization"]["nonce"].as_str().unwrap()));
        assert_eq!((facilitator.count("/settle"), origin.calls()), (keys.len(), keys.len()), "{name}");
    }
    let (_, dir) = gateway.stop();
    let books = Books::read(dir.path());
    assert_eq!((books.charged(), books.intents), (keys.len(), keys.len()));
    assert!(keys.iter().all(|key| books.captures.contains_key(key)));
}

/// One authorisation is one payment, whichever version and offer it comes under.
#[test]
fn an_authorisation_is_not_spent_in_the_other_version_or_for_another_page() {
    let (origin, facilitator, wallet) = (Origin::start(), Facilitator::start(), Wallet::new());
    let gateway = token_shop(&origin, &facilitator, SOLD);
    let payload = wallet.sign(&wallet.draft(gateway.addr, "/paid/a"));
    assert_eq!(send(gateway.addr, "GET", "/paid/a", &payload).status, 200);
    let old = wallet.sign(&wallet.draft_v1(gateway.addr, "/paid/a"));
    let mut as_v1 = old;
    as_v1["payload"] = payload["payload"].clone();
    let mut elsewhere = wallet.sign(&wallet.draft(gateway.addr, "/paid/b"));
    elsewhere["payload"] = payload["payload"].clone();
    for (path, again) in [("/paid/a", &as_v1), ("/paid/b", &as_v1), ("/paid/b", &elsewhere)] {
        let answer = send(gateway.addr, "GET", path, again);
        assert_eq!((answer.status, answer.reason()), (409, "payment_already_used"), "{path} {again}");
    }
    assert_eq!((facilitator.count("/settle"), origin.calls()), (1, 1));
}

/// What can't be read in one way only.
fn unreadable() -> Vec<(&'static str, Spell)> {
    let with = |at: &'static str, value: Value| encoded(move |p| *p.pointer_mut(at).unwrap() = value.clone());
    let add = |at: &'static str, name: &'static str, value: Value| {
        encoded(move |p| p.pointer_mut(at).unwrap()[name] = value.clone())
    };
    let instead = |from: &'static str, to: &'static str| {
        text(move |p| {
            assert!(p.contains(from), "{from} in {p}");
            p.replacen(from, to, 1)
        })
    };
    let mut all = vec![
        ("a version twice", text(|p| p.replacen('{', "{\"x402Version\":2,", 1))),
        ("a value twice", instead("\"value\":", "\"value\":\"1\",\"value\":")),
        ("a value twice, one escaped", instead("\"value\":", "\"\\u0076alue\":\"1\",\"value\":")),
        ("a signature twice", instead("\"signature\":", "\"signature\":\"0x\",\"signature\":")),
        ("an unknown member twice", text(|p| p.replacen('{', "{\"a\":1,\"a\":1,", 1))),
        ("base64 of base64", Box::new(|p| STANDARD.encode(STANDARD.encode(p.to_string())))),
        ("no base64", Box::new(|p| p.to_string())),
        ("nothing", Box::new(|_| String::new())),
        ("white space inside", Box::new(|p| STANDARD.encode(p.to_string()).replacen('e', "e ", 1))),
        ("garbage behind", Box::new(|p| format!("{}!!", STANDARD.encode(p.to_string())))),
        ("a list", Box::new(|p| [STANDARD.encode(p.to_string()), STANDARD.encode(p.to_string())].join(", "))),
        ("two alphabets", Box::new(|p| format!("{}+-AA", STANDARD.encode(p.to_string()).trim_end_matches('=')))),
        ("quotes", Box::new(|p| format!("\"{}\"", STANDARD.encode(p.to_string())))),
        ("17 KiB", encoded(|p| p["x"] = "x".repeat(13_000).into())),
        ("33 levels", encoded(|p| p["x"] = nested(32))),
        (
            "a thousand levels",
            text(|p| p.replacen('{', &format!("{{\"x\":{}{},", "[".repeat(1000), "]".repeat(1000)), 1)),
        ),
        ("a second value behind", text(|p| format!("{p}{p}"))),
        ("a bracket behind", text(|p| format!("{p}}}"))),
        ("NUL behind", text(|p| format!("{p}\0"))),
        ("a byte order mark", text(|p| format!("\u{feff}{p}"))),
        (
            "UTF-16",
            Box::new(|p| STANDARD.encode(p.to_string().encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<_>>())),
        ),
        ("a list of it", text(|p| format!("[{p}]"))),
        ("a text of it", text(|p| Value::from(p).to_string())),
        ("null", text(|_| "null".into())),
        ("a version in quotes", with("/x402Version", "2".into())),
        ("no version", with("/x402Version", Value::Null)),
        ("another version", with("/x402Version", 3.into())),
        ("a negative version", with("/x402Version", (-1).into())),
        ("no payload", with("/payload", Value::Null)),
        ("a list as payload", with("/payload", json!([]))),
        ("no authorization", with("/payload/authorization", Value::Null)),
        ("no signature", with("/payload/signature", Value::Null)),
        ("a signature in base64", with("/payload/signature", STANDARD.encode([7; 65]).into())),
        ("a signature of half bytes", with("/payload/signature", "0x123".into())),
        ("a second kind of payment", add("/payload", "transaction", "AAAA".into())),
        ("a null kind of payment besides", add("/payload", "permit2Authorization", Value::Null)),
        ("a short nonce", with("/payload/authorization/nonce", "0x01".into())),
        ("a nonce that is a number", with("/payload/authorization/nonce", 1.into())),
        ("a short address", with("/payload/authorization/from", "0x01".into())),
        ("a null address", with("/payload/authorization/to", Value::Null)),
    ];
    for value in [
        json!(10000),
        json!("010000"),
        json!("+10000"),
        json!("1e4"),
        json!("0x2710"),
        json!("10000 "),
        json!("10000.0"),
        json!(""),
        json!("-10000"),
        json!("٤"),
        json!("9".repeat(79)),
        Value::Null,
    ] {
        all.push(("another way to write a number", with("/payload/authorization/value", value.clone())));
        all.push(("another way to write a time", with("/payload/authorization/validBefore", value)));
    }
    all
}

#[test]
fn what_can_be_read_in_two_ways_or_none_is_400() {
    let (origin, facilitator, wallet) = (Origin::start(), Facilitator::start(), Wallet::new());
    let gateway = token_shop(&origin, &facilitator, SOLD);
    for version in [1, 2] {
        let payload = wallet.sign(&draft(&wallet, &gateway, version));
        for (name, spell) in unreadable() {
            let answer = ask(&gateway, &[(field(version), &spell(&payload))]);
            let all = format!("{name}, version {version}: {}", answer.text());
            assert_eq!((answer.status, answer.reason()), (400, "invalid_payment"), "{all}");
            let error = if name.contains(" version") && !name.contains("twice") || name == "no version" {
                "invalid_x402_version"
            } else {
                "invalid_payload"
            };
            assert_eq!(answer.json()["error"], error, "{all}");
            assert!(answer.json()["accepts"][0].is_object(), "no fresh offer: {all}");
            assert!(answer.text().len() < 4096, "{all}");
        }
        let value = STANDARD.encode(payload.to_string());
        let other = field(3 - version);
        let answer = ask(&gateway, &[(other, &value)]);
        assert_eq!((answer.status, answer.reason()), (400, "invalid_payment"), "in the field of the other version");
        assert_eq!(answer.json()["error"], "invalid_x402_version");
        for twice in [
            &[(field(version), &*value), (field(version), &*value)][..],
            &[(field(version), &*value), (field(version), "")],
            &[("PAYMENT-SIGNATURE", &*value), ("X-PAYMENT", &*value)],
            &[(field(version), &*value), ("Payment", "scheme=\"deferred\"")],
            &[(field(version), &*value), (other, "")],
        ] {
            let answer = ask(&gateway, twice);
            assert_eq!((answer.status, answer.reason()), (400, "several_payments"), "{twice:?}");
        }
        // A field with `_` is none of ours, and must not become one further on.
        let answer = ask(&gateway, &[(&field(version).replace('-', "_"), &value)]);
        assert_eq!((answer.status, answer.reason()), (402, "payment_required"));
    }
    assert_eq!((origin.calls(), facilitator.count("/verify"), facilitator.count("/settle")), (0, 0, 0));
    let (_, dir) = gateway.stop();
    let books = Books::read(dir.path());
    assert_eq!((books.captures.len(), books.intents), (0, 0));
}

/// Wallets that are contracts sign with more than 65 bytes; only a facilitator can tell.
#[test]
fn a_long_signature_is_for_the_facilitator_to_judge() {
    let (origin, facilitator, wallet) = (Origin::start(), Facilitator::start(), Wallet::new());
    let gateway = token_shop(&origin, &facilitator, SOLD);
    let mut payload = wallet.sign(&wallet.draft(gateway.addr, "/paid/a"));
    let good = payload.clone();
    payload["payload"]["signature"] = format!("0x{}", "6492".repeat(100)).into();
    facilitator.next("/verify", Behaviour::Invalid("invalid_exact_evm_payload_signature"));
    let answer = send(gateway.addr, "GET", "/paid/a", &payload);
    assert_eq!((answer.status, answer.reason(), origin.calls()), (402, "payment_refused", 0));
    // Nobody spends a payment by sending it with a signature of his own.
    assert_eq!(send(gateway.addr, "GET", "/paid/a", &good).status, 200);
    assert_eq!(send(gateway.addr, "GET", "/paid/a", &payload).status, 409);
    assert_eq!((origin.calls(), facilitator.count("/settle")), (1, 1));
}
