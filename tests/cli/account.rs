//! `tollgate account`

use std::fs;

use serde_json::Value;
use tollgate::wire::jwk::signing_key_json;

use crate::support::gateway::tollgate;
use crate::support::*;

fn open(agent: &Agent, origin: &Origin) -> Gateway {
    let gateway = paid_site(origin, agent);
    fs::write(gateway.dir.path().join("agent.jwk"), signing_key_json(&agent.key)).unwrap();
    gateway
}

fn ask(agent: &Agent, gateway: &Gateway, url: &str, args: &[&str]) -> (i32, String, String) {
    let who = ["account", "--key", "agent.jwk", "--agent", &agent.url, url];
    tollgate(gateway.dir.path(), &[&who, args].concat())
}

#[test]
fn an_agent_reads_its_account_and_contests_a_charge() {
    let (origin, agent) = (Origin::start(), Agent::start());
    let gateway = open(&agent, &origin);
    let url = format!("http://{}/paid/7?a=b", gateway.addr);
    let (code, out, err) = ask(&agent, &gateway, &url, &[]);
    assert_eq!(code, 0, "{err}");
    assert!(
        out.starts_with(&format!("account acme, agent {}\n0.00 USD of 1000.00 USD used in this month, ", agent.url)),
        "{out}"
    );
    assert!(out.ends_with("\nnothing was bought yet\n"), "{out}");
    for page in 0..5 {
        assert_eq!(agent.buy(gateway.addr, &format!("/paid/{page}")).status, 200);
    }
    let json = |args: &[&str]| -> Value {
        let (code, out, err) = ask(&agent, &gateway, &url, &[&["--json"], args].concat());
        assert_eq!((code, err.as_str()), (0, ""), "{out}");
        serde_json::from_str(&out).unwrap()
    };
    let account = json(&[]);
    let entries = account["entries"].as_array().unwrap();
    assert_eq!((entries.len(), &account["next"], &account["account"]), (5, &Value::Null, &"acme".into()));
    let some = json(&["--limit", "3"]);
    assert_eq!((some["entries"].as_array().unwrap(), some["next"].is_string()), (&entries[..3].to_vec(), true));
    let (code, out, err) = ask(&agent, &gateway, &url, &["--limit", "2"]);
    assert_eq!((code, err.as_str()), (0, "there may be more; say --limit COUNT\n"));
    assert!(
        out.contains("ENTRY") && out.contains("/paid/4\n") && out.contains("/paid/3\n") && !out.contains("/paid/2"),
        "{out}"
    );
    let n = entries[4]["n"].as_str().unwrap();
    let contest = ["--dispute", n, "--reason", "the page was empty"];
    let (code, out, err) = ask(&agent, &gateway, &url, &contest);
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    assert!(out.starts_with(&format!("dispute 1 of entry {n} is open (entry ")), "{out}");
    let (code, again, _) = ask(&agent, &gateway, &url, &contest);
    assert!(code == 0 && again.contains("is open; it was before ("), "{again}");
    let (_, out, _) = ask(&agent, &gateway, &url, &[]);
    assert!(out.contains(", dispute open") && out.contains(&format!("of {n}")), "{out}");
    assert_eq!(json(&contest)["posted"], false);
}

#[test]
fn each_way_to_fail_has_its_exit_code_and_words() {
    let (origin, agent, other) = (Origin::start(), Agent::start(), Agent::start());
    let gateway = open(&agent, &origin);
    let url = format!("http://{}", gateway.addr);
    let fails = |who: &Agent, url: &str, args: &[&str], code: i32, words: &str| {
        let (found, out, err) = ask(who, &gateway, url, args);
        assert_eq!((found, out.as_str()), (code, ""), "{args:?}: {err}");
        assert!(err.contains(words), "{args:?}: {err}");
    };
    fails(&agent, &url, &["--dispute", "7", "--reason", "x"], 5, "entry_unknown: This agent has bought nothing");
    fails(&agent, &url, &["--dispute", "seven", "--reason", "x"], 4, "bad_request: `entry` must be the number");
    fails(&agent, &url, &["--dispute", "7"], 2, "--reason <TEXT>");
    fails(&agent, &url, &["--limit", "0"], 2, "0 is not in 1..=100000");
    fails(&agent, "ftp://x", &[], 2, "https://");
    fails(&agent, "http://127.0.0.1:1", &[], 3, "can't be reached");
    fails(&other, &url, &[], 4, "signature_agent_unknown: The agent has no account here.");
    fails(&other, &url, &[], 4, "(https://example.com/register)");
    // A site that is no gateway: the origin answers everything.
    fails(&agent, &format!("http://{}", origin.addr), &[], 1, "this is not a Tollgate's");
    fs::write(gateway.dir.path().join("agent.jwk"), signing_key_json(&other.key)).unwrap();
    fails(&agent, &url, &[], 4, "key_unknown");
    fs::remove_file(gateway.dir.path().join("agent.jwk")).unwrap();
    fails(&agent, &url, &[], 2, "agent.jwk");
}

#[test]
fn a_server_that_lies_steers_neither_the_client_nor_the_terminal() {
    let agent = Agent::start();
    let origin = Origin::scripted(|seen, socket| {
        use std::io::Write as _;
        assert!(seen.path().starts_with("/.well-known/tollgate/account"), "{}", seen.path());
        let body = r#"{"account":"\u001b[31mred","entries":[{"n":"1","at":{},"target":"\u0007"}, 5],"limits":7,
            "next":"/elsewhere?x"}"#;
        write!(socket, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).is_ok()
    });
    let gateway = open(&agent, &origin);
    let (code, out, err) = ask(&agent, &gateway, &format!("http://{}", origin.addr), &[]);
    assert_eq!(code, 0, "{err}");
    assert!(out.contains("\\u{1b}[31mred") && !out.contains('\u{1b}') && !out.contains('\u{7}'), "{out:?}");
    assert_eq!(origin.calls(), 1);
}
