//! What the gateway says to machines: documents besides the origin's pages, signed offers, signed receipts.

mod support;

use std::io::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use support::agent::field_offer;
use support::client::{exchange, get};
use support::facilitator::{Behaviour, Facilitator};
use support::wallet::{PAY_TO, USDC, Wallet, receipt, send, token_shop_toml};
use support::*;
use tollgate::wire::directory::Directory;
use tollgate::wire::jwk::{Jwk, PublicKey};

const MANIFEST: &str = "/.well-known/x402";
const LIST: &str = "/discovery/resources";
const DIRECTORY: &str = "/.well-known/http-message-signatures-directory";
const DID: &str = "/.well-known/did.json";

/// An origin without documents of its own.
fn bare_origin() -> Origin {
    Origin::scripted(|seen, socket| {
        let status = if seen.path().starts_with("/paid") { "200 OK" } else { "404 Not Found" };
        write!(socket, "HTTP/1.1 {status}\r\nContent-Length: 2\r\n\r\nok").is_ok()
    })
}

/// An origin that answers its name everywhere.
fn full_origin() -> Origin {
    Origin::scripted(|_, socket| write!(socket, "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\norigin").is_ok())
}

const SIGNED: &str = "[signing]\nkey_file = \"key.json\"\noffers = true\n";

/// Two priced routes, one of them not to be listed.
fn shop(origin: &Origin, facilitator: &Facilitator, more: &str) -> Gateway {
    let route = r#"
methods = ["GET"]
description = "The weather"
bazaar = { query = '{"city": "Paris"}', output = '{"celsius": 21}' }
[[routes]]
path = "/hidden"
price = "0.02 USD"
accept = ["exact"]
discoverable = false
"#;
    Gateway::start(&token_shop_toml(origin, facilitator, &format!("{route}{more}")))
}

#[test]
fn what_is_sold_is_listed_as_it_is_offered() {
    let (origin, facilitator) = (bare_origin(), Facilitator::start());
    let gateway = shop(&origin, &facilitator, "");
    let manifest = get(gateway.addr, MANIFEST);
    assert_eq!((manifest.status, manifest.header("content-type")), (200, Some("application/json")), "{manifest:?}");
    assert_eq!(manifest.header("access-control-allow-origin"), Some("*"));
    let text = manifest.json();
    assert_eq!(text["items"].as_array().unwrap().len(), 1, "{text}");
    let item = &text["items"][0];
    assert_eq!(item["resource"]["url"], format!("http://{}/paid/*", gateway.addr));
    assert_eq!(
        item["input"],
        json!({"type": "http", "method": "GET", "queryParams": {"city": "Paris"},
        "routeTemplate": "/paid/*"})
    );
    // The very entry of an offer, but for its id.
    let offer = field_offer(&get(gateway.addr, "/paid/a"));
    let mut entry = offer["accepts"][0].clone();
    entry["extra"].as_object_mut().unwrap().remove("id").unwrap();
    assert_eq!(item["accepts"], json!([entry]));
    assert_eq!((&entry["payTo"], &entry["asset"]), (&json!(PAY_TO), &json!(USDC)));
    assert_eq!(offer["extensions"]["bazaar"]["info"]["output"]["example"], json!({"celsius": 21}));

    assert_eq!(get(gateway.addr, "/.well-known/x402.json").body, manifest.body);
    let list = get(gateway.addr, &format!("{LIST}?type=http&limit=5")).json();
    assert_eq!(list["pagination"], json!({"limit": 5, "offset": 0, "total": 1}));
    assert_eq!(list["items"][0]["accepts"], item["accepts"]);
    assert_eq!(list["items"][0]["metadata"]["description"], "The weather");
    let wrong = get(gateway.addr, &format!("{LIST}?limit=1000"));
    assert_eq!((wrong.status, &wrong.json()["message"]), (400, &json!("`limit` is a whole number from 1 to 100")));
    // Nothing else changes: other methods, other paths, and no key, so no directory.
    for (method, path) in [("POST", MANIFEST), ("GET", DIRECTORY), ("GET", DID), ("GET", "/.well-known/x403")] {
        let request =
            format!("{method} {path} HTTP/1.1\r\nHost: a.example\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        assert_eq!(exchange(gateway.addr, request).status, 404, "{method} {path}");
    }
}

#[test]
fn the_origin_wins_where_it_has_the_page_unless_the_operator_says_otherwise() {
    let (origin, facilitator) = (full_origin(), Facilitator::start());
    let gateway = shop(&origin, &facilitator, SIGNED);
    for path in [MANIFEST, LIST, DIRECTORY, DID] {
        assert_eq!(get(gateway.addr, path).body, b"origin", "{path}");
    }
    let always = shop(&origin, &facilitator, &format!("{SIGNED}[discovery]\nserve = \"always\"\n"));
    let calls = origin.calls();
    for path in [MANIFEST, LIST, DIRECTORY, DID] {
        assert!(get(always.addr, path).json().is_object(), "{path}");
    }
    assert_eq!(origin.calls(), calls);
    let (bare, off) = (bare_origin(), "[discovery]\nserve = \"off\"\n");
    let gateway = shop(&bare, &facilitator, off);
    assert_eq!(get(gateway.addr, MANIFEST).status, 404);
}

#[test]
fn a_wildcard_with_a_price_does_not_hide_the_documents() {
    let (origin, facilitator) = (bare_origin(), Facilitator::start());
    let more = "[[routes]]\npath = \"/*\"\nprice = \"1 USD\"\naccept = [\"exact\"]\n";
    let gateway = shop(&origin, &facilitator, &format!("{more}{SIGNED}"));
    for path in [MANIFEST, DIRECTORY, DID] {
        assert_eq!(get(gateway.addr, path).status, 200, "{path}");
    }
    // This one may be a page of the origin, which has a price.
    assert_eq!(get(gateway.addr, LIST).status, 402);
}

fn public_key(directory: &[u8]) -> PublicKey {
    let keys = Directory::parse(directory, 1, false, |_, error| panic!("{error}")).unwrap();
    assert_eq!(keys.len(), 1);
    keys[0].public.clone()
}

#[test]
fn the_directory_is_signed_by_the_key_that_it_names() {
    let (origin, facilitator) = (bare_origin(), Facilitator::start());
    let gateway = shop(&origin, &facilitator, SIGNED);
    let answer = get(gateway.addr, DIRECTORY);
    assert_eq!(answer.header("content-type"), Some("application/http-message-signatures-directory+json"));
    let key = public_key(&answer.body);
    assert!(!String::from_utf8_lossy(&answer.body).contains("\"d\""));
    let digest = format!("sha-256=:{}:", STANDARD.encode(Sha256::digest(&answer.body)));
    assert_eq!(answer.header("content-digest"), Some(&*digest));
    let input = answer.header("signature-input").unwrap().strip_prefix("sig1=").unwrap();
    assert!(input.contains(&format!("keyid=\"{}\"", key.thumbprint())), "{input}");
    assert!(input.ends_with(";tag=\"http-message-signatures-directory\""), "{input}");
    let base =
        format!("\"@authority\";req: {}\n\"content-digest\": {digest}\n\"@signature-params\": {input}", gateway.addr);
    let signature = answer.header("signature").unwrap().trim_start_matches("sig1=:").trim_end_matches(':');
    assert!(key.verifies(base.as_bytes(), &STANDARD.decode(signature).unwrap()));
    // Known already: nothing is sent again.
    let tag = answer.header("etag").unwrap();
    let request = format!(
        "GET {DIRECTORY} HTTP/1.1\r\nHost: {}\r\nIf-None-Match: {tag}\r\nConnection: close\r\n\r\n",
        gateway.addr
    );
    assert_eq!(exchange(gateway.addr, request).status, 304);
    // The key is the file's, and stays.
    let (_, dir) = gateway.stop();
    let toml = std::fs::read_to_string(dir.path().join("tollgate.toml")).unwrap();
    let again = Gateway::start_in(dir, &toml);
    assert_eq!(public_key(&get(again.addr, DIRECTORY).body).thumbprint(), key.thumbprint());
}

/// The payload of a JWS that the gateway signed, found as those who verify it find the key: by `kid`, from did.json.
fn opened(gateway: &Gateway, jws: &str) -> Value {
    let parts: Vec<&str> = jws.split('.').collect();
    let json = |part: &str| serde_json::from_slice::<Value>(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap();
    let header = json(parts[0]);
    assert_eq!(header["alg"], "EdDSA");
    let did = get(gateway.addr, DID).json();
    assert_eq!(did["id"], format!("did:web:{}", gateway.addr.to_string().replace(':', "%3A")));
    let methods = did["verificationMethod"].as_array().unwrap();
    let method = methods.iter().find(|method| method["id"] == header["kid"]).expect("the key is not in did.json");
    let jwk: Jwk = serde_json::from_value(method["publicKeyJwk"].clone()).unwrap();
    let signed = format!("{}.{}", parts[0], parts[1]);
    let signature = URL_SAFE_NO_PAD.decode(parts[2]).unwrap();
    assert!(jwk.public_key(false).unwrap().verifies(signed.as_bytes(), &signature));
    json(parts[1])
}

#[test]
fn offers_and_receipts_are_signed_for_what_was_asked() {
    let (origin, facilitator, wallet) = (bare_origin(), Facilitator::start(), Wallet::new());
    let gateway = shop(&origin, &facilitator, &format!("{SIGNED}transaction = true\n"));
    let url = format!("http://{}/paid/a?x=%22", gateway.addr);
    let offer = get(gateway.addr, "/paid/a?x=%22");
    let field = field_offer(&offer);
    let signed = &field["extensions"]["offer-receipt"]["info"]["offers"][0];
    assert_eq!((&signed["format"], &signed["acceptIndex"]), (&json!("jws"), &json!(0)));
    let payload = opened(&gateway, signed["signature"].as_str().unwrap());
    let entry = &field["accepts"][0];
    assert_eq!(payload["resourceUrl"], url);
    for name in ["scheme", "network", "asset", "payTo", "amount"] {
        assert_eq!(payload[name], entry[name], "{name}");
    }

    let answer = send(gateway.addr, "GET", "/paid/a?x=%22", &wallet.sign(&wallet.draft_of(&offer)));
    assert_eq!(answer.status, 200, "{answer:?}\n{}", gateway.log());
    let paid = receipt(&answer).unwrap();
    let bought =
        opened(&gateway, paid["extensions"]["offer-receipt"]["info"]["receipt"]["signature"].as_str().unwrap());
    assert_eq!((&bought["resourceUrl"], &bought["network"]), (&json!(url), &json!("eip155:84532")));
    assert_eq!(bought["transaction"], paid["transaction"]);
    let payer = bought["payer"].as_str().unwrap();
    assert!(payer.eq_ignore_ascii_case(&wallet.address.to_string()), "{payer}");

    // v1 has it at the same place, with CAIP-2 names; the one who pays again gets the very receipt.
    let payload = wallet.sign(&wallet.draft_v1(gateway.addr, "/paid/b"));
    let first = receipt(&send(gateway.addr, "GET", "/paid/b", &payload)).unwrap();
    let bought =
        opened(&gateway, first["extensions"]["offer-receipt"]["info"]["receipt"]["signature"].as_str().unwrap());
    assert_eq!(bought["network"], "eip155:84532");
    let again = send(gateway.addr, "GET", "/paid/b", &payload);
    assert_eq!((again.status, receipt(&again)), (409, Some(first)));
}

#[test]
fn receipts_tell_no_transaction_unless_told_to_and_refused_payments_get_none() {
    let (origin, facilitator, wallet) = (bare_origin(), Facilitator::start(), Wallet::new());
    let gateway = shop(&origin, &facilitator, SIGNED);
    let paid = receipt(&wallet.buy(gateway.addr, "/paid/a")).unwrap();
    let bought =
        opened(&gateway, paid["extensions"]["offer-receipt"]["info"]["receipt"]["signature"].as_str().unwrap());
    assert_eq!(bought.get("transaction"), None);
    facilitator.next("/settle", Behaviour::Refused("insufficient_funds"));
    let refused = wallet.buy(gateway.addr, "/paid/b");
    assert_eq!(refused.status, 402);
    assert_eq!(receipt(&refused).unwrap().get("extensions"), None);
}

#[test]
fn what_does_not_fit_into_an_offer_is_left_out_and_the_offer_stays_payable() {
    let (origin, facilitator, wallet) = (bare_origin(), Facilitator::start(), Wallet::new());
    let gateway = shop(&origin, &facilitator, SIGNED);
    let path = format!("/paid/{}", "a".repeat(2500));
    let offer = get(gateway.addr, &path);
    let field = field_offer(&offer);
    // What a payment needs stays; the rest goes.
    let names: Vec<&String> = field["extensions"].as_object().unwrap().keys().collect();
    assert_eq!(names, ["payment-identifier"]);
    assert!(offer.header("payment-required").unwrap().len() <= 7 * 1024);
    let answer = send(gateway.addr, "GET", &path, &wallet.sign(&wallet.draft_of(&offer)));
    assert_eq!(answer.status, 200, "{answer:?}");
    // Too long to be named in a field, too.
    assert_eq!(receipt(&answer).unwrap().get("extensions"), None);
}

#[test]
fn a_key_file_is_made_once_for_its_owner_and_a_bad_one_ends_the_start() {
    use std::os::unix::fs::PermissionsExt as _;
    let (origin, facilitator) = (bare_origin(), Facilitator::start());
    let gateway = shop(&origin, &facilitator, SIGNED);
    let file = gateway.dir.path().join("key.json");
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let (_, dir) = gateway.stop();
    std::fs::write(&file, "{\"kty\": \"OKP\", \"crv\": \"Ed25519\", \"x\": \"AAAA\"}").unwrap();
    let (code, _, err) = gateway::tollgate(dir.path(), &["run", "-c", "tollgate.toml"]);
    assert_eq!(code, 2, "{err}");
    assert!(err.contains("key file ") && err.contains("is this the public key?"), "{err}");
}

#[test]
fn tools_are_listed_by_name_and_say_their_arguments_in_offers() {
    let (origin, facilitator) = (bare_origin(), Facilitator::start());
    let tools = r#"
[[routes]]
path = "/mcp/*"
tool = "add"
price = "0.03 USD"
accept = ["exact"]
bazaar = { input_schema = '{"type": "object"}', body = '{"a": 1}' }
[[routes]]
path = "/mcp/*"
tool = "secret_*"
price = "0.03 USD"
accept = ["exact"]
"#;
    let gateway = shop(&origin, &facilitator, tools);
    let list = get(gateway.addr, &format!("{LIST}?type=mcp")).json();
    assert_eq!(list["pagination"]["total"], 1, "{list}");
    let input = json!({"type": "mcp", "tool": "add", "transport": "streamable-http", "inputSchema": {"type": "object"},
        "example": {"a": 1}});
    assert_eq!((&list["items"][0]["type"], &list["items"][0]["metadata"]["input"]), (&json!("mcp"), &input));
    let call = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"add","arguments":{}}}"#;
    let request = format!(
        "POST /mcp/ HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{call}",
        gateway.addr,
        call.len()
    );
    let offer = exchange(gateway.addr, request).json();
    let offered = &offer["result"]["structuredContent"];
    assert_eq!(offered["extensions"]["bazaar"]["info"]["input"], input, "{offer}");
    assert_eq!(offered["accepts"][0]["amount"], list["items"][0]["accepts"][0]["amount"]);
}
