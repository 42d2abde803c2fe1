use super::*;

const DAY: u64 = 86_400_000;

fn standing(scheme: &str) -> Standing {
    Standing {
        n: 7,
        scheme: scheme.to_owned(),
        asset: "USD".to_owned(),
        amount: 10_000,
        at_ms: 1000,
        void_n: None,
        redelivered_n: None,
        refunds: Vec::new(),
        disputes: Vec::new(),
    }
}

fn order(what: What) -> Order {
    Order { n: 7, what, reason: "why".to_owned(), by: By::Operator }
}

fn refund(reference: &str, amount: Option<i64>, state: Option<State>) -> What {
    What::Refund { reference: reference.to_owned(), amount: amount.and_then(Units::new), state }
}

fn matter(number: u8, amount: i64, state: State, reference: &str) -> Matter {
    let reference = (!reference.is_empty()).then(|| reference.to_owned());
    let (reason, by) = (String::new(), "operator".to_owned());
    Matter {
        number,
        n: 100 + i64::from(number),
        at_ms: 0,
        amount,
        state,
        ended_n: None,
        reference,
        reason,
        by,
        proof: None,
    }
}

/// What follows, as `kind number amount state`, or the words of the refusal.
fn follows(standing: &Standing, what: What, now_ms: u64) -> String {
    match decide(standing, &order(what), Rules::default(), now_ms) {
        Ok(Decision::Post(steps)) => {
            let step = |step: &Step| {
                let state = step.state.map_or("-", State::name);
                format!("{} {:x} {} {state}", step.kind.name(), step.number, step.amount)
            };
            steps.iter().map(step).collect::<Vec<_>>().join(", ")
        }
        Ok(Decision::Was(matter)) => format!("was {} {}", matter.number, matter.state.name()),
        Err(error) => error.to_string(),
    }
}

#[test]
fn a_charge_on_credit_is_voided_once_and_never_refunded() {
    let void = What::Void { unproven_since: None };
    let mut on_credit = standing("deferred");
    assert_eq!(follows(&on_credit, void.clone(), 0), "void 0 10000 -");
    assert!(follows(&on_credit, refund("x", None, None), 0).contains("say `ledger void 7"));
    on_credit.redelivered_n = Some(8);
    assert_eq!(follows(&on_credit, void.clone(), 0), "void 0 10000 -");
    let unproven = What::Void { unproven_since: Some([(1, 3)].into()) };
    assert!(follows(&on_credit, unproven, 0).contains("by now it is known"));
    on_credit.void_n = Some(9);
    assert_eq!(follows(&on_credit, void.clone(), 0), "entry 7 is voided already, by entry 9");
    assert_eq!(follows(&on_credit, What::Dispute, 0), "entry 7 is voided already, by entry 9");
    assert!(follows(&standing("exact"), void, 0).contains("say `ledger refund 7"));
}

#[test]
fn refunds_add_up_to_the_charge_and_a_failed_one_counts_no_more() {
    let mut paid = standing("exact");
    assert_eq!(follows(&paid, refund("a", None, None), 0), "refund 100 10000 sent");
    assert_eq!(follows(&paid, refund("a", Some(10_000), Some(State::Done)), 0), "refund 100 10000 done");
    let most = "entry 7: 0.010001 USD can't be refunded: expected more than nothing and at most 0.01 USD, what is left of 0.01 USD";
    assert_eq!(follows(&paid, refund("a", Some(10_001), None), 0), most);
    assert!(follows(&paid, refund("a", Some(0), None), 0).contains("more than nothing"));
    assert!(follows(&paid, refund("a", None, Some(State::Failed)), 0).contains("no refund `a`"));
    paid.refunds = vec![matter(1, 4_000, State::Sent, "a")];
    assert_eq!(follows(&paid, refund("b", None, None), 0), "refund 200 6000 sent");
    assert!(follows(&paid, refund("b", Some(6_001), None), 0).contains("at most 0.006 USD"));
    paid.refunds.push(matter(2, 6_000, State::Done, "b"));
    assert_eq!(follows(&paid, refund("c", None, None), 0), "entry 7: all of 0.01 USD was given back already");
    assert!(follows(&paid, What::Dispute, 0).contains("was given back already"));
    paid.refunds[0].state = State::Failed;
    assert_eq!(follows(&paid, refund("c", None, None), 0), "refund 300 4000 sent");
    assert!(follows(&standing("upto"), refund("", None, None), 0).contains("the reference must be"));
    assert!(follows(&standing("upto"), refund(&"x".repeat(201), None, None), 0).contains("the reference must be"));
}

#[test]
fn the_same_reference_is_the_same_refund() {
    let mut paid = standing("exact");
    paid.refunds = vec![matter(1, 4_000, State::Sent, "a")];
    for (amount, state, expect) in [
        (None, None, "was 1 sent"),
        (Some(4_000), Some(State::Sent), "was 1 sent"),
        (None, Some(State::Done), "refund 101 4000 done"),
        (None, Some(State::Failed), "refund 101 4000 failed"),
        (
            Some(5_000),
            None,
            "the refund `a` is of 0.004 USD, not of 0.005 USD: name another reference for another refund",
        ),
    ] {
        assert_eq!(follows(&paid, refund(" a ", amount, state), 0), expect);
    }
    paid.refunds[0].state = State::Done;
    assert_eq!(follows(&paid, refund("a", None, None), 0), "was 1 done");
    assert_eq!(follows(&paid, refund("a", None, Some(State::Done)), 0), "was 1 done");
    assert!(follows(&paid, refund("a", None, Some(State::Failed)), 0).contains("is done for good"));
    // Money that has not arrived must not look as if it had.
    paid.refunds[0].state = State::Failed;
    assert_eq!(follows(&paid, refund("a", None, Some(State::Failed)), 0), "was 1 failed");
    assert!(follows(&paid, refund("a", None, None), 0).contains("is failed for good"));
    assert!(follows(&paid, refund("a", None, Some(State::Done)), 0).contains("is failed for good"));
}

#[test]
fn a_dispute_is_opened_inside_its_window_and_ends_once() {
    let mut charged = standing("deferred");
    let last = 1000 + 30 * DAY - 1;
    assert_eq!(follows(&charged, What::Dispute, last), "dispute 100 10000 open");
    let over = follows(&charged, What::Dispute, last + 1);
    assert_eq!(over, "entry 7 could be disputed for 30 days (ledger.dispute_days), until 1970-01-31T00:00:01.000Z");
    assert!(follows(&charged, What::Uphold, 0).contains("has no open dispute"));
    charged.disputes = vec![matter(1, 10_000, State::Open, "")];
    assert_eq!(follows(&charged, What::Dispute, 0), "entry 7 is disputed already, by entry 101");
    charged.disputes = vec![matter(1, 10_000, State::Upheld, "")];
    assert_eq!(follows(&charged, What::Dispute, 0), "entry 7 is disputed already, by entry 101");
    charged.disputes = vec![matter(1, 10_000, State::Open, "")];
    // Its end has no window.
    let late = last + 1000 * DAY;
    assert_eq!(follows(&charged, What::Uphold, late), "dispute 101 10000 upheld, void 0 10000 -");
    assert_eq!(follows(&charged, What::Reject, late), "dispute 101 10000 rejected");
    charged.void_n = Some(9);
    assert_eq!(follows(&charged, What::Uphold, late), "dispute 101 10000 upheld");
    charged.void_n = None;
    charged.scheme = "exact".to_owned();
    assert_eq!(follows(&charged, What::Uphold, 0), "dispute 101 10000 upheld");
    for number in 1..=3 {
        charged.disputes = (1..=number).map(|number| matter(number, 10_000, State::Rejected, "")).collect();
        assert!(follows(&charged, What::Reject, 0).contains("has no open dispute"));
    }
    assert_eq!(
        follows(&charged, What::Dispute, 0),
        "entry 7 has 3 disputes already, which is as many as a charge may have"
    );
}

#[test]
fn a_reason_is_a_line_of_text() {
    let check = |what, reason: &str, ok| {
        let order = Order { reason: reason.to_owned(), ..order(what) };
        let decided = decide(&standing("deferred"), &order, Rules::default(), 0);
        assert_eq!(decided != Err(CorrectError::Reason), ok, "{reason:?}");
    };
    for reason in ["", " ", "a\nb", &"x".repeat(501)] {
        check(What::Void { unproven_since: None }, reason, false);
        check(What::Dispute, reason, false);
        check(What::Reject, reason, false);
    }
    check(What::Uphold, "", true);
    check(refund("a", None, None), "", true);
    check(refund("a", None, None), "a\nb", false);
}

#[test]
fn amounts_are_exact_text() {
    let usdc = "eip155:84532/erc20:0x036cbd53842c5426634e7929541ec2318f3dcf7e";
    for (units, asset, expect) in [
        (10_000, "USD", "0.01 USD"),
        (4_000, usdc, "0.004 USDC"),
        (12_500_000, usdc, "12.50 USDC"),
        (1, usdc, "0.000001 USDC"),
        (7, "eip155:1/erc20:0xabc", "7 units of eip155:1/erc20:0xabc"),
    ] {
        assert_eq!(text(units, asset), expect);
    }
}
