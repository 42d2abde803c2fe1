//! Accounts that agents open by themselves: `open:example.com`. What all of them use in a period counts a second time, for all of
//! them together, so that a total limits them.
//!
//! The total is a row of `account_use` like any other, of [`TOTAL`], which no account can have for a name. Whatever changes what an
//! open account uses changes that row with it: in memory under one lock, in a database in one transaction. So it holds where the
//! accounts' own limits do, over gateways, restarts, releases, voids and what the sweeper frees, and has the states and crash points
//! of theirs. An audit recomputes it as the sum of the others.

/// What their names begin with; no name in a configuration does.
pub const PREFIX: &str = "open:";
/// All of them together.
pub const TOTAL: &str = "open:*";

/// Where what this account uses counts a second time.
pub(super) fn total_of(account: &str) -> Option<&'static str> {
    (account.starts_with(PREFIX) && account != TOTAL).then_some(TOTAL)
}
