//! The shortest runs that failed once, and those in which bugs that were put in show.

use super::{
    bugs::Bug,
    postgres_server::Database,
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

/// All of them hold over a server, too.
const ALL: &[&[Step]] = &[
    AN_INTENT_THAT_WAS_NOT_SEEN_TWICE,
    A_DISK_THAT_HANGS_WHILE_IT_IS_TRIED_AGAIN,
    A_CAPTURE_THAT_NOBODY_WAITS_FOR_OVER_A_DISK_THAT_HANGS_TWICE,
    A_RELEASE_THAT_DIED_WITH_THE_DATABASE,
    AN_INTENT_WHOSE_WITHDRAWAL_DIED_WITH_THE_DATABASE,
    A_COMMIT_THAT_TAKES_PLACE_WHILE_ITS_PROCESS_STANDS_STILL,
    A_PROCESS_THAT_DIES_WHILE_IT_STANDS_STILL_OVER_A_DATABASE_THAT_HAS_DIED,
    A_DOUBT_THAT_DIED_WITH_THE_DATABASE,
    CLOSES_BY_CLOCKS_THAT_DIFFER,
    A_CLAIM_THAT_EXPIRES,
    A_CLOSE_BY_TIMESTAMP,
    A_LOOK_BEFORE_THE_CLAIM,
    A_LOSER_IN_A_ROLL_UP,
    A_REFUSAL_TAKEN_AS_PROOF,
    A_VOID_ON_A_STALLING_CLIENT,
    AN_UNKNOWN_COMMIT_RETRIED,
    CREDIT_CHECKED_BEFORE_IT_IS_TAKEN,
    TEXT_AS_KEY,
];

#[test]
fn every_run_that_is_kept_holds_over_a_postgresql_server() {
    if Database::is_there("simulation::every_run_that_is_kept") {
        for steps in ALL {
            assert_eq!(replay(Over::Postgres, None, steps), Ok(()), "{steps:?}");
        }
    }
}

/// The row of the second intent stayed: unresolved after the next start, though no facilitator was asked.
const AN_INTENT_THAT_WAS_NOT_SEEN_TWICE: &[Step] = &[
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
];

#[test]
fn an_intent_that_was_not_seen_twice() {
    kept(Over::Sqlite, None, AN_INTENT_THAT_WAS_NOT_SEEN_TWICE);
}

/// The end of a settlement that moved money is written by the recovery itself, which hangs.
const A_DISK_THAT_HANGS_WHILE_IT_IS_TRIED_AGAIN: &[Step] = &[
    Step::Send { payment: 6, copy: 0, replica: 0, spelling: 1 },
    Step::Go { payment: 6, copy: 0, luck: 5 },
    Step::Go { payment: 6, copy: 0, luck: 38 },
    Step::Arm { replica: 0, fate: Fate::Broken },
    Step::Go { payment: 6, copy: 0, luck: 73 },
    Step::Arm { replica: 0, fate: Fate::Hold },
    Step::Mend,
];

#[test]
fn a_disk_that_hangs_while_it_is_tried_again() {
    kept(Over::Sqlite, None, A_DISK_THAT_HANGS_WHILE_IT_IS_TRIED_AGAIN);
}

/// Its void hangs in the next commit.
const A_CAPTURE_THAT_NOBODY_WAITS_FOR_OVER_A_DISK_THAT_HANGS_TWICE: &[Step] = &[
    Step::Send { payment: 3, copy: 0, replica: 0, spelling: 0 },
    Step::Go { payment: 3, copy: 0, luck: 26 },
    Step::Arm { replica: 0, fate: Fate::Hold },
    Step::Go { payment: 3, copy: 0, luck: 70 },
    Step::Go { payment: 3, copy: 0, luck: 64 },
    Step::Arm { replica: 0, fate: Fate::Hold },
    Step::Panic { payment: 3, copy: 0 },
    Step::Answer { replica: 0, answer: Answer::Commit },
];

#[test]
fn a_capture_that_nobody_waits_for_over_a_disk_that_hangs_twice() {
    kept(Over::Sqlite, None, A_CAPTURE_THAT_NOBODY_WAITS_FOR_OVER_A_DISK_THAT_HANGS_TWICE);
}

/// Its replica stood still meanwhile, within its lease, and still owned the claim.
const A_RELEASE_THAT_DIED_WITH_THE_DATABASE: &[Step] = &[
    Step::Send { payment: 3, copy: 1, replica: 0, spelling: 0 },
    Step::Go { payment: 3, copy: 1, luck: 97 },
    Step::Go { payment: 3, copy: 1, luck: 32 },
    Step::Go { payment: 3, copy: 1, luck: 18 },
    Step::Freeze { replica: 0 },
    Step::CrashDatabase,
];

#[test]
fn a_release_that_died_with_the_database() {
    kept(Over::Model { tombstones: true }, None, A_RELEASE_THAT_DIED_WITH_THE_DATABASE);
}

/// What takes an intent back must be as durable as the intent.
const AN_INTENT_WHOSE_WITHDRAWAL_DIED_WITH_THE_DATABASE: &[Step] = &[
    Step::Send { payment: 4, copy: 2, replica: 1, spelling: 0 },
    Step::Go { payment: 4, copy: 2, luck: 17 },
    Step::Go { payment: 4, copy: 2, luck: 50 },
    Step::Arm { replica: 1, fate: Fate::Unseen },
    Step::Go { payment: 4, copy: 2, luck: 97 },
    Step::CrashDatabase,
];

#[test]
fn an_intent_whose_withdrawal_died_with_the_database() {
    kept(Over::Model { tombstones: false }, None, AN_INTENT_WHOSE_WITHDRAWAL_DIED_WITH_THE_DATABASE);
}

/// It answers when it goes on, though others have its slot by then.
const A_COMMIT_THAT_TAKES_PLACE_WHILE_ITS_PROCESS_STANDS_STILL: &[Step] = &[
    Step::Send { payment: 2, copy: 2, replica: 2, spelling: 1 },
    Step::Arm { replica: 2, fate: Fate::Hold },
    Step::Go { payment: 2, copy: 2, luck: 63 },
    Step::Go { payment: 2, copy: 2, luck: 56 },
    Step::Go { payment: 2, copy: 2, luck: 95 },
    Step::Freeze { replica: 2 },
    Step::Answer { replica: 2, answer: Answer::Commit },
    Step::Advance { ms: 40000 },
    Step::Thaw { replica: 2 },
];

#[test]
fn a_commit_that_takes_place_while_its_process_stands_still() {
    kept(Over::Model { tombstones: true }, None, A_COMMIT_THAT_TAKES_PLACE_WHILE_ITS_PROCESS_STANDS_STILL);
}

/// Its new process is not cut off from the database that its old one was.
const A_PROCESS_THAT_DIES_WHILE_IT_STANDS_STILL_OVER_A_DATABASE_THAT_HAS_DIED: &[Step] = &[
    Step::Freeze { replica: 0 },
    Step::CrashDatabase,
    Step::Crash { replica: 0, after: true },
    Step::Open { replica: 0 },
    Step::Send { payment: 0, copy: 2, replica: 0, spelling: 0 },
    Step::Freeze { replica: 0 },
];

#[test]
fn a_process_that_dies_while_it_stands_still_over_a_database_that_has_died() {
    kept(
        Over::Model { tombstones: true },
        None,
        A_PROCESS_THAT_DIES_WHILE_IT_STANDS_STILL_OVER_A_DATABASE_THAT_HAS_DIED,
    );
}

/// Money had moved, and as long as its gateway lived nobody could take it in hand.
const A_DOUBT_THAT_DIED_WITH_THE_DATABASE: &[Step] = &[
    Step::Send { payment: 6, copy: 1, replica: 1, spelling: 1 },
    Step::Go { payment: 6, copy: 1, luck: 95 },
    Step::Go { payment: 6, copy: 1, luck: 19 },
    Step::Go { payment: 6, copy: 1, luck: 33 },
    Step::Go { payment: 6, copy: 1, luck: 21 },
    Step::CrashDatabase,
];

#[test]
fn a_doubt_that_died_with_the_database() {
    kept(Over::Model { tombstones: true }, None, A_DOUBT_THAT_DIED_WITH_THE_DATABASE);
}

/// The second is made by a clock that is behind that of the first.
const CLOSES_BY_CLOCKS_THAT_DIFFER: &[Step] =
    &[Step::Midnight { after_ms: 300 }, Step::Close { replica: 1, before: 1 }, Step::Close { replica: 0, before: 0 }];

#[test]
fn closes_by_clocks_that_differ() {
    kept(Over::Model { tombstones: true }, None, CLOSES_BY_CLOCKS_THAT_DIFFER);
}

const A_CLAIM_THAT_EXPIRES: &[Step] =
    &[Step::Send { payment: 0, copy: 0, replica: 0, spelling: 1 }, Step::Advance { ms: 40000 }];

#[test]
fn a_claim_that_expires() {
    kept(Over::Model { tombstones: true }, Some(Bug::ClaimExpires), A_CLAIM_THAT_EXPIRES);
}

const A_CLOSE_BY_TIMESTAMP: &[Step] = &[
    Step::Midnight { after_ms: -1500 },
    Step::Advance { ms: 700 },
    Step::Sign { payment: 4 },
    Step::Send { payment: 4, copy: 2, replica: 2, spelling: 1 },
    Step::Close { replica: 1, before: 0 },
];

#[test]
fn a_close_by_timestamp() {
    kept(Over::Model { tombstones: true }, Some(Bug::ClosesByTime), A_CLOSE_BY_TIMESTAMP);
}

const A_LOOK_BEFORE_THE_CLAIM: &[Step] = &[
    Step::Send { payment: 3, copy: 1, replica: 1, spelling: 1 },
    Step::Go { payment: 3, copy: 1, luck: 65 },
    Step::Go { payment: 3, copy: 1, luck: 28 },
    Step::Send { payment: 3, copy: 2, replica: 2, spelling: 1 },
    Step::Go { payment: 3, copy: 1, luck: 22 },
];

#[test]
fn a_look_before_the_claim() {
    kept(Over::Model { tombstones: false }, Some(Bug::LooksThenClaims), A_LOOK_BEFORE_THE_CLAIM);
}

const A_LOSER_IN_A_ROLL_UP: &[Step] =
    &[Step::Send { payment: 1, copy: 0, replica: 0, spelling: 0 }, Step::CrashDatabase];

#[test]
fn a_loser_in_a_roll_up() {
    kept(Over::Model { tombstones: true }, Some(Bug::LoserCounts), A_LOSER_IN_A_ROLL_UP);
}

const A_REFUSAL_TAKEN_AS_PROOF: &[Step] = &[
    Step::Send { payment: 5, copy: 1, replica: 2, spelling: 1 },
    Step::Go { payment: 5, copy: 1, luck: 47 },
    Step::Go { payment: 5, copy: 1, luck: 65 },
    Step::Go { payment: 5, copy: 1, luck: 85 },
    Step::Go { payment: 5, copy: 1, luck: 38 },
    Step::Go { payment: 5, copy: 1, luck: 10 },
];

#[test]
fn a_refusal_taken_as_proof() {
    kept(Over::Model { tombstones: true }, Some(Bug::RefusalIsProof), A_REFUSAL_TAKEN_AS_PROOF);
}

const A_VOID_ON_A_STALLING_CLIENT: &[Step] = &[
    Step::Send { payment: 0, copy: 0, replica: 0, spelling: 1 },
    Step::Go { payment: 0, copy: 0, luck: 79 },
    Step::Go { payment: 0, copy: 0, luck: 95 },
    Step::Go { payment: 0, copy: 0, luck: 80 },
    Step::Stall { payment: 0, copy: 0 },
    Step::Go { payment: 0, copy: 0, luck: 25 },
    Step::Go { payment: 0, copy: 0, luck: 24 },
];

#[test]
fn a_void_on_a_stalling_client() {
    kept(Over::Model { tombstones: true }, Some(Bug::VoidsOnStall), A_VOID_ON_A_STALLING_CLIENT);
}

const AN_UNKNOWN_COMMIT_RETRIED: &[Step] = &[
    Step::Arm { replica: 0, fate: Fate::Unseen },
    Step::Send { payment: 3, copy: 0, replica: 0, spelling: 0 },
    Step::Go { payment: 3, copy: 0, luck: 57 },
    Step::Go { payment: 3, copy: 0, luck: 28 },
    Step::Go { payment: 3, copy: 0, luck: 78 },
];

#[test]
fn an_unknown_commit_retried() {
    kept(Over::Model { tombstones: true }, Some(Bug::RetriesBlindly), AN_UNKNOWN_COMMIT_RETRIED);
}

const CREDIT_CHECKED_BEFORE_IT_IS_TAKEN: &[Step] = &[
    Step::Send { payment: 0, copy: 2, replica: 1, spelling: 1 },
    Step::Sign { payment: 1 },
    Step::Sign { payment: 1 },
    Step::Sign { payment: 4 },
    Step::Sign { payment: 0 },
    Step::Send { payment: 2, copy: 1, replica: 2, spelling: 1 },
    Step::Send { payment: 1, copy: 0, replica: 2, spelling: 1 },
    Step::Send { payment: 0, copy: 0, replica: 1, spelling: 0 },
];

#[test]
fn credit_checked_before_it_is_taken() {
    kept(Over::Model { tombstones: true }, Some(Bug::ChecksThenCaptures), CREDIT_CHECKED_BEFORE_IT_IS_TAKEN);
}

const TEXT_AS_KEY: &[Step] = &[
    Step::Send { payment: 2, copy: 0, replica: 2, spelling: 1 },
    Step::Send { payment: 2, copy: 2, replica: 1, spelling: 0 },
];

#[test]
fn text_as_key() {
    kept(Over::Model { tombstones: true }, Some(Bug::TextAsKey), TEXT_AS_KEY);
}
