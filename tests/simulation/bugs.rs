//! Bugs that are put in on purpose, each of which the simulation must find, and find only with it.

use super::run::{Failure, Over, Tally, replay, seeded, shrink, told};

/// Of the simulated store, or of what a gateway decides around it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// The key of a payment is the text that it came as.
    TextAsKey,
    /// The ledger is asked for a capture before the claim, not after it.
    LooksThenClaims,
    /// A claim ends by a timer, however slow the origin is.
    ClaimExpires,
    /// An answer that the origin cuts is voided though its client had stopped reading.
    VoidsOnStall,
    /// A refusal of a second try is taken as proof that nothing moved.
    RefusalIsProof,
    /// Credit is looked at by the claim and taken by the capture.
    ChecksThenCaptures,
    /// A close goes by the time of a posting, not by the open day.
    ClosesByTime,
    /// A capture that lost is summed all the same.
    LoserCounts,
    /// A commit of which nothing is known is written once more.
    RetriesBlindly,
}

/// Seeds within which each is found.
const SEEDS: u64 = 400;

impl Bug {
    /// The look after the claim matters where a captured claim leaves no row.
    fn over(self) -> Over {
        Over::Model { tombstones: self != Bug::LooksThenClaims }
    }
}

/// Finds the bug by one of the equations that must tell of it; without the bug the same run holds.
fn found(bug: Bug, equations: &[u8]) {
    let over = bug.over();
    for seed in 0..SEEDS {
        let (steps, Err(broken)) = seeded(over, Some(bug), seed, &mut Tally::new()) else { continue };
        let taken = steps.len();
        let least = shrink(over, Some(bug), Failure { steps, broken });
        println!("{} seeds, {taken} steps, {}", seed + 1, told(over, Some(bug), seed, &least));
        assert!(equations.contains(&least.broken.equation), "{:?}", least.broken);
        assert_eq!(replay(over, None, &least.steps), Ok(()), "without the bug");
        return;
    }
    panic!("{bug:?} was not found in {SEEDS} seeds");
}

#[test]
fn text_as_key_is_found() {
    found(Bug::TextAsKey, &[4, 5, 7]);
}

#[test]
fn a_look_before_the_claim_is_found() {
    found(Bug::LooksThenClaims, &[5, 7]);
}

#[test]
fn a_claim_that_expires_under_a_slow_origin_is_found() {
    found(Bug::ClaimExpires, &[1, 7]);
}

#[test]
fn a_void_on_a_stalling_client_is_found() {
    found(Bug::VoidsOnStall, &[6]);
}

#[test]
fn a_refusal_of_a_retry_taken_as_proof_is_found() {
    found(Bug::RefusalIsProof, &[4]);
}

#[test]
fn credit_that_is_checked_and_then_captured_is_found() {
    found(Bug::ChecksThenCaptures, &[3]);
}

#[test]
fn a_close_by_timestamp_is_found() {
    found(Bug::ClosesByTime, &[2, 8]);
}

#[test]
fn a_loser_in_a_roll_up_is_found() {
    found(Bug::LoserCounts, &[2]);
}

#[test]
fn an_unknown_commit_that_is_retried_blindly_is_found() {
    found(Bug::RetriesBlindly, &[1]);
}
