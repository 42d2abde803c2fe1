//! The shortest runs that failed once, and those in which bugs that were put in show.

use super::{
    bugs::Bug,
    run::{Over, replay},
    steps::Step,
    stores::{Answer, Fate},
};

/// Every equation holds; with the bug one of them does not.
fn kept(over: Over, bug: Option<Bug>, steps: &[Step]) {
    assert_eq!(replay(over, None, steps), Ok(()));
    if bug.is_some() {
        assert!(replay(over, bug, steps).is_err(), "{bug:?} does not show");
    }
}

/// The row of the second intent stayed: unresolved after the next start, though no facilitator was asked.
#[test]
fn an_intent_that_was_not_seen_twice() {
    kept(
        Over::Sqlite,
        None,
        &[
            Step::Arm { replica: 0, fate: Fate::Hold },
            Step::Send { payment: 5, copy: 0, replica: 0, spelling: 0 },
            Step::Go { payment: 5, copy: 0, luck: 77 },
            Step::Go { payment: 5, copy: 0, luck: 85 },
            Step::Go { payment: 5, copy: 0, luck: 83 },
            Step::Answer { replica: 0, answer: Answer::Unseen },
            Step::Send { payment: 5, copy: 2, replica: 0, spelling: 1 },
            Step::Go { payment: 5, copy: 2, luck: 39 },
            Step::Go { payment: 5, copy: 2, luck: 79 },
            Step::Arm { replica: 0, fate: Fate::Unseen },
            Step::Go { payment: 5, copy: 2, luck: 56 },
        ],
    );
}

/// The end of a settlement that moved money is written by the recovery itself, which hangs.
#[test]
fn a_disk_that_hangs_while_it_is_tried_again() {
    kept(
        Over::Sqlite,
        None,
        &[
            Step::Send { payment: 6, copy: 0, replica: 0, spelling: 1 },
            Step::Go { payment: 6, copy: 0, luck: 5 },
            Step::Go { payment: 6, copy: 0, luck: 38 },
            Step::Arm { replica: 0, fate: Fate::Broken },
            Step::Go { payment: 6, copy: 0, luck: 73 },
            Step::Arm { replica: 0, fate: Fate::Hold },
            Step::Mend,
        ],
    );
}

/// Its void hangs in the next commit.
#[test]
fn a_capture_that_nobody_waits_for_over_a_disk_that_hangs_twice() {
    kept(
        Over::Sqlite,
        None,
        &[
            Step::Send { payment: 3, copy: 0, replica: 0, spelling: 0 },
            Step::Go { payment: 3, copy: 0, luck: 26 },
            Step::Arm { replica: 0, fate: Fate::Hold },
            Step::Go { payment: 3, copy: 0, luck: 70 },
            Step::Go { payment: 3, copy: 0, luck: 64 },
            Step::Arm { replica: 0, fate: Fate::Hold },
            Step::Panic { payment: 3, copy: 0 },
            Step::Answer { replica: 0, answer: Answer::Commit },
        ],
    );
}

/// Its replica stood still meanwhile, within its lease, and still owned the claim.
#[test]
fn a_release_that_died_with_the_database() {
    kept(
        Over::Model { tombstones: true },
        None,
        &[
            Step::Send { payment: 3, copy: 1, replica: 0, spelling: 0 },
            Step::Go { payment: 3, copy: 1, luck: 97 },
            Step::Go { payment: 3, copy: 1, luck: 32 },
            Step::Go { payment: 3, copy: 1, luck: 18 },
            Step::Freeze { replica: 0 },
            Step::CrashDatabase,
        ],
    );
}

/// What takes an intent back must be as durable as the intent.
#[test]
fn an_intent_whose_withdrawal_died_with_the_database() {
    kept(
        Over::Model { tombstones: false },
        None,
        &[
            Step::Send { payment: 4, copy: 2, replica: 1, spelling: 0 },
            Step::Go { payment: 4, copy: 2, luck: 17 },
            Step::Go { payment: 4, copy: 2, luck: 50 },
            Step::Arm { replica: 1, fate: Fate::Unseen },
            Step::Go { payment: 4, copy: 2, luck: 97 },
            Step::CrashDatabase,
        ],
    );
}

/// It answers when it goes on, though others have its slot by then.
#[test]
fn a_commit_that_takes_place_while_its_process_stands_still() {
    kept(
        Over::Model { tombstones: true },
        None,
        &[
            Step::Send { payment: 2, copy: 2, replica: 2, spelling: 1 },
            Step::Arm { replica: 2, fate: Fate::Hold },
            Step::Go { payment: 2, copy: 2, luck: 63 },
            Step::Go { payment: 2, copy: 2, luck: 56 },
            Step::Go { payment: 2, copy: 2, luck: 95 },
            Step::Freeze { replica: 2 },
            Step::Answer { replica: 2, answer: Answer::Commit },
            Step::Advance { ms: 40000 },
            Step::Thaw { replica: 2 },
        ],
    );
}

/// Its new process is not cut off from the database that its old one was.
#[test]
fn a_process_that_dies_while_it_stands_still_over_a_database_that_has_died() {
    kept(
        Over::Model { tombstones: true },
        None,
        &[
            Step::Freeze { replica: 0 },
            Step::CrashDatabase,
            Step::Crash { replica: 0, after: true },
            Step::Open { replica: 0 },
            Step::Send { payment: 0, copy: 2, replica: 0, spelling: 0 },
            Step::Freeze { replica: 0 },
        ],
    );
}

#[test]
fn a_claim_that_expires() {
    kept(
        Over::Model { tombstones: true },
        Some(Bug::ClaimExpires),
        &[Step::Send { payment: 0, copy: 0, replica: 0, spelling: 1 }, Step::Advance { ms: 40000 }],
    );
}

#[test]
fn a_close_by_timestamp() {
    kept(
        Over::Model { tombstones: true },
        Some(Bug::ClosesByTime),
        &[
            Step::Midnight { after_ms: -1500 },
            Step::Advance { ms: 700 },
            Step::Sign { payment: 4 },
            Step::Send { payment: 4, copy: 2, replica: 2, spelling: 1 },
            Step::Close { replica: 1, before: 0 },
        ],
    );
}

#[test]
fn a_look_before_the_claim() {
    kept(
        Over::Model { tombstones: false },
        Some(Bug::LooksThenClaims),
        &[
            Step::Send { payment: 3, copy: 1, replica: 1, spelling: 1 },
            Step::Go { payment: 3, copy: 1, luck: 65 },
            Step::Go { payment: 3, copy: 1, luck: 28 },
            Step::Send { payment: 3, copy: 2, replica: 2, spelling: 1 },
            Step::Go { payment: 3, copy: 1, luck: 22 },
        ],
    );
}

#[test]
fn a_loser_in_a_roll_up() {
    kept(
        Over::Model { tombstones: true },
        Some(Bug::LoserCounts),
        &[Step::Send { payment: 1, copy: 0, replica: 0, spelling: 0 }, Step::CrashDatabase],
    );
}

#[test]
fn a_refusal_taken_as_proof() {
    kept(
        Over::Model { tombstones: true },
        Some(Bug::RefusalIsProof),
        &[
            Step::Send { payment: 5, copy: 1, replica: 2, spelling: 1 },
            Step::Go { payment: 5, copy: 1, luck: 47 },
            Step::Go { payment: 5, copy: 1, luck: 65 },
            Step::Go { payment: 5, copy: 1, luck: 85 },
            Step::Go { payment: 5, copy: 1, luck: 38 },
            Step::Go { payment: 5, copy: 1, luck: 10 },
        ],
    );
}

#[test]
fn a_void_on_a_stalling_client() {
    kept(
        Over::Model { tombstones: true },
        Some(Bug::VoidsOnStall),
        &[
            Step::Send { payment: 0, copy: 0, replica: 0, spelling: 1 },
            Step::Go { payment: 0, copy: 0, luck: 79 },
            Step::Go { payment: 0, copy: 0, luck: 95 },
            Step::Go { payment: 0, copy: 0, luck: 80 },
            Step::Stall { payment: 0, copy: 0 },
            Step::Go { payment: 0, copy: 0, luck: 25 },
            Step::Go { payment: 0, copy: 0, luck: 24 },
        ],
    );
}

#[test]
fn an_unknown_commit_retried() {
    kept(
        Over::Model { tombstones: true },
        Some(Bug::RetriesBlindly),
        &[
            Step::Arm { replica: 0, fate: Fate::Unseen },
            Step::Send { payment: 3, copy: 0, replica: 0, spelling: 0 },
            Step::Go { payment: 3, copy: 0, luck: 57 },
            Step::Go { payment: 3, copy: 0, luck: 28 },
            Step::Go { payment: 3, copy: 0, luck: 78 },
        ],
    );
}

#[test]
fn credit_checked_before_it_is_taken() {
    kept(
        Over::Model { tombstones: true },
        Some(Bug::ChecksThenCaptures),
        &[
            Step::Send { payment: 0, copy: 2, replica: 1, spelling: 1 },
            Step::Sign { payment: 1 },
            Step::Sign { payment: 1 },
            Step::Sign { payment: 4 },
            Step::Sign { payment: 0 },
            Step::Send { payment: 2, copy: 1, replica: 2, spelling: 1 },
            Step::Send { payment: 1, copy: 0, replica: 2, spelling: 1 },
            Step::Send { payment: 0, copy: 0, replica: 1, spelling: 0 },
        ],
    );
}

#[test]
fn text_as_key() {
    kept(
        Over::Model { tombstones: true },
        Some(Bug::TextAsKey),
        &[
            Step::Send { payment: 2, copy: 0, replica: 2, spelling: 1 },
            Step::Send { payment: 2, copy: 2, replica: 1, spelling: 0 },
        ],
    );
}
