//! Agents that are key sets (`type=jwks_uri`): only those that are listed, each URL for itself.

use std::fs;
use std::io::Write as _;

use serde_json::json;
use tollgate::wire::jwk::{Jwk, signing_key_json};

use crate::support::agent::Signed;
use crate::support::gateway::tollgate;
use crate::support::*;

const SET: &str = "/bot/jwks.json";

/// A host with a key set of `key` for whoever asks for it, and what is wrong with two others.
fn host(key: &Agent) -> Origin {
    let set = json!({"keys": [Jwk::from_public(&key.key.verifying_key())]}).to_string();
    Origin::scripted(move |seen, socket| {
        let (status, kind, more) = match seen.path() {
            SET => ("200 OK", "application/jwk-set+json", ""),
            "/bot/text" => ("200 OK", "text/plain", ""),
            "/bot/moved" => ("302 Found", "application/json", "Location: /bot/jwks.json\r\n"),
            _ => ("404 Not Found", "text/plain", ""),
        };
        let length = set.len();
        write!(socket, "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\n{more}Content-Length: {length}\r\n\r\n{set}")
            .is_ok()
    })
}

fn toml(origin: &Origin, agent: &Agent, agents: &[String]) -> String {
    site_toml(origin, agent, &format!("[[accounts]]\nname = \"sets\"\nagents = {agents:?}\ncredit = \"9 USD\"\n"))
}

/// A payment that names this agent.
fn paying(agent: &Agent, gateway: &Gateway, named: &str) -> Signed {
    agent.request(gateway.addr, "GET", "/paid/page").with(|r| r.agent = format!("sig1={named}"))
}

#[test]
fn a_key_set_that_an_account_lists_pays_and_is_no_other_agent() {
    let (origin, agent, bot) = (Origin::start(), Agent::start(), Agent::start());
    let host = host(&bot);
    let at = |path: &str| format!("http://{}{path}", host.addr);
    let gateway =
        Gateway::start(&toml(&origin, &agent, &[at(SET), at("/bot/text"), at("/bot/moved"), agent.url.clone() + SET]));
    let pays = |who: &Agent, named: String| {
        let answer = exchange(gateway.addr, paying(who, &gateway, &named).head());
        (answer.status, answer.reason().to_owned())
    };
    let of_type = |url: String| format!("\"{url}\";type=jwks_uri");
    let refused = |status, reason: &str| (status, reason.to_owned());
    assert_eq!(pays(&bot, of_type(at(SET))), (200, String::new()));
    let seen = origin.last();
    assert_eq!((seen.header("tollgate-agent"), seen.header("tollgate-account")), (Some(&*at(SET)), Some("sets")));
    let asked = host.seen();
    assert_eq!((asked.len(), asked[0].path()), (1, SET));
    assert!(asked[0].header("accept").unwrap().starts_with("application/jwk-set+json"));
    // Another key, another type, another path, a query, the host itself.
    assert_eq!(pays(&agent, of_type(at(SET))), refused(403, "key_unknown"));
    assert_eq!(pays(&bot, format!("\"{}\"", at(SET))), refused(400, "invalid_signature"));
    assert_eq!(pays(&bot, format!("\"{}\";type=directory", at(SET))), refused(400, "invalid_signature"));
    assert_eq!(pays(&bot, of_type(at("/bot/other.json"))), refused(403, "signature_agent_unknown"));
    assert_eq!(pays(&bot, of_type(at(SET) + "?keys=mine")), refused(400, "invalid_signature"));
    assert_eq!(pays(&bot, of_type(at("/bot/../bot/jwks.json"))), refused(400, "invalid_signature"));
    assert_eq!(pays(&bot, of_type(at("/"))), refused(400, "invalid_signature"));
    assert_eq!(pays(&bot, format!("\"{}\"", at(""))), refused(403, "signature_agent_unknown"));
    // The fetch has the rules of every other: no redirect is followed, no other kind of document read.
    assert_eq!(pays(&bot, of_type(at("/bot/text"))), refused(503, "directory_unavailable"));
    assert_eq!(pays(&bot, of_type(at("/bot/moved"))), refused(503, "directory_unavailable"));
    // A key set beside a directory has its own keys, and the directory's agent is not it.
    assert_eq!(pays(&agent, of_type(agent.url.clone() + SET)), refused(503, "directory_unavailable"));
    assert_eq!(pays(&agent, format!("\"{}\"", agent.url)), (200, String::new()));
    // What names the directory's own URL is the directory's agent.
    let well_known = format!("{}/.well-known/http-message-signatures-directory", agent.url);
    assert_eq!(pays(&agent, of_type(well_known)), (200, String::new()));
    assert_eq!(origin.last().header("tollgate-account"), Some("acme"));
    let asked: Vec<String> = host.seen().iter().map(|seen| seen.path().to_owned()).collect();
    assert_eq!(asked.iter().filter(|path| *path == SET).count(), 1, "{asked:?}");
    assert!(!asked.iter().any(|path| path.contains("other") || path.contains("well-known")), "{asked:?}");
    let (_, dir) = gateway.stop();
    let (code, out, err) = tollgate(dir.path(), &["ledger", "audit", "--ledger", "tollgate.sqlite"]);
    assert_eq!(code, 0, "{out}{err}");
    let (code, out, err) =
        tollgate(dir.path(), &["ledger", "verify", "281474976710657", "--ledger", "tollgate.sqlite"]);
    assert_eq!(code, 0, "{out}{err}");
}

#[test]
fn neither_the_host_nor_an_open_account_stands_for_a_key_set_on_it() {
    let (origin, agent, bot) = (Origin::start(), Agent::start(), Agent::start());
    let host = host(&bot);
    let (root, set) = (format!("http://{}", host.addr), format!("http://{}{SET}", host.addr));
    let open = format!("[identity]\nallow = [\"{set}\"]\n[open_accounts]\ncredit = \"1 USD\"\ntotal = \"9 USD\"\n");
    let gateway = Gateway::start(&(toml(&origin, &agent, &[root]) + &open));
    let answer = exchange(gateway.addr, paying(&bot, &gateway, &format!("\"{set}\";type=jwks_uri")).head());
    assert_eq!((answer.status, answer.reason()), (403, "signature_agent_unknown"));
    assert!(host.seen().is_empty());
}

#[test]
fn the_client_pays_as_a_key_set() {
    let (origin, agent, bot) = (Origin::start(), Agent::start(), Agent::start());
    let host = host(&bot);
    let set = format!("http://{}{SET}", host.addr);
    let gateway = Gateway::start(&toml(&origin, &agent, std::slice::from_ref(&set)));
    fs::write(gateway.dir.path().join("agent.jwk"), signing_key_json(&bot.key)).unwrap();
    let page = format!("http://{}/paid/page", gateway.addr);
    let run =
        |args: &[&str]| tollgate(gateway.dir.path(), &[args, &["--key", "agent.jwk", "--agent", &set, &page]].concat());
    let (code, out, err) = run(&["pay"]);
    assert_eq!((code, out.as_str()), (0, "content of /paid/page"), "{err}");
    let (code, out, err) = run(&["account"]);
    assert!(code == 0 && out.starts_with(&format!("account sets, agent {set}\n")), "{out}{err}");
}
