//! What is refused: each with its code, the origin untouched, nothing written.

use crate::support::agent::{Signed, now};
use crate::support::gateway::tollgate;
use crate::support::*;

/// Sends one bent request; nothing may reach the origin or the books.
fn refused(status: u16, reason: &str, change: impl FnOnce(&mut Signed)) {
    let (origin, agent) = (Origin::start(), Agent::start());
    let gateway = paid_site(&origin, &agent);
    let answer = exchange(gateway.addr, agent.request(gateway.addr, "GET", "/paid/page?q=1").with(change).head());
    assert_eq!((answer.status, answer.reason()), (status, reason), "{}", answer.text());
    assert!(answer.header("payment-response").is_none());
    if matches!(status, 400 | 402) {
        assert!(answer.json()["accepts"][0]["extras"]["id"].is_string(), "no fresh offer: {}", answer.text());
    }
    assert_eq!(origin.calls(), 0, "the origin was called");
    assert_eq!(rows(gateway), 0, "something was written");
}

/// Rows of the ledger after the gateway ended.
fn rows(gateway: Gateway) -> usize {
    let (status, dir) = gateway.stop();
    assert!(status.success(), "{status}");
    let (code, out, err) = tollgate(dir.path(), &["ledger", "list", "--json", "--ledger", "tollgate.sqlite"]);
    assert_eq!(code, 0, "{err}");
    out.lines().count()
}

#[test]
fn an_id_that_is_not_ours() {
    refused(402, "unknown_offer", |r| r.payment = r.payment.replace(r.payment.rsplit('"').nth(1).unwrap(), "abc123"));
    refused(402, "unknown_offer", |r| {
        let id = r.payment.rsplit('"').nth(1).unwrap().to_owned();
        let flipped = if id.as_bytes()[30] == b'A' { "B" } else { "A" };
        r.payment = r.payment.replace(&id, &format!("{}{flipped}{}", &id[..30], &id[31..]));
    });
}

#[test]
fn an_id_for_another_resource_or_method() {
    refused(402, "other_resource", |r| r.target = "/paid/other?q=1".into());
    refused(402, "other_resource", |r| r.target = "/paid/page".into());
    refused(402, "other_resource", |r| r.method = "DELETE".into());
    refused(402, "other_resource", |r| r.authority = "other.example".into());
}

#[test]
fn another_scheme_or_network() {
    refused(402, "unsupported_scheme", |r| r.payment = r.payment.replace("\"deferred\"", "\"exact\""));
    refused(402, "unsupported_scheme", |r| r.payment = r.payment.replace("tollgate:deferred", "tollgate:other"));
    refused(400, "invalid_payment", |r| r.payment = "scheme=deferred".into());
    refused(400, "several_payments", |r| r.extra = "X-PAYMENT: e30=\r\n".into());
}

#[test]
fn times_that_do_not_fit() {
    refused(400, "signature_expired", |r| (r.created, r.expires) = (now() - 200, now() - 100));
    refused(400, "signature_expired", |r| (r.created, r.expires) = (now() + 100, now() + 200));
    refused(400, "signature_expired", |r| r.expires = r.created);
    refused(400, "signature_expired", |r| r.expires = r.created + 86_401);
}

#[test]
fn a_signature_that_does_not_cover_what_it_must() {
    let covers = |list: &[&str]| {
        let list: Vec<String> = list.iter().map(|c| (*c).to_owned()).collect();
        move |r: &mut Signed| r.covers = list
    };
    refused(400, "invalid_signature", covers(&[]));
    refused(400, "invalid_signature", covers(&["@authority", "signature-agent"]));
    refused(400, "invalid_signature", covers(&["@authority", "payment"]));
}

#[test]
fn a_signature_that_does_not_verify() {
    refused(400, "invalid_signature", |r| r.key = ed25519_dalek::SigningKey::from_bytes(&[9; 32]));
    refused(403, "key_unknown", |r| r.keyid = "nobody".into());
    refused(400, "invalid_signature", |r| r.tag = "other".into());
    refused(400, "invalid_signature", |r| r.alg = Some("hmac-sha256".into()));
}

#[test]
fn any_edited_byte_of_what_is_signed() {
    let (origin, agent) = (Origin::start(), Agent::start());
    let gateway = paid_site(&origin, &agent);
    let head = agent.request(gateway.addr, "GET", "/paid/page?q=1").head();
    for (from, to) in [
        ("Signature: sig1=:", "Signature: sig1=:AAAA"),
        (";created=", ";created=1"),
        ("web-bot-auth", "web-bot-autt"),
        ("\"@method\" ", ""),
        ("(\"@authority\"", "(\"@scheme\" \"@authority\""),
        ("GET ", "HEAD "),
        ("keyid=\"", "keyid=\"x"),
        ("Signature-Agent: sig1=\"http://127", "Signature-Agent: sig1=\"http://126"),
        ("Payment: ", "Payment: a=1, "),
    ] {
        let bent = head.replacen(from, to, 1);
        assert_ne!(bent, head, "{from}");
        let answer = exchange(gateway.addr, &bent);
        assert!(matches!(answer.status, 400 | 402 | 403), "{from}: {}", answer.status);
    }
    assert_eq!(origin.calls(), 0);
    assert_eq!(exchange(gateway.addr, &head).status, 200);
}

#[test]
fn an_agent_without_account_learns_where_to_register() {
    let (origin, agent, stranger) = (Origin::start(), Agent::start(), Agent::start());
    let gateway = paid_site(&origin, &agent);
    let answer = stranger.buy(gateway.addr, "/paid/page");
    assert_eq!((answer.status, answer.reason()), (403, "signature_agent_unknown"));
    assert_eq!(answer.json()["registrationUrl"], "https://example.com/register");
    assert_eq!((stranger.directory.calls(), origin.calls()), (0, 0), "a stranger made the gateway connect");
}

#[test]
fn a_key_of_one_agent_does_not_sign_for_another() {
    let (origin, agent, thief) = (Origin::start(), Agent::start(), Agent::start());
    let more = format!("[[accounts]]\nname = \"thief\"\nagents = [\"{}\"]\ncredit = \"1 USD\"\n", thief.url);
    let gateway = Gateway::start(&site_toml(&origin, &agent, &more));
    // The thief's key is known to the gateway, for the thief.
    assert_eq!(thief.buy(gateway.addr, "/paid/page").status, 200);
    let forged = thief.request(gateway.addr, "GET", "/paid/page").with(|r| r.agent = format!("sig1=\"{}\"", agent.url));
    let answer = exchange(gateway.addr, forged.head());
    assert_eq!((answer.status, answer.reason(), origin.calls()), (403, "key_unknown", 1));
}

#[test]
fn a_blocked_account() {
    let (origin, agent) = (Origin::start(), Agent::start());
    let toml = site_toml(&origin, &agent, "").replace("credit = \"1000 USD\"", "credit = \"1000 USD\"\nblocked = true");
    let gateway = Gateway::start(&toml);
    let answer = agent.buy(gateway.addr, "/paid/page");
    assert_eq!((answer.status, answer.reason(), origin.calls()), (403, "blocked", 0));
    assert_eq!(agent.directory.calls(), 0);
}

#[test]
fn an_account_that_owes_in_another_currency() {
    let (origin, agent) = (Origin::start(), Agent::start());
    let more = "[[accounts]]\nname = \"other\"\nagents = [\"https://other.example\"]\ncredit = \"1 USD\"\n";
    let toml = site_toml(&origin, &agent, more).replace("1000 USD", "1000 EUR");
    let gateway = Gateway::start(&toml);
    let answer = agent.buy(gateway.addr, "/paid/page");
    assert_eq!((answer.status, answer.reason(), origin.calls()), (402, "unsupported_scheme", 0));
    let error = answer.json().to_string();
    assert!(error.contains("owes EUR") && error.contains("in USD"), "{error}");
    assert_eq!(rows(gateway), 0);
}

#[test]
fn a_replay_in_the_same_process_and_after_a_restart() {
    let (origin, agent) = (Origin::start(), Agent::start());
    let toml = site_toml(&origin, &agent, "");
    let gateway = Gateway::start(&toml);
    let request = agent.request(gateway.addr, "GET", "/paid/page");
    let head = request.head();
    assert_eq!(exchange(gateway.addr, &head).status, 200);
    for again in [head.clone(), request.clone().with(|r| r.expires += 5).head()] {
        let answer = exchange(gateway.addr, again);
        assert_eq!((answer.status, answer.reason()), (402, "already_used"));
        assert!(answer.header("tollgate-receipt").is_some() && answer.json()["accepts"][0]["extras"]["id"].is_string());
    }
    let addr = gateway.addr.to_string();
    let gateway = Gateway::start_in(gateway.stop().1, &toml.replace("127.0.0.1:0", &addr));
    let answer = exchange(gateway.addr, &head);
    assert_eq!((answer.status, answer.reason(), origin.calls()), (402, "already_used", 1));
    assert_eq!(rows(gateway), 1);
}

#[test]
fn one_payment_sent_64_times_at_once_is_served_once() {
    let (origin, agent) = (Origin::start(), Agent::start());
    let gateway = paid_site(&origin, &agent);
    assert_eq!(agent.buy(gateway.addr, "/paid/warm").status, 200);
    for round in 0..5 {
        let head = agent.request(gateway.addr, "GET", &format!("/paid/{round}")).head();
        let before = origin.calls();
        let barrier = std::sync::Barrier::new(64);
        let answers: Vec<_> = std::thread::scope(|scope| {
            let send = || {
                barrier.wait();
                exchange(gateway.addr, &head)
            };
            let threads: Vec<_> = (0..64).map(|_| scope.spawn(send)).collect();
            threads.into_iter().map(|t| t.join().unwrap()).collect()
        });
        assert_eq!(answers.iter().filter(|a| a.status == 200).count(), 1);
        assert!(answers.iter().all(|a| a.status == 200 || matches!(a.reason(), "already_used" | "payment_in_flight")));
        assert_eq!(origin.calls() - before, 1, "the origin was called more than once");
    }
    assert_eq!(rows(gateway), 6);
}

#[test]
fn credit_ends_exactly_at_the_limit() {
    let (origin, agent) = (Origin::start(), Agent::start());
    let gateway = Gateway::start(&site_toml(&origin, &agent, "").replace("1000 USD", "0.05 USD"));
    for i in 0..5 {
        assert_eq!(agent.buy(gateway.addr, &format!("/paid/{i}")).status, 200);
    }
    let answer = agent.buy(gateway.addr, "/paid/6");
    assert_eq!((answer.status, answer.reason(), origin.calls()), (402, "credit_exhausted", 5));
    assert!(answer.header("retry-after").unwrap().parse::<u64>().unwrap() > 0);
    assert_eq!(rows(gateway), 5);
}

#[test]
fn an_expired_offer() {
    let (origin, agent) = (Origin::start(), Agent::start());
    let toml = site_toml(&origin, &agent, "[offers]\nttl_seconds = 10\n");
    let gateway = Gateway::start(&toml);
    // An id whose time is long past, sealed with the gateway's own secret.
    let secrets = std::fs::read_to_string(gateway.dir.path().join("tollgate-secret.json")).unwrap();
    let secrets = tollgate::payment::secrets::Secrets::parse(&secrets).unwrap();
    let config = tollgate::config::load(&gateway.dir.path().join("tollgate.toml"), std::iter::empty()).unwrap();
    let offers = tollgate::proxy::core::Shared::offers_of(&config);
    let authority = gateway.addr.to_string();
    let resource = tollgate::payment::id::Resource {
        method: "GET",
        authority: &authority,
        path: "/paid/page",
        query: "",
        tool: "",
    };
    let offer = offers[0].as_ref().unwrap();
    let seal = |age_s: i64| {
        let ms = ((now() - age_s) * 1000) as u64;
        tollgate::payment::id::SealedId::seal(
            &secrets,
            ms,
            [1; 7],
            &offer.entries[0].term,
            offer.entries[0].amount,
            &resource,
        )
        .unwrap()
    };
    let buy =
        |age_s| exchange(gateway.addr, agent.signed(&authority, "GET", "/paid/page", &seal(age_s).to_text()).head());
    let answer = buy(12);
    assert_eq!((answer.status, answer.reason(), origin.calls()), (402, "offer_expired", 0));
    assert_eq!(buy(5).status, 200);
}

#[test]
fn a_directory_that_is_down_is_neither_valid_nor_invalid() {
    let (origin, agent) = (Origin::start(), Agent::start());
    // Port 1 of this machine: nothing listens there.
    let toml = site_toml(&origin, &agent, "").replace(&agent.url, "http://127.0.0.1:1");
    let gateway = Gateway::start(&toml);
    let request =
        agent.request(gateway.addr, "GET", "/paid/page").with(|r| r.agent = "sig1=\"http://127.0.0.1:1\"".into());
    let answer = exchange(gateway.addr, request.head());
    assert_eq!((answer.status, answer.reason(), origin.calls()), (503, "directory_unavailable", 0));
    assert!(answer.header("retry-after").is_some());
}

#[test]
fn stricter_settings_refuse_what_the_proposal_allows() {
    let (origin, agent) = (Origin::start(), Agent::start());
    let toml = site_toml(&origin, &agent, "")
        .replace("[deferred]", "[deferred]\nrequire_authority = true\nrequire_path = true");
    let gateway = Gateway::start(&toml);
    let send = |covers: &[&str]| {
        let covers = covers.iter().map(|c| (*c).to_owned()).collect();
        exchange(gateway.addr, agent.request(gateway.addr, "GET", "/paid/p").with(|r| r.covers = covers).head())
    };
    assert_eq!(send(&["payment", "signature-agent"]).reason(), "invalid_signature");
    assert_eq!(send(&["@authority", "payment", "signature-agent"]).reason(), "invalid_signature");
    assert_eq!(send(&["@method", "@path", "payment", "signature-agent"]).reason(), "invalid_signature");
    assert_eq!(send(&["@method", "@target-uri", "payment", "signature-agent"]).status, 200);
    assert_eq!(send(&["@method", "@path", "@authority", "payment", "signature-agent"]).status, 200);
}

#[test]
fn what_is_too_long_to_be_kept_is_refused_before_the_origin_is_called() {
    let (origin, agent) = (Origin::start(), Agent::start());
    let gateway = paid_site(&origin, &agent);
    // Covered fields may be long, together longer than the books keep of one payment.
    let page = format!("/paid/page?q={}", "q".repeat(3000));
    let long = agent.request(gateway.addr, "GET", &page).with(|r| {
        for i in 0..7 {
            r.covers.push(format!("x-{i}"));
            r.signed.push((format!("x-{i}"), "v".repeat(8000)));
        }
        r.covers.extend(["@target-uri", "@request-target", "@query"].map(String::from));
    });
    for _ in 0..2 {
        let answer = exchange(gateway.addr, long.head());
        assert_eq!((answer.status, answer.reason()), (400, "invalid_signature"), "{}", answer.text());
    }
    assert_eq!(origin.calls(), 0, "the origin was called for an answer that cannot be charged");
    let method = "M".repeat(5000);
    let head = format!("{method} /paid/page HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n");
    assert_eq!(exchange(gateway.addr, head).reason(), "method_unsupported");
    assert_eq!(rows(gateway), 0);
}
