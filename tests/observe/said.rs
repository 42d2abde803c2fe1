//! What a gateway, and the books, say of what is only observed.

use serde_json::json;

use crate::support::agent::now;
use crate::support::client::{PATIENCE, exchange, get};
use crate::support::gateway::tollgate;
use crate::support::*;
use crate::{ask, entries, observed_in, reload, short};

fn site(origin: &Origin, agent: &Agent) -> String {
    site_toml(
        origin,
        agent,
        "name = \"pages\"\nmode = \"observe\"\naccept = [\"crawl\"]\n[[routes]]\nname = \"sold\"\npath = \"/sold\"\n\
         price = \"1 USD\"\n[discovery]\nserve = \"always\"\n[admin]\nlisten = [\"127.0.0.1:0\"]\n[telemetry]\naccess_log = \"access.log\"\n",
    )
}

#[test]
fn a_gateway_that_observes_says_so_loudly() {
    let (origin, agent) = (Origin::start(), Agent::start());
    let toml = site(&origin, &agent);
    let gateway = Gateway::start(&toml);
    let some = "mode = \"observe\" is ON for 1 of 2 priced routes, on which nobody pays: pages";
    assert!(gateway.log().contains(some), "{}", gateway.log());
    let dir = gateway.dir.path();
    let (code, text, _) = tollgate(dir, &["check", "-c", "tollgate.toml"]);
    assert_eq!(code, 0);
    assert!(text.contains("\n  OBSERVE  ON for 1 of 2 priced routes, on which nobody pays: pages\n"), "{text}");
    assert!(text.contains("/paid/*  0.01 USD by crawl, ONLY OBSERVED: free for everybody\n"), "{text}");
    let (_, text, _) = tollgate(dir, &["check", "-c", "tollgate.toml", "--json"]);
    let routes = serde_json::from_str::<serde_json::Value>(&text).unwrap()["summary"]["routes"].clone();
    assert_eq!((&routes[0]["mode"], &routes[1]["mode"]), (&json!("observe"), &json!("enforce")));
    let (_, text, _) = tollgate(dir, &["check", "--explain", "GET", "http://x.example/paid/a"]);
    assert!(text.contains("mode       OBSERVE: everybody passes free"), "{text}");
    // All of it, by one key; a route that says so is paid all the same.
    let all = toml.replace("name = \"pages\"\nmode = \"observe\"\n", "name = \"pages\"\n");
    let all = all.replace("[origin]", "mode = \"observe\"\n[origin]");
    reload(&gateway, &all, 1);
    assert!(gateway.log().contains("ON for every priced route: nobody pays, nobody is refused"), "{}", gateway.log());
    assert_eq!(get(gateway.addr, "/sold").status, 200);
    // What costs nothing yet is not advertised with a price.
    let listed = || get(gateway.addr, "/discovery/resources").text();
    assert!(listed().contains("\"items\"") && !listed().contains("/sold"), "{}", listed());
    reload(&gateway, &all.replace("name = \"sold\"\n", "name = \"sold\"\nmode = \"enforce\"\n"), 2);
    assert_eq!((get(gateway.addr, "/sold").status, get(gateway.addr, "/paid/a").status), (402, 200));
    assert!(listed().contains("/sold"), "{}", listed());
    // And the other way round: it is sold from one request to the next.
    let enforcing = toml.replace("mode = \"observe\"\n", "");
    reload(&gateway, &enforcing, 3);
    assert_eq!(get(gateway.addr, "/paid/a").status, 402);
    assert_eq!(gateway.log().matches("mode = \"observe\" is").count(), 3, "{}", gateway.log());
}

#[test]
fn counts_and_lines_tell_what_would_have_followed() {
    let (origin, agent) = (Origin::start(), Agent::start());
    let gateway = Gateway::start(&site(&origin, &agent));
    ask(&gateway, "/paid/a", &[]);
    let request = agent.signed_in("crawler-exact-price", gateway.addr, "/paid/a", "USD 0.01");
    assert_eq!(exchange(gateway.addr, request.head()).status, 200);
    let old = request.with(|r| (r.created, r.expires) = (now() - 200, now() - 100));
    assert_eq!(exchange(gateway.addr, old.head()).status, 200);
    assert_eq!(get(gateway.addr, "/sold").status, 402);
    let metric = |line: &str| {
        let text = get(gateway.admin.unwrap(), "/metrics").text();
        text.lines().find_map(|l| l.strip_prefix(line)?.trim().parse::<u64>().ok())
    };
    let since = std::time::Instant::now();
    // Verdicts come beside.
    while metric("tollgate_observed_total{route=\"pages\",would=\"refused\"}") != Some(1)
        || metric("tollgate_observed_total{route=\"pages\",would=\"paid\"}") != Some(1)
    {
        assert!(since.elapsed() < PATIENCE, "{}", get(gateway.admin.unwrap(), "/metrics").text());
    }
    assert_eq!(metric("tollgate_observed_total{route=\"pages\",would=\"asked\"}"), Some(1));
    assert_eq!(metric("tollgate_observed_refusals_total{reason=\"signature_expired\"}"), Some(1));
    let would_be = |would: &str| {
        metric(&format!("tollgate_would_be_millionths_total{{route=\"pages\",currency=\"USD\",would=\"{would}\"}}"))
    };
    assert_eq!((would_be("asked"), would_be("paid")), (Some(10_000), Some(10_000)));
    assert_eq!(metric("tollgate_requests_total{route=\"pages\",verdict=\"observed\"}"), Some(3));
    assert_eq!(metric("tollgate_charged_millionths_total{route=\"pages\",currency=\"USD\"}"), None);
    assert_eq!(metric("tollgate_refusals_total{reason=\"signature_expired\"}"), None, "nobody was refused");
    let (_, dir) = gateway.stop();
    let log = std::fs::read_to_string(dir.path().join("access.log")).unwrap();
    assert_eq!(
        (log.matches("\"verdict\":\"observed\"").count(), log.matches("\"status\":200").count()),
        (3, 3),
        "{log}"
    );
}

#[test]
fn books_keep_it_over_a_restart_and_say_it_by_day_route_and_agent() {
    let (origin, agent) = (Origin::start(), Agent::start());
    let toml = site(&origin, &agent);
    let gateway = Gateway::start(&toml);
    ask(&gateway, "/paid/a", &["User-Agent: GPTBot/1.2"]);
    let (_, dir) = gateway.stop();
    let gateway = Gateway::start_in(dir, &toml);
    ask(&gateway, "/paid/b", &["User-Agent: GPTBot/1.2"]);
    ask(&gateway, "/paid/b", &["User-Agent: GPTBot/1.2", "X-PAYMENT: !"]);
    let (_, dir) = gateway.stop();
    let row = "gptbot 2 0 1 0.00 0.02 {\"invalid_payment\":1}";
    assert_eq!(short(&observed_in(dir.path(), "agent")), [row]);
    assert!(entries(dir.path()).is_empty());
    let (code, text, err) = tollgate(dir.path(), &["ledger", "observed"]);
    assert_eq!(code, 0, "{err}");
    let expect = "all days, days of UTC: 3 observed requests, nobody paid
DAY         ROUTE  AGENT   REQUESTS  ASKED  PAID  REFUSED  WOULD EARN  ASKED FOR, AT MOST  WHY REFUSED
";
    let rest = text.strip_prefix(expect).unwrap_or_else(|| panic!("{text}"));
    let rest = rest.split_once("  ").unwrap().1;
    assert_eq!(
        rest,
        "pages  gptbot  3         2      0     1        0.00 USD    0.02 USD            1 invalid_payment\n"
    );
    // Nothing was charged: no other report knows of it.
    let (code, out, err) = tollgate(dir.path(), &["ledger", "report", "--by", "route"]);
    assert_eq!((code, out.as_str(), err.as_str()), (0, "", "nothing was charged: all days, days of UTC\n"));
    let (_, _, err) = tollgate(dir.path(), &["ledger", "observed", "--route", "sold"]);
    assert_eq!(err, "nothing was observed: all days, days of UTC\n");
}
