//! What is fuzzed: every reader of bytes that others write. Each target takes any bytes, must not panic, and holds what
//! it says. `cargo fuzz` runs them without end; `tests/fuzz.rs` includes this file and runs them for seconds.

use std::path::Path;
use std::sync::OnceLock;

use http::{HeaderMap, HeaderName, HeaderValue, Request};
use tollgate::ledger::evidence::Evidence;
use tollgate::ledger::outcomes;
use tollgate::ledger::store::Outcome;
use tollgate::payment::crawl::{self, Bid};
use tollgate::payment::id::{Resource, SealedId};
use tollgate::payment::presented::{self, Presented};
use tollgate::payment::secrets::Secrets;
use tollgate::payment::terms::{Template, Term, Terms};
use tollgate::payment::token::{Token, Transfer};
use tollgate::payment::upto::Said;
use tollgate::payment::{batch, exact};
use tollgate::pricing::{Found, RouteSpec, Site, Table};
use tollgate::proxy::target::Target;
use tollgate::wire::agent_url::AgentUrl;
use tollgate::wire::amount::{Currency, Money};
use tollgate::wire::deferred::Payment;
use tollgate::wire::directory::Directory;
use tollgate::wire::evm::address::Address;
use tollgate::wire::evm::u256::U256;
use tollgate::wire::jwk::Jwk;
use tollgate::wire::mcp::{self as mcp_wire, answer, events, request, uri};
use tollgate::wire::signature::{LabelledSignature, RequestView};
use tollgate::wire::signature_agent::covered_agent;
use tollgate::wire::x402::facilitator::{self, SettleVerdict, VerifyVerdict};
use tollgate::wire::x402::network::Network;
use tollgate::wire::x402::payload::{Payload, PayloadKind};
use tollgate::wire::x402::receipt::Receipt;
use tollgate::wire::x402::requirements::Requirements;
use tollgate::wire::x402::{Version, json, svm};

/// Header lines `name: value`, one a line, as far as they are ones; a first line without colon is skipped.
fn headers(data: &[u8]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for line in data.split(|b| *b == b'\n').take(64) {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let Some(colon) = line.iter().position(|b| *b == b':') else { continue };
        let value = line[colon + 1..].strip_prefix(b" ").unwrap_or(&line[colon + 1..]);
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(&line[..colon]), HeaderValue::from_bytes(value)) {
            headers.append(name, value);
        }
    }
    headers
}

/// Signature fields. A base has a line for each component and one more, and names each once.
pub fn signature(data: &[u8]) {
    let headers = headers(data);
    let agent = headers.get("signature-agent").and_then(|v| v.to_str().ok()).unwrap_or("");
    let request = RequestView {
        method: "GET",
        scheme: "https",
        authority: "a.example",
        path: "/p",
        query: Some("q=1"),
        headers: &headers,
    };
    for lenient in [false, true] {
        for signature in LabelledSignature::parse_all(&headers, lenient).unwrap_or_default() {
            let _ = covered_agent(&signature, agent);
            let _ = signature.params.check_times(1_700_000_000, 30, 86_400);
            let Ok(base) = signature.base(&request) else { continue };
            let lines: Vec<&str> = base.split('\n').collect();
            assert_eq!(lines.len(), signature.components.len() + 1, "a value broke out of its line: {base:?}");
            for (line, component) in lines.iter().zip(&signature.components) {
                assert!(line.starts_with(&component.identifier()), "{base:?}");
            }
            assert!(lines[lines.len() - 1].starts_with("\"@signature-params\": ("), "{base:?}");
        }
    }
}

/// The `Payment` field: what is read is written so that it is read again.
pub fn payment(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(payment) = Payment::parse(text) else { return };
    let field = payment.to_field().expect("what was read cannot be written");
    assert_eq!(Payment::parse(&field).as_ref(), Ok(&payment));
    let response = payment.response_field(1_700_000_000).expect("no payment response");
    assert!(HeaderValue::try_from(response).is_ok());
}

/// Which payment a request carries: with one there is a field of that name.
pub fn payment_fields(data: &[u8]) {
    let headers = headers(data);
    let carried = presented::PAYMENT_FIELDS.iter().filter(|name| headers.contains_key(**name)).count();
    match presented::presented(&headers) {
        Ok(Presented::Nothing) => assert_eq!(carried, 0, "a payment was overlooked"),
        Ok(Presented::X402(payload)) if payload.scheme == batch::SCHEME => {
            assert_eq!(carried, 1);
            let price = Money::parse("0.05 USD").expect("a price").wire();
            if batch::pays(&payload, &price).is_ok() {
                let amount = payload.raw["payload"]["amount"].as_str().and_then(|text| text.parse::<u128>().ok());
                assert!(amount.is_some_and(|amount| amount >= price.amount), "{amount:?} bought what costs more");
                assert_eq!(payload.raw["payload"]["asset"], "USD");
            }
        }
        Ok(Presented::Payment(_) | Presented::X402(_)) => assert_eq!(carried, 1),
        Ok(Presented::Crawl(bid)) => {
            assert_eq!(carried, 1);
            let (Bid::Exact(money) | Bid::Max(money)) = bid;
            let name = HeaderName::from_static(bid.cover().field);
            let text = crawl::text_of(money);
            let again = HeaderMap::from_iter([(name, HeaderValue::try_from(text).expect("a price is no field"))]);
            assert_eq!(presented::presented(&again), Ok(Presented::Crawl(bid)), "what is shown is not read again");
            assert_eq!(bid.pays(money), Ok(()));
        }
        Err(_) => assert!(carried > 0),
    }
}

/// A key directory: bounded, and no kept key has a weak or private part.
pub fn directory(data: &[u8]) {
    let mut skipped = 0;
    if let Ok(keys) = Directory::parse(data, 4, false, |_, _| skipped += 1) {
        assert!(keys.len() + skipped <= 4);
        for key in keys {
            assert!(key.jwk.d.is_none());
            assert_eq!(key.public.thumbprint().len(), 43);
            // What the ledger keeps of a key gives the same key.
            let kept: Jwk = serde_json::from_str(&key.public.canonical_jwk()).unwrap();
            assert_eq!(kept.public_key(true).unwrap().thumbprint(), key.public.thumbprint());
            assert!(!key.public.verifies(data, data));
        }
    }
}

/// An agent's origin: its text is a normal form.
pub fn agent_url(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(url) = AgentUrl::parse(text) {
        let normal = url.to_string();
        assert_eq!(AgentUrl::parse(&normal).as_ref(), Ok(&url));
        assert!(normal.is_ascii() && !normal.contains(['@', '?', '#', ' ', '\\']), "{normal}");
        assert!(http::Uri::try_from(&normal).is_ok(), "{normal}");
    }
}

/// An amount: exact both ways.
pub fn amount(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(money) = Money::parse(text) {
        assert_eq!(Money::parse(&money.to_string()), Ok(money));
        let wire = money.wire();
        assert_eq!(wire.amount * 10_u128.pow(6 - wire.decimals()), money.units.get() as u128);
    }
}

/// `/paid/*` costs something everywhere, `/case/*` on a host whose origin ignores case.
fn table() -> &'static Table {
    static TABLE: OnceLock<Table> = OnceLock::new();
    TABLE.get_or_init(|| {
        let route = |index, path: &str, host: Option<&str>| RouteSpec {
            index,
            host: host.map(str::to_owned),
            path: path.to_owned(),
            methods: Vec::new(),
            priced: true,
            case_insensitive: host.is_some(),
        };
        let routes = [route(0, "/paid/*", None), route(1, "/case/*", Some("case.example"))];
        let site = Site { hosts: vec!["a.example".to_owned(), "*.a.example".to_owned()], ..Site::default() };
        Table::compile(&routes, &site).expect("these routes compile")
    })
}

/// Everything decoded, as the most liberal origin would.
fn decoded(path: &str) -> Vec<u8> {
    let (bytes, mut out, mut i) = (path.as_bytes(), Vec::new(), 0);
    while i < bytes.len() {
        let hex = |at: usize| bytes.get(at).and_then(|b| char::from(*b).to_digit(16)).map(|d| d as u8);
        match (bytes[i], hex(i + 1), hex(i + 2)) {
            (b'%', Some(high), Some(low)) => {
                out.push(high << 4 | low);
                i += 3;
            }
            (byte, ..) => {
                out.push(byte);
                i += 1;
            }
        }
    }
    out
}

/// Request target and Host, each on its line. The normal form is a fixed point, holds no dot segment, and costs what the
/// path costs that an origin sees which decodes everything.
pub fn target(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (uri, host) = text.split_once('\n').unwrap_or((text, "a.example"));
    let Ok(request) = Request::builder().uri(uri).header("host", host).body(()) else { return };
    let strict = |host: &str| table().has_priced(host);
    let Ok(target) = Target::of(&request, true, 8192, strict) else { return };

    let upstream = target.path_and_query();
    let again = Request::builder().uri(&upstream).header("host", target.authority()).body(());
    let again = again.unwrap_or_else(|e| panic!("{upstream:?} is no request target: {e}"));
    let again = Target::of(&again, true, 8192 * 3, strict).unwrap_or_else(|e| panic!("{upstream:?} is refused: {e:?}"));
    assert_eq!((again.path(), again.query(), again.authority()), (target.path(), target.query(), target.authority()));

    let path = target.path();
    assert!(path.starts_with('/') && !path.split('/').any(|s| matches!(s, "." | "..")), "{path:?}");
    assert!(!path.contains("//") && !path.contains('\\') && !path.contains(';'), "{path:?}");
    let seen = decoded(target.raw_path());
    assert_eq!(seen, decoded(path), "the normal form names another path");
    assert!(!seen.windows(2).any(|w| w == b"//") && !seen.contains(&0) && !seen.contains(&b'\\'), "{path:?}");
    let below = |prefix: &[u8], seen: &[u8]| {
        seen.strip_prefix(prefix).is_some_and(|rest| rest.first().is_none_or(|b| *b == b'/'))
    };
    // Where case does not matter, it matters only for that host's own routes.
    let expect = match target.host() {
        "case.example" if below(b"/case", &seen.to_ascii_lowercase()) => Some(1),
        _ => below(b"/paid", &seen).then_some(0),
    };
    for method in ["GET", "HEAD", "POST", "X-OWN"] {
        let found = match table().find(target.host(), path, method) {
            Found::Route(index) => Some(index),
            Found::UnknownHost => continue,
            _ => None,
        };
        assert_eq!(found, expect, "{path:?}, at the origin {:?}", String::from_utf8_lossy(&seen));
    }
}

/// Secret and terms that the golden id was sealed with.
fn seal() -> &'static (Secrets, Terms) {
    static SEAL: OnceLock<(Secrets, Terms)> = OnceLock::new();
    SEAL.get_or_init(|| {
        let secrets = Secrets::parse(&Secrets::new_file([7; 32])).expect("a key that we made");
        let mut terms = Terms::default();
        terms.insert(Term::new(Template {
            ttl: 300,
            class: "public".into(),
            scheme: "deferred".into(),
            network: "tollgate:deferred".into(),
            asset: "USD".into(),
            decimals: 2,
            pay_to: "merchant".into(),
            terms_url: String::new(),
        }));
        (secrets, terms)
    })
}

/// The one id that holds; `tests/wire/sealed_id.txt`.
pub const GOLDEN_ID: &str = "AYvP5WgAAQIDBAUGBwE06wAAAAAAACcQbbC2YICE67q_a7qLrN1hTSdthea6kZJ5";

/// A sealed id has one spelling, and only the one that was sealed opens.
pub fn sealed_id(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Some(id) = SealedId::parse(text) else { return };
    assert_eq!(id.to_text(), text, "a second spelling");
    let (secrets, terms) = seal();
    let page = Resource { method: "GET", authority: "a.example", path: "/p", query: "q=1", tool: "" };
    let opened = id.open(secrets, terms, 1_700_000_000_000, &page);
    assert_eq!(opened.is_ok(), text == GOLDEN_ID, "{opened:?}");
}

/// Stored terms.
pub fn template(data: &[u8]) {
    if let Some(template) = Template::from_bytes(data) {
        assert_eq!(Template::from_bytes(&template.to_bytes()), Some(template));
    }
}

/// A configuration: an error can be shown, as text and as JSON.
pub fn config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match tollgate::config::parse(text, "tollgate.toml", Path::new("/etc/tollgate"), std::iter::empty()) {
        Ok(config) => assert!(!config.server.listen.is_empty() && !config.origins.is_empty()),
        Err(errors) => {
            assert!(!errors.is_empty() && !errors.render(true).is_empty() && errors.to_json().is_array());
        }
    }
}

/// The secret file: what is wrong is said without showing any of it.
pub fn secret_file(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Err(why) = Secrets::parse(text) {
        let shown = text.split(|c: char| !c.is_ascii_alphanumeric()).find(|w| w.len() > 16 && why.contains(w));
        assert_eq!(shown, None, "{why}");
    }
}

/// Evidence and outcomes as the ledger keeps them.
pub fn ledger(data: &[u8]) {
    if let Ok(evidence) = Evidence::decode(data) {
        assert_eq!(evidence.encode(), data);
    }
    if let Some(records) = outcomes::decode(data) {
        let outcome =
            |r: &outcomes::Record| Outcome { n: r.n, delivery: r.delivery, void: false, ms: r.ms, bytes: r.bytes };
        let all: Vec<Outcome> = records.iter().map(outcome).collect();
        let (bytes, left) = outcomes::encode(&all);
        assert!(left.is_empty());
        assert_eq!(bytes.and_then(|b| outcomes::decode(&b)), Some(records));
    }
}

/// What the golden token payments pay, at a time when they hold.
fn asked(payload: &Payload) -> Option<Requirements> {
    let accepted = payload.accepted.as_ref()?;
    Some(Requirements {
        scheme: "exact".into(),
        network: Network::parse("eip155:84532").expect("a network"),
        amount: 10_000,
        asset: "0x036CbD53842c5426634e7929541eC2318f3dCF7e".into(),
        pay_to: "0x209693Bc6afc0C5328bA36FaF03C514EF312287C".into(),
        max_timeout_seconds: 60,
        extra: accepted.extra.clone(),
    })
}

/// The JSON of a token payment. What holds up pays what was asked; with a signature that proves the payer it says what
/// one of the golden payments says, since only those were signed.
pub fn x402_payload(data: &[u8]) {
    let _ = Payload::decode(data, Version::V1);
    let _ = svm::message(data);
    let Ok(value) = json::parse(data) else { return };
    let _ = Payload::from_json(value.clone(), Version::V1);
    let Ok(payload) = Payload::from_json(value, Version::V2) else { return };
    let again = json::parse(payload.raw.to_string().as_bytes()).expect("what was read is JSON");
    assert_eq!(
        Payload::from_json(again, Version::V2).as_ref(),
        Ok(&payload),
        "the facilitator would see another payment"
    );
    let Some(asked) = asked(&payload) else { return };
    let Ok(checked) = exact::check(&payload, &asked, 1_740_672_100, 5) else { return };
    match &payload.kind {
        PayloadKind::Eip3009 { authorization, .. } => {
            assert_eq!(
                (authorization.to.to_string(), authorization.value.as_u128()),
                (asked.pay_to, Some(asked.amount))
            );
        }
        PayloadKind::Permit2 { authorization, .. } => {
            assert_eq!(
                (authorization.witness.to.to_string(), authorization.amount.as_u128()),
                (asked.pay_to, Some(asked.amount))
            );
        }
        other => panic!("{other:?} on a chain of Ethereum"),
    }
    let payer = checked.payer.expect("a payer").to_string();
    assert!(!checked.recovered || payer == "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266", "{payer} signed nothing");
}

/// A facilitator's answer and a receipt. Money moved only where the answer says so in so many words.
pub fn facilitator(data: &[u8]) {
    let member = |name| json::parse(data).ok().and_then(|value| value.get(name)?.as_bool());
    for status in [200, 402, 500] {
        match facilitator::settle_verdict(status, data) {
            SettleVerdict::Success(_) => assert_eq!(member("success"), Some(true)),
            SettleVerdict::Refused(reason, _) => {
                assert_eq!(member("success"), Some(false));
                assert!(!reason.is_empty() && reason != facilitator::SETTLEMENT_PENDING);
            }
            SettleVerdict::Unknown { answer, .. } => assert!(answer.is_none_or(|answer| !answer.success)),
        }
        match facilitator::verify_verdict(status, data) {
            VerifyVerdict::Valid(_) => assert_eq!((member("isValid"), status), (Some(true), 200)),
            VerifyVerdict::Invalid(_) => assert_eq!(member("isValid"), Some(false)),
            VerifyVerdict::Unknown(_) => {}
        }
    }
    let _ = facilitator::supported(data);
    if let Some(receipt) = Receipt::decode(data) {
        assert_eq!(Receipt::decode(receipt.encode(Version::V2).as_bytes()), Some(receipt));
    }
}

/// Addresses, numbers and networks: one number has one spelling, an address those of its case.
pub fn evm(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(address) = Address::parse(text) {
        assert!(address.to_string().eq_ignore_ascii_case(text));
    }
    if let Ok(number) = U256::parse(text) {
        assert_eq!(number.to_string(), text);
        assert_eq!(U256::from_be_bytes(number.to_be_bytes()), number);
    }
    if let Ok(network) = Network::parse(text) {
        assert_eq!(network.as_str(), text);
        assert!(network.evm_chain_id().is_none_or(|id| text == format!("eip155:{id}")));
    }
}

/// The fields in which an origin names an amount: never more than was signed, whatever they say.
pub fn origin_amount(data: &[u8]) {
    static TOKEN: OnceLock<Token> = OnceLock::new();
    let token = TOKEN.get_or_init(|| {
        let network = Network::parse("eip155:84532").unwrap();
        let address = "0x036CbD53842c5426634e7929541eC2318f3dCF7e";
        Token {
            book: Token::book_name(&network, address),
            network,
            address: address.into(),
            symbol: "USDC".into(),
            decimals: 6,
            currency: Currency::parse("USD").unwrap(),
            pay_to: address.into(),
            transfer: Transfer::Eip3009 { name: "USDC".into(), version: "2".into() },
            facilitator: None,
        }
    });
    let Some(said) = Said::of(&headers(data)) else { return };
    let maximum = token.units(Money::parse("0.01 USD").unwrap()).unwrap();
    if let Ok(actual) = said.actual(token, maximum) {
        assert!(actual.units <= maximum && actual.atomic == token.atomic(actual.units));
    }
}

/// A message of MCP: what is cut out is the payment and nothing else, and what goes on is read again as the same call. A
/// success can take a receipt. A stream is the same in one piece and in many.
pub fn mcp(data: &[u8]) {
    let value = |text: &[u8]| serde_json::from_slice::<serde_json::Value>(text).ok();
    if let Ok(request::Body::One(message)) = request::read(data) {
        let forwarded = message.forwarded();
        let Ok(request::Body::One(again)) = request::read(&forwarded) else {
            panic!("the server would read no message")
        };
        assert_eq!((&again.call, &again.method, again.is_cut()), (&message.call, &message.method, false));
        assert_eq!(again.bought(), message.bought());
        if let (Some(mut before), Some(after)) = (value(data), value(&forwarded)) {
            if let Some(meta) = before.pointer_mut("/params/_meta").and_then(serde_json::Value::as_object_mut) {
                meta.shift_remove(mcp_wire::PAYMENT);
            }
            assert_eq!(before, after);
        }
    }
    let Ok(text) = std::str::from_utf8(data) else { return };
    if answer::judge(text, &request::Id::Number(1)) == answer::Judged::Success {
        let paid = answer::with_receipt(text, "{\"success\":true}").expect("a success takes no receipt");
        assert_eq!(answer::judge(&paid, &request::Id::Number(1)), answer::Judged::Success);
        if let (Some(before), Some(after)) = (value(data), value(paid.as_bytes())) {
            assert_eq!(after["result"]["_meta"][mcp_wire::PAYMENT_RESPONSE]["success"], true);
            assert!(
                before["result"]
                    .as_object()
                    .unwrap()
                    .keys()
                    .all(|name| !after["result"][name].is_null() || before["result"][name].is_null())
            );
        }
        let event = events::with_data(&events::event(text), &paid);
        assert_eq!(value(events::data(&event).unwrap_or_default().as_bytes()), value(paid.as_bytes()));
    }
    let split = |size: usize| {
        let (mut splitter, mut found) = (events::Splitter::new(1 << 20), Vec::new());
        for chunk in data.chunks(size) {
            splitter.push(chunk);
            while let Ok(Some(event)) = splitter.event() {
                found.push(event);
            }
        }
        let said: Vec<String> = found.iter().filter_map(|event| events::data(event)).collect();
        (said, [found.concat(), splitter.rest()].concat())
    };
    let whole = split(data.len().max(1));
    assert_eq!(whole.1, data);
    assert_eq!((split(1), split(3)), (whole.clone(), whole));
    let _ = uri::is_normal(text);
}
