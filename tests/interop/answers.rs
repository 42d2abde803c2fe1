//! The same payments, wrong in one way each, presented to a gateway and to shops made with the official servers.

use std::io::Write as _;
use std::net::SocketAddr;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use tollgate::wire::evm::address::Address;
use tollgate::wire::evm::u256::U256;

use crate::stage::Stage;
use crate::support::agent::{field_offer, now};
use crate::support::client::exchange;
use crate::support::wallet::{Draft, Wallet};
use crate::support::*;

/// Status, and `error` of the offer; empty where there is no offer.
type Said = (u16, &'static str);

/// A payment, and what is answered to it.
struct Case {
    name: &'static str,
    path: &'static str,
    /// Before it is signed.
    bend: fn(&mut Draft),
    /// After that.
    then: fn(&mut Value),
    /// The field; `None` for none.
    field: fn(&Value) -> Option<String>,
    /// In version 2: ours, and that of `@x402/express`.
    v2: [Said; 2],
    /// In version 1, where it can be said: ours, and that of `x402-express`.
    v1: Option<[Said; 2]>,
    /// Why ours is another one.
    why: &'static str,
}

const GOOD: Case = Case {
    name: "good",
    path: "page",
    bend: |_| (),
    then: |_| (),
    field: |payload| Some(STANDARD.encode(payload.to_string())),
    v2: [(200, ""), (200, "")],
    v1: Some([(200, ""), (200, "")]),
    why: "",
};

const SPECIFIED: &str = "the specification's §9 has this string; newer SDKs of one vendor shortened it";
const OFFER: &str = "theirs is a sentence; §9 has a string for it";

/// Changes what the payload says it takes.
fn accepted(payload: &mut Value, name: &str, value: Value) {
    if payload["x402Version"] == 2 {
        payload["accepted"][name] = value;
    }
}

fn cases() -> Vec<Case> {
    let recipient = |draft: &mut Draft| {
        draft.authorization.to = Address::parse("0x9965507D1a55bcC2695C58ba16FB37d819B0A4dc").unwrap();
    };
    let flipped = |payload: &mut Value| {
        let mut text = payload["payload"]["signature"].as_str().unwrap().to_owned();
        let other = if &text[10..11] == "0" { "1" } else { "0" };
        text.replace_range(10..11, other);
        payload["payload"]["signature"] = json!(text);
    };
    let value = "invalid_exact_evm_payload_authorization_value_mismatch";
    let value_v1 = "invalid_exact_evm_authorization_value";
    let before = "invalid_exact_evm_payload_authorization_valid_before";
    let after = "invalid_exact_evm_payload_authorization_valid_after";
    let signature = "invalid_exact_evm_payload_signature";
    let receiver = "invalid_exact_evm_payload_recipient_mismatch";
    let balance = "invalid_exact_evm_insufficient_balance";
    let bad_signature = [(402, signature), (402, "invalid_exact_evm_signature")];
    vec![
        Case {
            name: "no payment",
            field: |_| None,
            v2: [(402, "payment_required"), (402, "Payment required")],
            v1: Some([(402, "payment_required"), (402, "X-PAYMENT header is required")]),
            why: "a stable code, the same in every scheme; `message` has a sentence",
            ..GOOD
        },
        GOOD,
        Case {
            name: "too little",
            bend: |draft| draft.authorization.value = U256::from(9_999_u64),
            v2: [(402, value), (402, value)],
            v1: Some([(402, value), (402, value_v1)]),
            why: SPECIFIED,
            ..GOOD
        },
        Case {
            name: "too much",
            bend: |draft| draft.authorization.value = U256::from(10_001_u64),
            v2: [(402, value), (402, value)],
            v1: Some([(402, value), (402, value_v1)]),
            why: SPECIFIED,
            ..GOOD
        },
        Case {
            name: "bad signature",
            then: flipped,
            v2: bad_signature,
            v1: Some(bad_signature),
            why: SPECIFIED,
            ..GOOD
        },
        Case {
            name: "signed for another token",
            bend: |draft| draft.domain.name = "USD Coin".to_owned(),
            v2: bad_signature,
            v1: Some(bad_signature),
            why: SPECIFIED,
            ..GOOD
        },
        Case {
            name: "wrong recipient",
            bend: recipient,
            v2: [(402, receiver), (402, "invalid_exact_evm_recipient_mismatch")],
            v1: Some([(402, receiver), (402, "invalid_exact_evm_recipient_mismatch")]),
            why: SPECIFIED,
            ..GOOD
        },
        Case {
            name: "expired",
            bend: |draft| draft.authorization.valid_before = U256::from(now() as u64 - 10),
            v2: [(402, before), (402, before)],
            v1: Some([(402, before), (402, before)]),
            ..GOOD
        },
        Case {
            name: "expires before a block can be made",
            bend: |draft| draft.authorization.valid_before = U256::from(now() as u64 + 3),
            v2: [(402, before), (402, before)],
            v1: Some([(402, before), (402, before)]),
            ..GOOD
        },
        Case {
            name: "valid for longer than asked",
            bend: |draft| draft.authorization.valid_before = U256::from(now() as u64 + 86_400),
            v2: [(402, before), (200, "")],
            v1: Some([(402, before), (200, "")]),
            why: "a spent payment has to be remembered for as long as it could be settled",
            ..GOOD
        },
        Case {
            name: "not valid yet",
            bend: |draft| draft.authorization.valid_after = U256::from(now() as u64 + 100),
            v2: [(402, after), (402, after)],
            v1: Some([(402, after), (402, after)]),
            ..GOOD
        },
        Case { name: POOR, v2: [(402, balance), (402, balance)], v1: Some([(402, balance), (402, balance)]), ..GOOD },
        Case {
            name: SPENT,
            v2: [(409, ""), (402, "invalid_exact_evm_nonce_already_used")],
            v1: Some([(409, ""), (402, "invalid_exact_evm_nonce_already_used")]),
            why: "402 makes clients pay a second time; 409 comes with the receipt",
            ..GOOD
        },
        Case {
            name: "takes a lower amount than offered",
            then: |payload| accepted(payload, "amount", json!("9999")),
            v2: [(402, "invalid_payment_requirements"), (402, "No matching payment requirements")],
            v1: None,
            why: OFFER,
            ..GOOD
        },
        Case {
            name: "takes another network than offered",
            then: |payload| accepted(payload, "network", json!("eip155:8453")),
            v2: [(402, "unsupported_scheme"), (402, "No matching payment requirements")],
            v1: None,
            why: OFFER,
            ..GOOD
        },
        Case {
            name: "takes the offer, with a member more",
            then: |payload| payload["accepted"]["extra"]["more"] = json!(1),
            v1: None,
            ..GOOD
        },
        Case {
            name: "takes the offer, with addresses in lower case",
            then: |payload| {
                let text = payload["accepted"]["payTo"].as_str().unwrap().to_ascii_lowercase();
                accepted(payload, "payTo", json!(text));
            },
            v2: [(200, ""), (402, "No matching payment requirements")],
            v1: None,
            why: "an address is the same in both cases",
            ..GOOD
        },
        Case {
            name: "paid for another resource",
            then: |payload| payload["resource"] = json!({"url": "http://other.example/paid/page"}),
            v2: [(402, "invalid_payment_requirements"), (200, "")],
            v1: None,
            why: "what was offered for one resource buys no other",
            ..GOOD
        },
        Case {
            name: "another network",
            then: |payload| {
                if payload["x402Version"] == 1 {
                    payload["network"] = json!("base");
                }
            },
            v1: Some([(402, "unsupported_scheme"), (402, "Unable to find matching payment requirements")]),
            why: OFFER,
            ..GOOD
        },
        Case {
            name: "nothing in the payload",
            then: |payload| payload["payload"] = json!({}),
            v2: [(402, "invalid_payload"), (402, "Facilitator verify failed (500)")],
            v1: Some([(402, "invalid_payload"), (402, "[")]),
            why: "theirs is an exception's text; no facilitator is asked",
            ..GOOD
        },
        Case {
            name: "an unknown version",
            then: |payload| payload["x402Version"] = json!(3),
            v2: [(400, ""), (402, "Unsupported x402 version: 3")],
            v1: None,
            why: "malformed is 400",
            ..GOOD
        },
        Case {
            name: "no base64",
            field: |_| Some("@@@".to_owned()),
            v2: [(400, ""), (402, "Payment required")],
            v1: None,
            why: "malformed is 400; they take it for no payment",
            ..GOOD
        },
        Case {
            name: "base64 without padding",
            field: |payload| {
                let mut payload = payload.clone();
                payload["note"] = json!("");
                loop {
                    let text = STANDARD.encode(payload.to_string());
                    if let Some(cut) = text.strip_suffix('=') {
                        return Some(cut.trim_end_matches('=').to_owned());
                    }
                    payload["note"] = json!(format!("{}.", payload["note"].as_str().unwrap()));
                }
            },
            ..GOOD
        },
        Case { name: "the origin fails", path: "broken", v2: [(500, ""), (500, "")], v1: None, ..GOOD },
    ]
}

const POOR: &str = "a wallet without money";
const SPENT: &str = "spent before";

/// What `shop` answers to a case in this version.
fn ask(stage: &Stage, case: &Case, shop: SocketAddr, prefix: &str, version: u8) -> (u16, String) {
    let stranger = Wallet::new();
    let wallet = if case.name == POOR { &stranger } else { &stage.payer };
    let path = format!("{prefix}/{}", case.path);
    let mut draft = if version == 1 { wallet.draft_v1(shop, &path) } else { wallet.draft(shop, &path) };
    (case.bend)(&mut draft);
    let mut payload = wallet.sign(&draft);
    (case.then)(&mut payload);
    let name = if version == 1 { "X-PAYMENT" } else { "PAYMENT-SIGNATURE" };
    let line = (case.field)(&payload).map_or(String::new(), |value| format!("{name}: {value}\r\n"));
    let request = format!("GET {path} HTTP/1.1\r\nHost: {shop}\r\n{line}Connection: close\r\n\r\n");
    let mut answer = exchange(shop, &request);
    if case.name == SPENT {
        assert_eq!(answer.status, 200, "{answer:?}");
        answer = exchange(shop, &request);
    }
    let offer = match version {
        1 => serde_json::from_slice(&answer.body).unwrap_or_default(),
        _ if answer.header("payment-required").is_some() => field_offer(&answer),
        _ => Value::Null,
    };
    let error = if answer.status == 402 { offer["error"].as_str().unwrap_or("(no error)") } else { "" };
    (answer.status, error.to_owned())
}

#[test]
fn refusals_are_those_of_official_servers_or_differ_for_a_reason() {
    let Some(stage) = Stage::enter() else { return };
    let (shop, old_shop) = (stage.server("express.mjs"), stage.server("v1-express.mjs"));
    let origin = Origin::scripted(|seen, socket| {
        let status = if seen.path() == "/exact/broken" { "500 Internal Server Error" } else { "200 OK" };
        write!(socket, "HTTP/1.1 {status}\r\nContent-Length: 2\r\n\r\nok").is_ok()
    });
    let gateway = stage.gateway(&origin, &Agent::start());
    let mut wrong = Vec::new();
    let mut paid = 0;
    let before = stage.tally();
    for case in cases() {
        let rows = [(2, Some(case.v2), shop.addr("url")), (1, case.v1, old_shop.addr("url"))];
        for (version, expected, official) in rows {
            let Some(expected) = expected else { continue };
            let ours = ask(&stage, &case, gateway.addr, "/exact", version);
            let theirs = ask(&stage, &case, official, "/paid", version);
            for (said, (status, error)) in [(&ours, expected[0]), (&theirs, expected[1])] {
                // Theirs may go on with the text of an exception.
                if said.0 != status || !said.1.starts_with(error) || (error.is_empty() && !said.1.is_empty()) {
                    wrong.push(format!("{} v{version}: {said:?}, not {:?}", case.name, (status, error)));
                }
                paid += u64::from(status == 200 || case.name == SPENT);
            }
            assert!(ours == theirs || !case.why.is_empty(), "{}: ours {ours:?}, theirs {theirs:?}", case.name);
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let after = stage.tally();
    assert_eq!((after.payee - before.payee, after.settled - before.settled), (paid * 10_000, paid));
    let (_, dir) = gateway.stop();
    Books::read(dir.path());
}
