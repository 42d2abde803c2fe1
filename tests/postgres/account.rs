//! An agent's own view where several gateways share the books.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::{
    replicas::{make_secret, toml, until_open},
    support::{Agent, Answer, Gateway, Origin, Postgres, client::exchange, gateway::tollgate},
};

const PATH: &str = "/.well-known/tollgate/account";

fn ask(agent: &Agent, gateway: &Gateway, body: Option<&str>) -> Answer {
    let method = if body.is_some() { "POST" } else { "GET" };
    let signed = agent.signed(&gateway.addr.to_string(), method, PATH, "").with(|r| {
        r.carrier = "X-Note";
        r.covers = ["@authority", "@method", "@path", "signature-agent;sig1"].map(String::from).to_vec();
        if let Some(body) = body {
            r.covers.push("content-digest".into());
            r.signed.push(("content-digest".into(), format!("sha-256=:{}:", STANDARD.encode(Sha256::digest(body)))));
        }
    });
    let body = body.unwrap_or_default();
    exchange(gateway.addr, signed.head_with(&format!("Content-Length: {}\r\nConnection: close\r\n", body.len())) + body)
}

#[test]
fn what_was_bought_at_one_gateway_is_seen_and_contested_at_another() {
    let Some(mut server) = Postgres::start("postgres::what_was_bought_at_one_gateway") else { return };
    let (origin, agent) = (Origin::start(), Agent::start());
    make_secret(&server);
    let toml = toml(&server, &origin, &agent);
    let (a, b) = (Gateway::start(&toml), Gateway::start(&toml));
    until_open(a.addr);
    until_open(b.addr);
    for page in ["1", "2"] {
        assert_eq!(agent.buy(a.addr, &format!("/paid/{page}")).status, 200);
        assert_eq!(agent.buy(b.addr, &format!("/paid/{page}{page}")).status, 200);
    }
    let seen = ask(&agent, &b, None);
    assert_eq!(seen.status, 200, "{}", seen.text());
    let seen = seen.json();
    let entries = seen["entries"].as_array().unwrap();
    let page = |entry: &Value| entry["target"].as_str().unwrap().rsplit('/').next().unwrap().to_owned();
    assert_eq!(entries.iter().map(page).collect::<Vec<_>>(), ["22", "2", "11", "1"]);
    assert_eq!(seen["limits"][0]["used"], "0.04 USD");
    // Of what `a` sold, at `b`; then at `a`, once more.
    let n = entries[3]["n"].as_str().unwrap();
    let body = json!({"entry": n, "reason": "the page was empty"}).to_string();
    let told = [ask(&agent, &b, Some(&body)), ask(&agent, &a, Some(&body))].map(|answer| {
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()
    });
    assert_eq!((&told[0]["posted"], &told[1]["posted"], &told[0]["n"]), (&json!(true), &json!(false), &told[1]["n"]));
    let (code, out, err) = tollgate(a.dir.path(), &["ledger", "audit", "--ledger", &server.url()]);
    assert_eq!(code, 0, "{out}{err}");
    server.crash();
    let down = ask(&agent, &a, None);
    assert_eq!((down.status, down.reason()), (503, "ledger_unavailable"), "{}", down.text());
    assert_eq!(ask(&agent, &a, Some(&body)).status, 503);
}
