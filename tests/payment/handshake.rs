//! What a paying agent gets, in each of the forms that the documents print.

use crate::support::agent::{Signed, field_offer};
use crate::support::client::get;
use crate::support::gateway::tollgate;
use crate::support::*;

#[test]
fn an_offer_is_complete_and_not_cached() {
    let (origin, agent) = (Origin::start(), Agent::start());
    let gateway = paid_site(&origin, &agent);
    let offer = get(gateway.addr, "/paid/page?q=1");
    assert_eq!((offer.status, offer.reason()), (402, "payment_required"));
    assert_eq!(offer.header("content-type"), Some("application/json"));
    assert_eq!(offer.header("cache-control"), Some("no-store"));
    let (body, field) = (offer.json(), field_offer(&offer));
    let entry = &body["accepts"][0];
    assert_eq!(entry["resource"], format!("http://{}/paid/page?q=1", gateway.addr));
    assert_eq!((&entry["scheme"], &entry["amount"], &entry["asset"]), (&"deferred".into(), &"1".into(), &"USD".into()));
    assert_eq!(
        (&entry["extras"]["price"], &entry["extras"]["termsUrl"]),
        (&"0.01 USD".into(), &"https://example.com/terms".into())
    );
    assert_eq!(body["error"], "payment_required");
    assert_eq!(field["x402Version"], 2);
    assert_eq!(field["accepts"][0]["extra"], entry["extras"]);
    assert_eq!(field["resource"]["url"], entry["resource"]);
    assert_ne!(get(gateway.addr, "/paid/page?q=1").json()["accepts"][0]["extras"]["id"], entry["extras"]["id"]);
    assert_eq!(origin.calls(), 0);
}

#[test]
fn a_signed_retry_buys_the_page_and_leaves_a_row() {
    let (origin, agent) = (Origin::start(), Agent::start());
    let gateway = paid_site(&origin, &agent);
    let request = agent.request(gateway.addr, "GET", "/paid/page?q=1");
    let id = request.payment.rsplit('"').nth(1).unwrap().to_owned();
    let answer = exchange(gateway.addr, request.head());
    assert_eq!((answer.status, answer.text().as_str()), (200, "content of /paid/page?q=1"), "{answer:?}");
    let response = answer.header("payment-response").unwrap();
    let expect = format!(r#"scheme="deferred", network="tollgate:deferred", id="{id}", timestamp="#);
    assert!(response.starts_with(&expect), "{response}");
    assert_eq!(answer.header("cache-control"), Some("private"));
    let seen = origin.last();
    assert_eq!(seen.header("tollgate-agent"), Some(agent.url.as_str()));
    assert_eq!(seen.header("tollgate-account"), Some("acme"));
    assert_eq!(seen.header("tollgate-payment-id"), Some(id.as_str()));
    assert_eq!(seen.header("tollgate-attempt"), Some("1"));
    assert!(!seen.has("payment") && seen.has("signature"));

    let (_, dir) = gateway.stop();
    let (code, out, err) = tollgate(dir.path(), &["ledger", "list", "--json", "--ledger", "tollgate.sqlite"]);
    assert_eq!(code, 0, "{err}");
    let row: serde_json::Value = serde_json::from_str(out.lines().next().unwrap()).unwrap();
    assert_eq!(
        (row["account"].as_str(), row["amount"].as_str(), row["status"].as_i64()),
        (Some("acme"), Some("0.01"), Some(200)),
        "{row}"
    );
    assert_eq!(row["agent"], agent.url.as_str());
    assert_eq!(row["outcome"]["delivery"], "complete", "{row}");
    let (code, out, _) = tollgate(dir.path(), &["ledger", "audit", "--ledger", "tollgate.sqlite"]);
    assert_eq!(code, 0, "{out}");
}

/// Buys once in the form that `change` makes.
fn buys(change: impl FnOnce(&mut Signed)) {
    let (origin, agent) = (Origin::start(), Agent::start());
    let gateway = paid_site(&origin, &agent);
    let answer = exchange(gateway.addr, agent.request(gateway.addr, "GET", "/paid/page?q=1").with(change).head());
    assert_eq!(answer.status, 200, "{answer:?} {}", answer.text());
}

#[test]
fn the_legacy_string_form_of_the_agent_is_read() {
    buys(|r| {
        r.agent = r.agent.replace("sig1=", "");
        r.covers = ["@authority", "payment", "signature-agent"].map(String::from).to_vec();
    });
}

#[test]
fn a_dictionary_covered_whole_is_read() {
    buys(|r| r.covers = ["@authority", "payment", "signature-agent"].map(String::from).to_vec());
}

#[test]
fn the_coverage_that_the_proposal_prints_is_enough_with_an_id_of_ours() {
    buys(|r| r.covers = ["payment", "signature-agent"].map(String::from).to_vec());
}

#[test]
fn every_derived_component_can_be_covered() {
    buys(|r| {
        r.covers = [
            "@method",
            "@target-uri",
            "@authority",
            "@scheme",
            "@path",
            "@query",
            "@request-target",
            "payment",
            "signature-agent;sig1",
        ]
        .map(String::from)
        .to_vec();
    });
}

#[test]
fn an_offer_says_what_has_to_be_signed() {
    let (origin, agent) = (Origin::start(), Agent::start());
    let asked = |settings: &str, accept: &str| {
        let more = format!("[[routes]]\npath = \"/asked\"\nprice = \"0.01 USD\"\naccept = [{accept}]\n");
        let toml = site_toml(&origin, &agent, &more).replace("[deferred]\n", &format!("[deferred]\n{settings}\n"));
        let gateway = Gateway::start(&toml);
        let answer = get(gateway.addr, "/asked");
        assert_eq!(answer.status, 402);
        answer.header("accept-signature").map(str::to_owned)
    };
    let field = |components: &str| {
        Some(format!(r#"sig1=({components} "signature-agent";key="sig1");created;expires;tag="web-bot-auth""#))
    };
    assert_eq!(asked("", "\"deferred\""), field("\"payment\""));
    assert_eq!(asked("require_authority = true", "\"deferred\""), field("\"@authority\" \"payment\""));
    let path = "\"@method\" \"@path\" \"payment\"";
    assert_eq!(asked("require_path = true", "\"deferred\", \"crawl\""), field(path));
    assert_eq!(asked("", "\"batch-settlement\""), field("\"@authority\" \"payment-signature\""));
    assert_eq!(asked("", "\"crawl\""), field("\"@authority\" \"crawler-exact-price\""));
}

#[test]
fn fields_may_be_covered_strictly_or_as_bytes_and_single_query_parameters() {
    let (origin, agent) = (Origin::start(), Agent::start());
    let gateway = paid_site(&origin, &agent);
    let covers = ["@method", "@authority", "@query-param?q", "payment!sf", "signature-agent!bs", "accept!bs"];
    let request = agent.request(gateway.addr, "GET", "/paid/page?q=a+b&r=1").with(|r| {
        r.covers = covers.map(String::from).to_vec();
        // Strictly: two spaces are one.
        r.payment = r.payment.replace(", ", ",  ");
        r.signed.push(("accept".into(), "text/html;q=0.5".into()));
    });
    let answer = exchange(gateway.addr, request.head());
    assert_eq!(answer.status, 200, "{}", answer.text());
    // Bytes of the payment field would be covered, and its text could not be shown from the signed base.
    let bytes = agent.request(gateway.addr, "GET", "/paid/page?q=a").with(|r| {
        r.covers = ["@authority", "payment!bs", "signature-agent;sig1"].map(String::from).to_vec();
    });
    let answer = exchange(gateway.addr, bytes.head());
    assert_eq!((answer.status, answer.reason()), (400, "invalid_signature"));
    let twice = agent.request(gateway.addr, "GET", "/paid/page?q=a").with(|r| {
        r.covers = ["@authority", "@query-param?q", "payment", "signature-agent;sig1"].map(String::from).to_vec();
    });
    let head = twice.head().replace("?q=a ", "?q=a&q=a ");
    let answer = exchange(gateway.addr, head);
    assert_eq!(answer.status, 402, "the id is for another query: {answer:?}");
    let dir = gateway.stop().1;
    let (_, rows, _) = tollgate(dir.path(), &["ledger", "list", "--json", "--ledger", "tollgate.sqlite"]);
    let row: serde_json::Value = serde_json::from_str(rows.trim()).unwrap();
    let n = row["n"].as_str().unwrap();
    let (code, out, _) = tollgate(dir.path(), &["ledger", "verify", n, "--ledger", "tollgate.sqlite"]);
    assert_eq!(code, 0, "{out}");
}

#[test]
fn tokens_and_unknown_members_are_read_in_the_payment() {
    buys(|r| r.payment = r.payment.replace("\"deferred\"", "deferred") + ", note=\"hi\"");
}

#[test]
fn alg_may_say_what_the_key_says() {
    buys(|r| r.alg = Some("ed25519".into()));
}

#[test]
fn a_signature_that_is_not_for_us_does_not_harm() {
    let (origin, agent) = (Origin::start(), Agent::start());
    let gateway = paid_site(&origin, &agent);
    let request = agent.request(gateway.addr, "GET", "/paid/page");
    let mut fields = request.fields();
    fields[2].1.insert_str(0, r#"other=("@method");created=1;tag="x", "#);
    fields[3].1.insert_str(0, "other=:AAAA:, lone=:AAAA:, ");
    let fields: String = fields.iter().map(|(n, v)| format!("{n}: {v}\r\n")).collect();
    let answer = exchange(
        gateway.addr,
        format!("GET /paid/page HTTP/1.1\r\nHost: {}\r\n{fields}Connection: close\r\n\r\n", gateway.addr),
    );
    assert_eq!(answer.status, 200, "{}", answer.text());
}

#[test]
fn the_bare_base64_signature_that_the_proposal_prints_is_read() {
    let (origin, agent) = (Origin::start(), Agent::start());
    let gateway = paid_site(&origin, &agent);
    let head = agent.request(gateway.addr, "GET", "/paid/page").head();
    let answer =
        exchange(gateway.addr, head.replace("Signature: sig1=:", "Signature: sig1=").replace("=:\r\n", "=\r\n"));
    assert_eq!(answer.status, 200, "{}", answer.text());
}

#[test]
fn head_costs_what_get_costs_and_an_id_for_one_buys_the_other() {
    let (origin, agent) = (Origin::start(), Agent::start());
    let gateway = paid_site(&origin, &agent);
    let answer = exchange(gateway.addr, agent.request(gateway.addr, "HEAD", "/paid/page").head());
    assert_eq!((answer.status, answer.body.len()), (200, 0));
    assert!(answer.header("payment-response").is_some());
    let swapped = agent.request(gateway.addr, "GET", "/paid/page").with(|r| r.method = "HEAD".into());
    assert_eq!(exchange(gateway.addr, swapped.head()).status, 200);
}

#[test]
fn a_post_with_a_body_is_paid_and_its_body_arrives() {
    let (origin, agent) = (Origin::start(), Agent::start());
    let gateway = paid_site(&origin, &agent);
    let request = agent.request(gateway.addr, "POST", "/paid/api");
    let answer = exchange(gateway.addr, request.head_with("Content-Length: 5\r\nConnection: close\r\n") + "hello");
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(origin.last().body, b"hello");
}

#[test]
fn an_offer_outlives_a_restart() {
    let (origin, agent) = (Origin::start(), Agent::start());
    let toml = site_toml(&origin, &agent, "");
    let gateway = Gateway::start(&toml);
    let (addr, request) = (gateway.addr, agent.request(gateway.addr, "GET", "/paid/page"));
    let dir = gateway.kill();
    // Another price and other terms now: the quote stands as it was given.
    let toml =
        toml.replace("127.0.0.1:0", &addr.to_string()).replace("0.01 USD", "5 USD").replace("/terms", "/new-terms");
    let gateway = Gateway::start_in(dir, &toml);
    let answer = exchange(gateway.addr, request.head());
    assert_eq!(answer.status, 200, "{}", answer.text());
    let (_, dir) = gateway.stop();
    let (_, out, _) = tollgate(dir.path(), &["ledger", "list", "--json", "--ledger", "tollgate.sqlite"]);
    assert_eq!(serde_json::from_str::<serde_json::Value>(out.lines().next().unwrap()).unwrap()["amount"], "0.01");
}

#[test]
fn a_preflight_names_head_wherever_get_is_allowed() {
    let (origin, agent) = (Origin::start(), Agent::start());
    let route = |path: &str, methods: &str| {
        format!("[[routes]]\npath = \"{path}\"\nmethods = [{methods}]\nprice = \"0.01 USD\"\n")
    };
    let more = [
        route("/read", "\"GET\""),
        route("/both", "\"HEAD\", \"GET\""),
        route("/rw", "\"GET\", \"POST\""),
        route("/write", "\"POST\""),
    ];
    let gateway = Gateway::start(&site_toml(&origin, &agent, &more.concat()));
    let lines = "Host: x\r\nOrigin: https://app.example\r\nConnection: close\r\n";
    for (path, method, expect) in [
        ("/read", "GET", "GET, HEAD"),
        ("/read", "HEAD", "GET, HEAD"),
        ("/both", "GET", "HEAD, GET"),
        ("/rw", "POST", "GET, HEAD, POST"),
        ("/write", "POST", "POST"),
        ("/paid/page", "GET", "GET, HEAD, POST, PUT, PATCH, DELETE"),
    ] {
        let asks = format!("OPTIONS {path} HTTP/1.1\r\n{lines}Access-Control-Request-Method: {method}\r\n\r\n");
        let answer = exchange(gateway.addr, asks);
        let mut allowed: Vec<_> = answer.header("access-control-allow-methods").unwrap_or("").split(", ").collect();
        let mut expect: Vec<_> = expect.split(", ").collect();
        allowed.sort_unstable();
        expect.sort_unstable();
        assert_eq!(allowed, expect, "{path} {method}: {answer:?}");
    }
}

#[test]
fn a_preflight_on_a_priced_route_is_answered_without_payment() {
    let (origin, agent) = (Origin::start(), Agent::start());
    let gateway = paid_site(&origin, &agent);
    let preflight = |path: &str| {
        exchange(
            gateway.addr,
            format!(
                "OPTIONS {path} HTTP/1.1\r\nHost: x\r\nOrigin: https://app.example\r\nAccess-Control-Request-Method: GET\r\nConnection: close\r\n\r\n"
            ),
        )
    };
    let answer = preflight("/paid/page");
    assert_eq!((answer.status, origin.calls()), (204, 0));
    assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
    let allowed = answer.header("access-control-allow-headers").unwrap().to_ascii_lowercase();
    for name in [
        "payment",
        "signature",
        "signature-input",
        "signature-agent",
        "payment-signature",
        "access-control-expose-headers",
    ] {
        assert!(allowed.split(", ").any(|n| n == name), "{name}");
    }
    assert_eq!((preflight("/free").status, origin.calls()), (200, 1));
    let offer = exchange(
        gateway.addr,
        "GET /paid/x HTTP/1.1\r\nHost: x\r\nOrigin: https://app.example\r\nConnection: close\r\n\r\n",
    );
    assert_eq!(offer.header("access-control-allow-origin"), Some("*"));
    assert!(offer.header("access-control-expose-headers").unwrap().contains("PAYMENT-REQUIRED"));
}

#[test]
fn robots_txt_and_the_like_are_free_even_where_everything_is_priced() {
    let (origin, agent) = (Origin::start(), Agent::start());
    let gateway = Gateway::start(&site_toml(&origin, &agent, "[[routes]]\npath = \"/*\"\nprice = \"0.01 USD\"\n"));
    assert_eq!(get(gateway.addr, "/anything").status, 402);
    for path in [
        "/robots.txt",
        "/sitemap.xml",
        "/security.txt",
        "/crawlers.json",
        "/.well-known/security.txt",
        "/.well-known/http-message-signatures-directory",
        "/.well-known/acme-challenge/token_1",
    ] {
        assert_eq!(get(gateway.addr, path).status, 200, "{path}");
    }
}

#[test]
fn no_payment_and_no_secret_reaches_the_log() {
    let (origin, agent) = (Origin::start(), Agent::start());
    let gateway = Gateway::start(&site_toml(&origin, &agent, "[telemetry]\nlog = \"tollgate=trace\"\n"));
    let request = agent.request(gateway.addr, "GET", "/paid/page");
    assert_eq!(exchange(gateway.addr, request.head()).status, 200);
    // Refused payments are told about, without what they carry.
    assert_eq!(exchange(gateway.addr, request.head()).status, 402);
    assert_eq!(exchange(gateway.addr, request.clone().with(|r| r.tag = "x".into()).head()).status, 400);
    let (_, dir) = gateway.stop();
    let read = |name: &str| std::fs::read_to_string(dir.path().join(name)).unwrap();
    let (log, secret) = (read("stderr.log"), read("tollgate-secret.json"));
    assert!(log.contains("already_used"), "refusals are not logged: {log}");
    let secret: serde_json::Value = serde_json::from_str(&secret).unwrap();
    let id = request.payment.rsplit('"').nth(1).unwrap();
    let signature = request.fields()[3].1.clone();
    for hidden in [secret[0]["secret"].as_str().unwrap(), id, signature.split(':').nth(1).unwrap()] {
        assert!(!log.contains(hidden), "{log}");
    }
}
