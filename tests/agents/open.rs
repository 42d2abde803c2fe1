//! `[open_accounts]`: verified agents that nobody has registered.

use serde_json::Value;

use crate::account::{PATH, look, seen};
use crate::support::gateway::tollgate;
use crate::support::*;

/// A site where `agent` has the account `acme`, and those who are `allowed` may open one.
fn toml(origin: &Origin, agent: &Agent, allowed: &[&Agent], open: &str) -> String {
    let allowed: Vec<&str> = allowed.iter().map(|agent| &*agent.url).collect();
    site_toml(origin, agent, &format!("[identity]\nallow = {allowed:?}\n[open_accounts]\n{open}\n"))
}

fn sold(dir: &std::path::Path) -> Vec<(String, String)> {
    let (code, out, err) = tollgate(dir, &["ledger", "audit", "--ledger", "tollgate.sqlite"]);
    assert_eq!(code, 0, "{out}{err}");
    let (_, out, _) = tollgate(dir, &["ledger", "list", "--json", "--limit", "0", "--ledger", "tollgate.sqlite"]);
    let row = |line: &str| {
        let row: Value = serde_json::from_str(line).unwrap();
        let text = |name: &str| row[name].as_str().unwrap().to_owned();
        (text("account"), text("amount"))
    };
    out.lines().map(row).collect()
}

fn name(agent: &Agent) -> String {
    agent.url.replace("http://", "open:")
}

#[test]
fn agents_that_are_allowed_have_accounts_of_their_own_within_the_total() {
    let (origin, agent) = (Origin::start(), Agent::start());
    let (a, b, c, nobody) = (Agent::start(), Agent::start(), Agent::start(), Agent::start());
    let toml = toml(&origin, &agent, &[&a, &b, &c], "credit = \"0.02 USD\"\ntotal = \"0.03 USD\"");
    let gateway = Gateway::start(&toml);
    let buys = |gateway: &Gateway, who: &Agent| {
        let answer = who.buy(gateway.addr, "/paid/page");
        (answer.status, answer.reason().to_owned())
    };
    let (ok, spent) = ((200, String::new()), (402, "credit_exhausted".to_owned()));
    assert_eq!(buys(&gateway, &a), ok);
    assert_eq!(origin.last().header("tollgate-account"), Some(&*name(&a)));
    assert_eq!((buys(&gateway, &a), buys(&gateway, &a)), (ok.clone(), spent.clone()));
    assert_eq!((buys(&gateway, &b), buys(&gateway, &b)), (ok.clone(), spent.clone()));
    assert_eq!(buys(&gateway, &c), spent);
    // Whoever has an account has no part in that, and whoever is not allowed has none.
    assert_eq!(buys(&gateway, &agent), ok);
    assert_eq!(buys(&gateway, &nobody), (403, "signature_agent_unknown".to_owned()));
    assert!(nobody.directory.seen().is_empty());
    let account = seen(&b, &gateway, PATH);
    let limit = &account["limits"][0];
    assert_eq!(
        (&account["account"], &limit["limit"], &limit["left"]),
        (&name(&b).into(), &"0.02 USD".into(), &"0.01 USD".into())
    );
    assert_eq!(account["entries"].as_array().unwrap().len(), 1);
    assert_eq!(seen(&c, &gateway, PATH)["entries"].as_array().unwrap().len(), 0);
    let (_, dir) = gateway.stop();
    let gateway = Gateway::start_in(dir, &toml);
    assert_eq!((buys(&gateway, &b), buys(&gateway, &c), buys(&gateway, &agent)), (spent.clone(), spent, ok));
    let (_, dir) = gateway.stop();
    let mut rows = sold(dir.path());
    rows.sort();
    let mut expected: Vec<_> =
        [name(&a), name(&a), name(&b), "acme".into(), "acme".into()].map(|of| (of, "0.01".to_owned())).into();
    expected.sort();
    assert_eq!(rows, expected);
}

#[test]
fn a_domain_has_one_account_and_one_of_the_configuration_comes_first() {
    let (origin, agent) = (Origin::start(), Agent::start());
    let blocked = Agent::start();
    let pin = |host: &str, who: &Agent| {
        let jwk = tollgate::wire::jwk::Jwk::from_public(&who.key.verifying_key());
        let x = jwk.x.unwrap();
        format!(
            "[[identity.pins]]\nagent = \"https://{host}\"\njwk = {{ kty = \"OKP\", crv = \"Ed25519\", x = \"{x}\" }}\n"
        )
    };
    let more = format!(
        "[identity]\nallow = [\"https://*.example.com\", \"https://*.example.net\", \"{}\"]\n{}{}{}\
         [open_accounts]\ncredit = \"0.02 USD\"\ntotal = \"1 USD\"\nperiod = \"day\"\n\
         [[accounts]]\nname = \"off\"\nagents = [\"{}\"]\ncredit = \"1 USD\"\nblocked = true\n",
        blocked.url,
        pin("a.example.com", &agent),
        pin("b.c.example.com", &agent),
        pin("a.example.net", &agent),
        blocked.url,
    );
    let gateway = Gateway::start(&site_toml(&origin, &agent, &more));
    let buys = |host: &str| {
        let signed =
            agent.request(gateway.addr, "GET", "/paid/page").with(|r| r.agent = format!("sig1=\"https://{host}\""));
        let answer = exchange(gateway.addr, signed.head());
        (answer.status, origin.last().header("tollgate-account").unwrap_or_default().to_owned())
    };
    assert_eq!(buys("a.example.com"), (200, "open:example.com".to_owned()));
    assert_eq!(buys("b.c.example.com"), (200, "open:example.com".to_owned()));
    assert_eq!(buys("a.example.com").0, 402);
    assert_eq!(buys("b.c.example.com").0, 402);
    assert_eq!(buys("a.example.net"), (200, "open:example.net".to_owned()));
    let mine = look(&agent, &gateway, PATH).with(|r| r.agent = "sig1=\"https://a.example.com\"".into());
    let account = exchange(gateway.addr, mine.head()).json();
    // One account, two agents of it: the use is shared, what each bought is its own.
    assert_eq!((&account["limits"][0]["used"], account["entries"].as_array().unwrap().len()), (&"0.02 USD".into(), 1));
    assert_eq!(blocked.buy(gateway.addr, "/paid/page").reason(), "blocked");
    let (_, dir) = gateway.stop();
    assert_eq!(sold(dir.path()).len(), 3);
}

#[test]
fn only_so_many_are_new_in_a_day_and_whoever_bought_before_is_not() {
    let (origin, agent) = (Origin::start(), Agent::start());
    let (a, b) = (Agent::start(), Agent::start());
    let toml = toml(&origin, &agent, &[&a, &b], "credit = \"1 USD\"\ntotal = \"9 USD\"\nnew_per_day = 1");
    let gateway = Gateway::start(&toml);
    assert_eq!(a.buy(gateway.addr, "/paid/page").status, 200);
    let refused = b.buy(gateway.addr, "/paid/page");
    assert_eq!((refused.status, refused.reason()), (429, "rate_limited"), "{}", refused.text());
    assert!((1..=86_400).contains(&refused.header("retry-after").unwrap().parse::<u32>().unwrap()));
    assert_eq!((a.buy(gateway.addr, "/paid/page").status, agent.buy(gateway.addr, "/paid/page").status), (200, 200));
    let (_, dir) = gateway.stop();
    // Another process counts anew, and knows who bought before.
    let gateway = Gateway::start_in(dir, &toml);
    assert_eq!(b.buy(gateway.addr, "/paid/page").status, 200);
    assert_eq!(a.buy(gateway.addr, "/paid/page").status, 200);
    gateway.stop();
}

/// Else twenty strangers who sign for a page that is free for all would keep buyers out for a day.
#[test]
fn what_is_only_observed_opens_no_account() {
    let (origin, agent) = (Origin::start(), Agent::start());
    let (a, b) = (Agent::start(), Agent::start());
    let observed = "[[routes]]\npath = \"/seen/*\"\nprice = \"0.01 USD\"\naccept = [\"crawl\"]\nmode = \"observe\"\n";
    let open = "credit = \"1 USD\"\ntotal = \"9 USD\"\nnew_per_day = 1\n";
    let gateway = Gateway::start(&toml(&origin, &agent, &[&a, &b], &format!("{open}{observed}")));
    let bid = a.signed_in("Crawler-Exact-Price", gateway.addr, "/seen/page", "USD 0.01");
    assert_eq!(exchange(gateway.addr, bid.head()).status, 200);
    // Until the verdict is in the books.
    let start = std::time::Instant::now();
    loop {
        let (_, out, _) = tollgate(gateway.dir.path(), &["ledger", "observed", "--json", "-c", "tollgate.toml"]);
        if let Some(line) = out.lines().next() {
            let row: Value = serde_json::from_str(line).unwrap();
            assert_eq!(row["paid"], 1, "{row}");
            break;
        }
        assert!(start.elapsed().as_secs() < 30);
    }
    assert_eq!(b.buy(gateway.addr, "/paid/page").status, 200);
    assert_eq!(a.buy(gateway.addr, "/paid/page").status, 429);
    gateway.stop();
}

#[test]
fn many_at_once_open_no_more_than_the_total() {
    let (origin, agent) = (Origin::start(), Agent::start());
    let agents: Vec<Agent> = (0..6).map(|_| Agent::start()).collect();
    let allowed: Vec<&Agent> = agents.iter().collect();
    let gateway = Gateway::start(&toml(&origin, &agent, &allowed, "credit = \"0.05 USD\"\ntotal = \"0.07 USD\""));
    let served: usize = std::thread::scope(|scope| {
        let sides: Vec<_> = agents
            .iter()
            .map(|who| scope.spawn(|| (0..5).filter(|_| who.buy(gateway.addr, "/paid/page").status == 200).count()))
            .collect();
        sides.into_iter().map(|side| side.join().unwrap()).sum()
    });
    assert_eq!(served, 7);
    let (_, dir) = gateway.stop();
    assert_eq!(sold(dir.path()).len(), 7);
}
