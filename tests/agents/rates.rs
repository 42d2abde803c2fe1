//! How often somebody may: what does not verify, by network; requests, by agent.

use crate::support::*;

/// A gateway that believes this machine about its clients, with these limits.
fn limited(origin: &Origin, agent: &Agent, limits: &str, more: &str) -> Gateway {
    let limits = format!("trusted_proxies = [\"127.0.0.1\"]\n[server.limits]\n{limits}\n[origin]");
    Gateway::start(&site_toml(origin, agent, more).replacen("[origin]", &limits, 1))
}

/// A purchase from an address; with a key that is not the agent's, if told so.
fn buy(gateway: &Gateway, agent: &Agent, from: &str, key: &Agent) -> Answer {
    let request = agent.request(gateway.addr, "GET", "/paid/page").with(|r| {
        r.key = key.key.clone();
        r.extra = format!("X-Forwarded-For: {from}\r\n");
    });
    exchange(gateway.addr, request.head())
}

#[test]
fn a_network_whose_payments_fail_is_not_looked_at_for_a_while() {
    let (origin, agent, other) = (Origin::start(), Agent::start(), Agent::start());
    let gateway = limited(&origin, &agent, "failures_per_minute = 1\nfailures_burst = 3", "");
    // What verifies costs nothing.
    for _ in 0..5 {
        assert_eq!(buy(&gateway, &agent, "192.0.2.1", &agent).status, 200);
    }
    for host in 1..=3 {
        assert_eq!(buy(&gateway, &agent, &format!("192.0.2.{host}"), &other).reason(), "invalid_signature");
    }
    let refused = buy(&gateway, &agent, "192.0.2.4", &agent);
    assert_eq!((refused.status, refused.reason()), (429, "rate_limited"));
    let seconds: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=60).contains(&seconds), "{seconds}");
    // Others buy, and whoever pays nothing is answered as ever.
    assert_eq!(buy(&gateway, &agent, "192.0.3.1", &agent).status, 200);
    let host = gateway.addr;
    let offer = exchange(
        host,
        format!("GET /paid/x HTTP/1.1\r\nHost: {host}\r\nX-Forwarded-For: 192.0.2.1\r\nConnection: close\r\n\r\n"),
    );
    assert_eq!(offer.status, 402);
}

#[test]
fn payments_that_are_dear_to_read_count_and_cheap_ones_do_not() {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    let (origin, agent) = (Origin::start(), Agent::start());
    let gateway = limited(&origin, &agent, "failures_per_minute = 1\nfailures_burst = 3", "");
    let send = |from: &str, field: &str, value: &str| {
        let host = gateway.addr;
        let head = format!("GET /paid/a HTTP/1.1\r\nHost: {host}\r\nX-Forwarded-For: {from}\r\n{field}: {value}\r\n");
        exchange(host, head + "Connection: close\r\n\r\n")
    };
    let members: String = (0..400).map(|i| format!("\"k{i}\":{i},")).collect();
    let junk = STANDARD.encode(format!("{{\"x402Version\":2,{members}\"z\":1}}"));
    assert!((4096..16384).contains(&junk.len()), "{}", junk.len());
    // What is refused at a look costs about as much as counting it.
    for _ in 0..5 {
        for (field, value) in
            [("X-PAYMENT", "e30="), ("PAYMENT-SIGNATURE", &*"A".repeat(20_000)), ("Payment", "nonsense")]
        {
            assert_eq!(send("192.0.2.1", field, value).reason(), "invalid_payment");
        }
    }
    for host in 1..=3 {
        assert_eq!(send(&format!("192.0.2.{host}"), "PAYMENT-SIGNATURE", &junk).reason(), "invalid_payment");
    }
    let refused = send("192.0.2.4", "X-PAYMENT", &junk);
    assert_eq!((refused.status, refused.reason()), (429, "rate_limited"));
    assert_eq!(send("192.0.3.1", "X-PAYMENT", &junk).reason(), "invalid_payment");
    // Short ones are read as ever, and no further.
    assert_eq!(send("192.0.2.1", "X-PAYMENT", "e30=").reason(), "invalid_payment");
    assert_eq!(buy(&gateway, &agent, "192.0.2.1", &agent).reason(), "rate_limited");
}

#[test]
fn a_proxy_on_this_machine_that_is_not_trusted_does_not_lock_everybody_out() {
    let (origin, agent, other) = (Origin::start(), Agent::start(), Agent::start());
    let toml = site_toml(&origin, &agent, "").replacen("[origin]", "[server.limits]\nfailures_burst = 1\n[origin]", 1);
    let gateway = Gateway::start(&toml);
    for _ in 0..4 {
        assert_eq!(buy(&gateway, &agent, "192.0.2.1", &other).reason(), "invalid_signature");
    }
    assert_eq!(buy(&gateway, &agent, "192.0.2.1", &agent).status, 200);
}

#[test]
fn an_agent_is_counted_wherever_it_comes_from_and_only_once_it_is_proven() {
    let (origin, agent, other) = (Origin::start(), Agent::start(), Agent::start());
    let more = format!("[[accounts]]\nname = \"other\"\nagents = [\"{}\"]\ncredit = \"9 USD\"\n", other.url);
    let gateway = limited(&origin, &agent, "agent_requests_per_minute = 1\nagent_requests_burst = 2", &more);
    // Nobody uses up another one's requests by naming him.
    for host in 1..=3 {
        assert_eq!(buy(&gateway, &agent, &format!("198.51.{host}.1"), &other).reason(), "invalid_signature");
    }
    assert_eq!(buy(&gateway, &agent, "192.0.2.1", &agent).status, 200);
    assert_eq!(buy(&gateway, &agent, "203.0.113.1", &agent).status, 200);
    let calls = origin.calls();
    let refused = buy(&gateway, &agent, "198.51.100.1", &agent);
    assert_eq!((refused.status, refused.reason(), origin.calls()), (429, "rate_limited", calls));
    assert!(refused.header("retry-after").is_some());
    assert_eq!(buy(&gateway, &other, "192.0.2.1", &other).status, 200);
}

#[test]
fn whoever_names_new_keys_of_an_agent_makes_its_directory_be_read_once() {
    let (origin, agent) = (Origin::start(), Agent::start());
    let gateway = limited(&origin, &agent, "failures_per_minute = 0", "");
    let named = |keyid: String| {
        let request = agent.request(gateway.addr, "GET", "/paid/page").with(|r| r.keyid = keyid);
        exchange(gateway.addr, request.head())
    };
    // From all sides at once, and one after the other.
    std::thread::scope(|scope| {
        for i in 0..16 {
            let named = &named;
            scope.spawn(move || assert_eq!(named(format!("at-once-{i}")).reason(), "key_unknown"));
        }
    });
    for i in 0..16 {
        let refused = named(format!("later-{i}"));
        assert_eq!((refused.status, refused.reason()), (403, "key_unknown"));
    }
    assert_eq!(agent.directory.calls(), 1);
    // Nobody else pays for it.
    assert_eq!(agent.buy(gateway.addr, "/paid/page").status, 200);
    assert_eq!((agent.directory.calls(), origin.calls()), (1, 1));
}
