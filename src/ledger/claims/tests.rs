use std::sync::{Barrier, atomic::AtomicU32};

use super::*;
use crate::ledger::store::Purchase;
use crate::wire::amount::Currency;

fn request(key: &str, amount: i64, limit: i64) -> ClaimRequest {
    let units = |n| Units::new(n).unwrap();
    ClaimRequest {
        within: None,
        key: PaymentKey::from_signature(&[key.as_bytes()]),
        paid_at_ms: 1000,
        account: "acme".into(),
        amount: units(amount),
        asset: Currency::parse("USD").unwrap().into(),
        limit: units(limit),
        period: 202_611,
        purchase: None,
        payer: None,
    }
}

/// Runs the same thing on eight threads at once.
fn on_eight_threads(run: impl Fn(usize) + Sync) {
    let barrier = Barrier::new(8);
    std::thread::scope(|scope| {
        for i in 0..8 {
            let (run, barrier) = (&run, &barrier);
            scope.spawn(move || {
                barrier.wait();
                run(i);
            });
        }
    });
}

#[test]
fn one_key_claimed_by_many_is_granted_once() {
    let claims = Claims::new(10_000, 0, false);
    for round in 0..200 {
        let granted = AtomicU32::new(0);
        on_eight_threads(|_| match claims.claim(request(&format!("k{round}"), 1, i64::MAX / 4), 0) {
            Ok(_) => _ = granted.fetch_add(1, Ordering::Relaxed),
            Err(error) => assert_eq!(error, ClaimError::InFlight),
        });
        assert_eq!(granted.into_inner(), 1, "round {round}");
    }
}

#[test]
fn the_limit_is_never_exceeded_and_its_last_unit_can_be_spent() {
    let claims = Claims::new(100_000, 0, false);
    let granted = AtomicU32::new(0);
    on_eight_threads(|thread| {
        for i in 0..500 {
            match claims.claim(request(&format!("{thread}/{i}"), 7, 7 * 1000), 0) {
                Ok(claim) if i % 2 == 0 => {
                    claims.captured(&claim, 1, claim.request.amount);
                    granted.fetch_add(1, Ordering::Relaxed);
                }
                Ok(_) => _ = granted.fetch_add(1, Ordering::Relaxed),
                Err(ClaimError::CreditExhausted { used, .. }) => assert_eq!(used.get(), 7000),
                Err(error) => panic!("{error}"),
            }
        }
    });
    assert_eq!(granted.into_inner(), 1000);
    assert!(matches!(claims.claim(request("one more", 1, 7000), 0), Err(ClaimError::CreditExhausted { .. })));
    assert!(claims.claim(request("nothing", 0, 7000), 0).is_ok());
}

#[test]
fn the_third_release_burns_the_key_and_gives_the_credit_back() {
    let claims = Claims::new(10, 0, false);
    for _ in 0..3 {
        let claim = claims.claim(request("k", 5, 5), 0).unwrap();
        assert_eq!(claims.claim(request("k", 5, 5), 0).unwrap_err(), ClaimError::InFlight);
        claims.release(&claim, Released::OriginFailed, 0);
        // A second release of the same claim changes nothing.
        claims.release(&claim, Released::OriginFailed, 0);
    }
    assert_eq!(claims.claim(request("k", 5, 5), 0).unwrap_err(), ClaimError::Burnt);
    assert!(claims.claim(request("other", 5, 5), 0).is_ok());
}

#[test]
fn a_lower_actual_amount_gives_the_rest_back() {
    let claims = Claims::new(10, 0, false);
    let claim = claims.claim(request("k", 5, 5), 0).unwrap();
    claims.captured(&claim, 9, Units::new(2).unwrap());
    assert_eq!(claims.claim(request("k", 1, 5), 0).unwrap_err(), ClaimError::AlreadyCaptured(Some(9)));
    assert_eq!(claims.look(&claim.request.key), Look::Captured(Some(9)));
    assert!(claims.claim(request("l", 3, 5), 0).is_ok());
    assert_eq!(claims.credit.used(&use_key(&claim.request)).get(), 5);
    claims.credit.void(&use_key(&claim.request), 2);
    assert_eq!(claims.credit.used(&use_key(&claim.request)).get(), 3);
}

#[test]
fn a_full_memory_refuses_and_the_sweeper_keeps_what_is_above_the_floor() {
    let claims = Claims::new(2, 0, false);
    let live = claims.claim(request("live", 1, 9), 0).unwrap();
    let captured = claims.claim(ClaimRequest { paid_at_ms: 1999, ..request("b", 1, 9) }, 0).unwrap();
    claims.captured(&captured, 1, Units::ZERO);
    let full = claims.claim(request("c", 1, 9), 0).unwrap_err();
    assert!(full.to_string().contains("memory is full"), "{full}");
    claims.raise_floor(1999);
    (0..SHARDS).for_each(|i| claims.sweep(i));
    assert_eq!(claims.held(), 2);
    claims.raise_floor(2000);
    claims.raise_floor(5);
    (0..SHARDS).for_each(|i| claims.sweep(i));
    assert_eq!((claims.held(), claims.is_live(&live)), (1, true));
    let again = ClaimRequest { paid_at_ms: 1999, ..request("b", 1, 9) };
    assert_eq!(claims.claim(again, 0).unwrap_err(), ClaimError::BelowFloor);
    assert!(claims.claim(ClaimRequest { paid_at_ms: 2000, ..request("d", 1, 9) }, 0).is_ok());
}

#[test]
fn wallets_are_throttled_one_by_one() {
    let claims = Claims::new(1000, 0, false);
    let of = |payer: Option<&str>, key: &str| ClaimRequest {
        account: "wallets".into(),
        period: 0,
        purchase: payer.map(|payer| Purchase { payer: payer.into(), what: key.into() }),
        ..request(key, 1, i64::MAX / 4)
    };
    for payer in [Some("a"), None] {
        for i in 0..crate::ledger::throttle::DROPS_MAX {
            let claim = claims.claim(of(payer, &format!("{payer:?}{i}")), 5).unwrap();
            claims.release(&claim, Released::ClientLeft, 5);
        }
    }
    assert_eq!(claims.claim(of(Some("a"), "next"), 5).unwrap_err(), ClaimError::Throttled);
    assert!(claims.claim(of(Some("b"), "other"), 5).is_ok());
    assert!(claims.claim(of(None, "unknown"), 5).is_ok());
}

#[test]
fn an_account_that_drops_its_claims_is_throttled_and_one_whose_origin_fails_is_not() {
    let claims = Claims::new(1000, 0, false);
    for why in [Released::OriginFailed, Released::ClientLeft] {
        for i in 0..crate::ledger::throttle::DROPS_MAX {
            let claim = claims.claim(request(&format!("{why:?}{i}"), 1, 9), 5).unwrap();
            claims.release(&claim, why, 5);
        }
    }
    assert_eq!(claims.claim(request("next", 1, 9), 5).unwrap_err(), ClaimError::Throttled);
    assert!(claims.claim(request("next", 1, 9), 505).is_ok());
}

#[test]
fn a_purchase_of_a_call_is_without_its_arguments() {
    let what = |target: &str| Purchase::new("payer".into(), "POST", target).what.to_string();
    assert_eq!(what("https://a.example/mcp#tool/add;sha256=abc"), "POST https://a.example/mcp#tool/add");
    assert_eq!(what("https://a.example/mcp#tool/a;sha256=b;sha256=abc"), "POST https://a.example/mcp#tool/a;sha256=b");
    assert_eq!(what("https://a.example/x;sha256=abc"), "POST https://a.example/x;sha256=abc");
}
