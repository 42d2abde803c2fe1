//! Money under stress, through the real binary: kill -9 while agents pay, and one payment from many sides at once. What
//! the clients hold is compared with the books.

mod support;

#[path = "crash/corrections.rs"]
mod corrections;
#[path = "crash/kill.rs"]
mod kill;
#[path = "crash/ledger.rs"]
mod ledger;
#[path = "crash/opening.rs"]
mod opening;
#[path = "crash/redeem.rs"]
mod redeem;
#[path = "crash/settle.rs"]
mod settle;
#[path = "crash/storm.rs"]
mod storm;
