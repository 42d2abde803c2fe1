//! What is kept, for how long, and when a directory is asked again.

use std::{sync::Arc, time::Duration};

use tokio::{sync::Notify, task::JoinSet};
use tollgate::{
    identity::{Lookup, resolve::Addresses},
    wire::agent_url::AgentUrl,
};

use super::support::{
    Gate, Names, Reply, Site, allow, directory, directory_with, key, names, no_names, pending, said, soon, thumbprint,
};

const MINUTE: u64 = 60_000;

fn failing(fields: &str) -> Reply {
    Reply::Bytes(format!("HTTP/1.1 503 Busy\r\n{fields}Content-Length: 0\r\n\r\n").into_bytes())
}

fn retry_after(lookup: Lookup) -> u64 {
    let Lookup::Unavailable { retry_after, .. } = lookup else { panic!("{lookup:?}") };
    retry_after
}

#[tokio::test]
async fn equal_questions_share_one_fetch() {
    let gate_open = Arc::new(Notify::new());
    let site = Site::start(Reply::Gated(gate_open.clone(), directory(&[key(1), key(2)]))).await;
    let gate = Arc::new(Gate::of(&[&site]));
    let mut askers = JoinSet::new();
    for i in 0..64 {
        let (gate, agent, keyid) = (gate.clone(), site.agent(), thumbprint(&key(1 + i % 3)));
        askers.spawn(async move { (i % 3, said(gate.look(&agent, &keyid).await)) });
    }
    // All have asked before the directory answers.
    for _ in 0..1000 {
        tokio::task::yield_now().await;
    }
    gate_open.notify_waiters();
    gate_open.notify_one();
    for (i, said) in soon(askers.join_all()).await {
        let expect = if i == 2 { "no such key".to_owned() } else { thumbprint(&key(1 + i)) };
        assert_eq!(said, expect);
    }
    assert_eq!(site.hits(), 1);
}

#[tokio::test]
async fn an_unknown_key_costs_one_fetch_a_minute() {
    let site = Site::of(&[key(1)]).await;
    let gate = Gate::of(&[&site]);
    assert_eq!(said(gate.look(&site.agent(), &thumbprint(&key(1))).await), thumbprint(&key(1)));
    gate.clock.advance(MINUTE);
    for i in 0..10 {
        assert_eq!(said(gate.look(&site.agent(), &format!("unknown-{i}")).await), "no such key");
    }
    assert_eq!(site.hits(), 2);
    gate.clock.advance(MINUTE - 1);
    assert_eq!(said(gate.look(&site.agent(), "unknown").await), "no such key");
    assert_eq!(site.hits(), 2);
    // A new key is found a minute later, long before the directory's hour is over.
    site.set(Reply::Bytes(directory(&[key(1), key(2)])));
    gate.clock.advance(1);
    assert_eq!(said(gate.look(&site.agent(), &thumbprint(&key(2))).await), thumbprint(&key(2)));
    assert_eq!(site.hits(), 3);
}

#[tokio::test]
async fn a_directory_without_the_key_removes_it() {
    let site = Site::of(&[key(1)]).await;
    let gate = Gate::of(&[&site]);
    assert_eq!(said(gate.look(&site.agent(), &thumbprint(&key(1))).await), thumbprint(&key(1)));
    site.set(Reply::Bytes(directory(&[])));
    gate.clock.advance(60 * MINUTE - 1);
    assert_eq!(said(gate.look(&site.agent(), &thumbprint(&key(1))).await), thumbprint(&key(1)));
    assert_eq!(site.hits(), 1);
    gate.clock.advance(1);
    assert_eq!(said(gate.look(&site.agent(), &thumbprint(&key(1))).await), "no such key");
    assert_eq!(site.hits(), 2);
}

#[tokio::test]
async fn a_failing_directory_evicts_nothing() {
    let site = Site::of(&[key(1)]).await;
    let gate = Gate::of(&[&site]);
    let (agent, known) = (site.agent(), thumbprint(&key(1)));
    assert_eq!(said(gate.look(&agent, &known).await), known);
    let gone = b"HTTP/1.1 404 Gone\r\nContent-Length: 0\r\n\r\n".to_vec();
    for (i, reply) in [failing(""), Reply::Bytes(Vec::new()), Reply::Bytes(gone)].into_iter().enumerate() {
        site.set(reply);
        gate.clock.advance(60 * MINUTE);
        assert_eq!(said(gate.look(&agent, &known).await), known);
        // From the second time on the answer does not wait for the fetch.
        soon(async {
            while gate.keys.read(|table| table[&agent].failures) < i as u32 + 1 {
                tokio::task::yield_now().await;
            }
        })
        .await;
        assert_eq!((said(gate.look(&agent, &known).await), site.hits()), (known.clone(), i + 2));
    }
    // Neither valid nor invalid: that key may be new.
    assert!(said(gate.look(&agent, "unknown").await).contains("could not be read"));
    site.set(Reply::Bytes(directory(&[])));
    gate.clock.advance(60 * MINUTE);
    // Served from what is known while the directory is being tried again; then its answer counts.
    assert_eq!(said(gate.look(&agent, &known).await), known);
    soon(async {
        while said(gate.look(&agent, &known).await) != "no such key" {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn failures_are_kept_twice_as_long_each_time() {
    let site = Site::start(failing("")).await;
    let gate = Gate::of(&[&site]);
    for (i, seconds) in [10, 20, 40, 80, 160, 300, 300].into_iter().enumerate() {
        assert_eq!(retry_after(gate.look(&site.agent(), "k").await), seconds);
        gate.clock.advance(seconds * 1000 - 1);
        assert_eq!(retry_after(gate.look(&site.agent(), "k").await), 1);
        assert_eq!(site.hits(), i + 1);
        gate.clock.advance(1);
    }
    site.set(Reply::Bytes(directory(&[key(1)])));
    assert_eq!(said(gate.look(&site.agent(), &thumbprint(&key(1))).await), thumbprint(&key(1)));
}

#[tokio::test]
async fn retry_after_is_respected_up_to_five_minutes() {
    for (fields, seconds) in [("Retry-After: 120\r\n", 120), ("Retry-After: 9999\r\n", 300), ("Retry-After: 1\r\n", 10)]
    {
        let site = Site::start(failing(fields)).await;
        let gate = Gate::of(&[&site]);
        assert_eq!(retry_after(gate.look(&site.agent(), "k").await), seconds);
        gate.clock.advance(seconds * 1000 - 1);
        assert_eq!(retry_after(gate.look(&site.agent(), "k").await), 1);
        assert_eq!(site.hits(), 1);
    }
}

#[tokio::test]
async fn what_is_used_is_read_again_before_it_is_stale() {
    let (mut used, idle) = (Site::of(&[key(1)]).await, Site::of(&[key(1)]).await);
    let gate = Gate::with(&allow(&[&used, &idle]), |_| {}, |service| service.ticking(Duration::from_millis(2)));
    let known = thumbprint(&key(1));
    for site in [&used, &idle] {
        assert_eq!(said(gate.look(&site.agent(), &known).await), known);
    }
    used.requests.recv().await.unwrap();
    used.set(Reply::Bytes(directory(&[key(2)])));
    gate.clock.advance(30 * MINUTE);
    assert_eq!(said(gate.look(&used.agent(), &known).await), known);
    assert_eq!(used.hits(), 1);
    // An hour less ten percent, at least.
    gate.clock.advance(24 * MINUTE + 1000);
    soon(used.requests.recv()).await.unwrap();
    soon(async {
        while said(gate.look(&used.agent(), &thumbprint(&key(2))).await) != thumbprint(&key(2)) {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(idle.hits(), 1);
}

#[tokio::test]
async fn freshness_follows_cache_control() {
    let site = Site::start(Reply::Bytes(directory_with(&[key(1)], "Cache-Control: max-age=120\r\nAge: 30\r\n"))).await;
    let gate = Gate::of(&[&site]);
    let known = thumbprint(&key(1));
    for (advance, hits) in [(0, 1), (89_999, 1), (1, 2)] {
        gate.clock.advance(advance);
        assert_eq!(said(gate.look(&site.agent(), &known).await), known);
        assert_eq!(site.hits(), hits);
    }
}

fn pin(agent: &AgentUrl, seed: u8) -> String {
    let x = key(seed).x.unwrap();
    format!("[[identity.pins]]\nagent = \"{agent}\"\njwk = {{ kty = \"OKP\", crv = \"Ed25519\", x = \"{x}\" }}\n")
}

#[tokio::test]
async fn pins_need_no_network() {
    let agent = AgentUrl::parse("https://signer.example.com").unwrap();
    let gate = Gate::with(&pin(&agent, 1), |_| {}, |service| service.resolving(no_names()));
    let known = thumbprint(&key(1));
    for _ in 0..3 {
        let Some(Lookup::Key(found)) = gate.keys.find(&agent, &known, gate.clock.now_ms()) else { panic!("no pin") };
        assert_eq!((&*found.record.agent, found.record.directory_digest), ("https://signer.example.com", [0; 32]));
        assert_eq!(*found.record.thumbprint, known);
        assert_eq!(said(gate.look(&agent, "unknown").await), "no such key");
        gate.clock.advance(100 * 24 * 60 * MINUTE);
    }
}

#[tokio::test]
async fn pins_outlive_the_directory_and_its_failures() {
    let site = Site::of(&[key(2)]).await;
    let gate = Gate::start(&format!("{}\n{}", allow(&[&site]), pin(&site.agent(), 1)));
    let (pinned, published) = (thumbprint(&key(1)), thumbprint(&key(2)));
    assert_eq!(said(gate.look(&site.agent(), &pinned).await), pinned);
    assert_eq!(site.hits(), 0);
    assert_eq!(said(gate.look(&site.agent(), &published).await), published);
    assert_eq!(said(gate.look(&site.agent(), &pinned).await), pinned);
    site.set(failing(""));
    gate.clock.advance(60 * MINUTE);
    assert!(said(gate.look(&site.agent(), "unknown").await).contains("could not be read"));
    assert_eq!(said(gate.look(&site.agent(), &pinned).await), pinned);
}

#[tokio::test]
async fn the_table_is_bounded_and_forgets_the_least_used() {
    let sites = [Site::of(&[key(1)]).await, Site::of(&[key(1)]).await, Site::of(&[key(1)]).await];
    let known = thumbprint(&key(1));
    let pinned = AgentUrl::parse("https://pinned.example").unwrap();
    let identity = format!("{}\ndirectories = 3\n{}", allow(&[&sites[0], &sites[1], &sites[2]]), pin(&pinned, 9));
    let gate = Gate::start(&identity);
    // 0, 1, then 0 again: 2 takes the place of 1.
    for i in [0, 1, 0, 2] {
        gate.clock.advance(1);
        assert_eq!(said(gate.look(&sites[i].agent(), &known).await), known);
    }
    let kept = |agent: &AgentUrl| gate.keys.read(|table| table.contains_key(agent));
    assert_eq!([0, 1, 2].map(|i| kept(&sites[i].agent())), [true, false, true]);
    assert!(kept(&pinned) && gate.keys.read(|table| table.len()) == 3);
}

#[tokio::test]
async fn agents_that_a_pattern_admits_push_out_no_listed_one() {
    let site = Site::of(&[key(1)]).await;
    let own = site.agent().to_string();
    let identity = format!("allow = [\"any\", \"{own}\"]\ndirectories = 2");
    let gate = Gate::with(&identity, |_| {}, |service| service.resolving(names(Vec::new())));
    let known = thumbprint(&key(1));
    assert_eq!(said(gate.look(&site.agent(), &known).await), known);
    for i in 0..5 {
        gate.clock.advance(1);
        gate.look(&AgentUrl::parse(&format!("https://{i}.example")).unwrap(), "k").await;
    }
    assert_eq!(said(gate.look(&site.agent(), &known).await), known);
    assert_eq!((site.hits(), gate.keys.read(|table| table.len())), (1, 2));
}

#[tokio::test]
async fn strangers_cannot_take_the_place_of_listed_agents() {
    let site = Site::of(&[key(1)]).await;
    let identity = format!("allow = [\"any\", \"{}\"]", site.agent());
    let slow = |config: &mut tollgate::config::Config| config.identity.fetch = Duration::from_secs(60);
    let hanging = Arc::new(Names(|_: &str, _| pending()));
    let gate = Arc::new(Gate::with(&identity, slow, |service| service.resolving(hanging)));
    let mut strangers = JoinSet::new();
    for i in 0..100 {
        let gate = gate.clone();
        let agent = AgentUrl::parse(&format!("https://{i}.example")).unwrap();
        strangers.spawn(async move { gate.keys.ask(agent, "k".into()).await });
    }
    for _ in 0..1000 {
        tokio::task::yield_now().await;
    }
    assert_eq!(said(gate.look(&site.agent(), &thumbprint(&key(1))).await), thumbprint(&key(1)));
}

#[tokio::test]
async fn more_than_fits_is_told_to_come_back() {
    let short = |config: &mut tollgate::config::Config| config.identity.fetch = Duration::from_millis(200);
    let hanging = Arc::new(Names(|_: &str, _| pending()));
    let gate = Arc::new(Gate::with("allow = [\"any\"]", short, |service| service.resolving(hanging)));
    let mut strangers = JoinSet::new();
    for i in 0..400 {
        let gate = gate.clone();
        let agent = AgentUrl::parse(&format!("https://{i}.example")).unwrap();
        strangers.spawn(async move { said(gate.keys.ask(agent, "k".into()).await) });
    }
    let answers = soon(strangers.join_all()).await;
    let busy = answers.iter().filter(|said| said.contains("too many directories")).count();
    let late = answers.iter().filter(|said| said.contains("not read within")).count();
    assert!(busy >= 400 - 256 && late >= 12 && busy + late == 400, "{busy} busy, {late} late");
}

#[tokio::test]
async fn a_panic_is_an_answer() {
    let panics = Arc::new(Names(|_: &str, _| -> Addresses { panic!("on purpose") }));
    let gate = Gate::with("allow = [\"any\"]", |_| {}, |service| service.resolving(panics));
    let agent = AgentUrl::parse("https://signer.example.com").unwrap();
    let said = said(gate.look(&agent, "k").await);
    assert!(said.contains("the gateway failed to read it"), "{said}");
    assert_eq!(retry_after(gate.look(&agent, "k").await), 10);
}
