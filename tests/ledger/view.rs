//! What agents are shown of the books.

use std::sync::Arc;

use tollgate::ledger::{
    correction::State,
    entry::Kind,
    read::Listed,
    store::{By, CorrectError, Corrected, Delivery, Order, Signed, Store, What},
    view::{Cursor, Question, View},
};

use crate::{
    closing::{DAY_MS, TODAY, buy, close},
    corrections::{audited, order, void},
    support::*,
};

const AGENT: &str = "https://signer.example.com";

fn view(ledger: &Ledger, account: &str, most: usize, before: Option<Cursor>) -> View {
    let (account, agent) = (account.to_owned(), AGENT.to_owned());
    let periods = vec![("USD".to_owned(), 202_611), ("EUR".to_owned(), 202_611)];
    ledger.reader().view(&Question { account, agent, periods, before, most }).unwrap()
}

/// All pages.
fn pages(ledger: &Ledger, account: &str, most: usize) -> Vec<Listed> {
    let (mut found, mut before) = (Vec::new(), None);
    loop {
        let page = view(ledger, account, most, before);
        assert!(page.entries.len() <= most);
        found.extend(page.entries);
        let Some(next) = page.next else { return found };
        assert_eq!(Cursor::parse(&next.to_string()).as_ref(), Some(&next));
        before = Some(next);
    }
}

pub fn signed(account: &str, agent: &str, base: &str) -> Arc<Signed> {
    let (thumbprint, signature, body) = ("print".into(), vec![1; 64], b"{}".to_vec());
    Arc::new(Signed { account: account.into(), agent: agent.into(), thumbprint, base: base.into(), signature, body })
}

fn contest(ledger: &Ledger, n: i64, signed: &Arc<Signed>) -> Result<Corrected, CorrectError> {
    let order = Order { n, what: What::Dispute, reason: "because".to_owned(), by: By::Agent(signed.clone()) };
    wait(ledger.store().correct(vec![order])).unwrap().remove(0)
}

#[test]
fn pages_have_every_entry_of_the_agent_once_newest_first_with_what_became_of_it() {
    let ledger = Ledger::new();
    let mut sold = Vec::new();
    for turn in 0..23 {
        ledger.clock.advance(1);
        let account = if turn % 3 == 0 { "other" } else { "acme" };
        sold.push((account, buy(&ledger, account, &turn.to_string(), 100).n));
    }
    let of = |account: &str| sold.iter().filter(|(of, _)| *of == account).map(|(_, n)| *n).collect::<Vec<_>>();
    let mine = of("acme");
    ledger.outcome(mine[0], Delivery::Complete, false);
    ledger.outcome(mine[1], Delivery::ClientLeft, false);
    void(&ledger, mine[2]).unwrap();
    contest(&ledger, mine[3], &signed("acme", AGENT, "a")).unwrap();
    // Behind both: what was told rides with the next batch.
    buy(&ledger, "other", "last", 1);
    let all = pages(&ledger, "acme", 100);
    for most in [1, 2, 5, 17] {
        assert_eq!(pages(&ledger, "acme", most), all, "{most}");
    }
    let captures: Vec<&Listed> = all.iter().filter(|row| row.kind == Kind::Capture).rev().collect();
    assert_eq!(captures.iter().map(|row| row.n).collect::<Vec<_>>(), mine);
    assert_eq!(all.len(), mine.len() + 2);
    assert!(all.iter().all(|row| row.account == "acme" && row.agent == AGENT));
    assert!(all.windows(2).all(|two| (two[0].at_ms, two[0].n) > (two[1].at_ms, two[1].n)));
    let fate = |at: usize| captures[at].fate.unwrap();
    let delivery = |at| fate(at).outcome.map(|outcome| outcome.delivery);
    assert_eq!([0, 1, 2].map(delivery), [Some(Delivery::Complete), Some(Delivery::ClientLeft), None]);
    assert_eq!((fate(2).void_n.is_some(), fate(3).dispute, fate(4).dispute), (true, Some(State::Open), None));
    assert_eq!(view(&ledger, "acme", 1, None).used, [100 * (mine.len() as i64 - 1), 0]);
    assert_eq!(view(&ledger, "nobody", 1, None), View { used: vec![0, 0], ..View::default() });
}

#[test]
fn the_latest_statements_of_the_account_are_shown() {
    let ledger = Ledger::new();
    for day in 1..=3 {
        buy(&ledger, "acme", &format!("a{day}"), day);
        buy(&ledger, "other", &format!("b{day}"), day);
        ledger.advance(DAY_MS);
        close(&ledger, TODAY + day).unwrap();
    }
    let totals: Vec<(String, i64)> =
        view(&ledger, "acme", 1, None).statements.into_iter().map(|s| (s.account, s.total)).collect();
    assert_eq!(totals, [("acme".to_owned(), 3), ("acme".to_owned(), 2), ("acme".to_owned(), 1)]);
}

#[test]
fn what_an_agent_signed_counts_once_and_for_its_own_charges_alone() {
    let mut ledger = Ledger::new();
    let (n, far) = (buy(&ledger, "acme", "a", 100).n, buy(&ledger, "other", "b", 100).n);
    let first = signed("acme", AGENT, "first");
    for (n, by) in [
        (far, &first),
        (n, &signed("acme", "https://other.example.com", "x")),
        (n, &signed("other", AGENT, "x")),
        (n + 1000, &first),
    ] {
        assert_eq!(contest(&ledger, n, by), Err(CorrectError::NoEntry(n)));
    }
    let opened = contest(&ledger, n, &first).unwrap();
    assert_eq!((opened.number, opened.state, opened.was), (1, Some(State::Open), false));
    assert_eq!(contest(&ledger, n, &first).unwrap(), Corrected { was: true, ..opened.clone() });
    // A second valid signature over the same base, which some kinds of keys allow, is the same order.
    let other_bytes = Arc::new(Signed { signature: vec![2; 64], ..(*first).clone() });
    order(&ledger, n, What::Reject).unwrap();
    ledger.reopen().unwrap();
    for again in [&first, &other_bytes] {
        let was = contest(&ledger, n, again).unwrap();
        assert_eq!((was.number, was.state, was.was), (1, Some(State::Rejected), true));
    }
    // Of another key, or of other words, it is another one.
    let fresh = Arc::new(Signed { thumbprint: "another".into(), ..(*first).clone() });
    assert_eq!(contest(&ledger, n, &fresh).unwrap().number, 2);
    order(&ledger, n, What::Reject).unwrap();
    assert_eq!(contest(&ledger, n, &signed("acme", AGENT, "firs")).unwrap().number, 3);
    let shown = ledger.reader().show(&n.to_string()).unwrap().unwrap();
    let by: Vec<_> = shown.disputes.iter().map(|d| (&*d.by, d.proof == Some(first.proof()))).collect();
    assert_eq!(by, [("agent", true), ("agent", false), ("agent", false)]);
    audited(&ledger);
}

#[test]
fn a_page_is_short_where_targets_are_long_and_nothing_is_left_out() {
    let ledger = Ledger::new();
    let mut sold = Vec::new();
    for name in 0..12 {
        let claim = ledger.claim(&name.to_string()).unwrap();
        let target = format!("https://shop.example/{}", "a".repeat(60_000)).into();
        let posting = tollgate::ledger::store::Posting { target, ..posting(claim.request.amount) };
        sold.push(wait(ledger.store().capture(claim, posting)).unwrap().n);
    }
    sold.reverse();
    let account = request("", 0).account;
    let first = view(&ledger, &account, 100, None);
    assert_eq!((first.entries.len(), first.next.is_some()), (5, true));
    for most in [3, 100] {
        assert_eq!(pages(&ledger, &account, most).iter().map(|row| row.n).collect::<Vec<_>>(), sold, "{most}");
    }
}

#[test]
fn a_page_looks_only_so_far_and_the_next_one_goes_on() {
    const BASE: i64 = 1 << 48;
    let mut ledger = Ledger::new();
    let mine = buy(&ledger, "acme", "first", 1).n;
    for name in 0..20 {
        buy(&ledger, "other", &name.to_string(), 1);
    }
    ledger.close();
    // Far apart, as if others had bought much between them.
    ledger.change(&format!("UPDATE entries SET n = (n - {BASE}) * 25000 + {BASE} WHERE n > {mine}"));
    ledger.change("UPDATE writers SET seq = 21 * 25000");
    let first = view(&ledger, "acme", 10, None);
    assert_eq!((first.entries.len(), first.next.is_some()), (0, true));
    let all = pages(&ledger, "acme", 10);
    assert_eq!(all.iter().map(|row| row.n).collect::<Vec<_>>(), [mine]);
    // What an archive has taken is no distance.
    ledger.change(&format!("DELETE FROM entries WHERE n > {mine}"));
    let first = view(&ledger, "acme", 10, None);
    assert_eq!((first.entries.len(), first.next), (1, None));
}
