//! The books on a PostgreSQL server, shared by any number of gateways.
//!
//! Each gateway has a *slot*: a row of `writers` that is its own for as long as it renews the lease, by the server's clock, and
//! with it a chain of postings that nobody else adds to. Who finds its slot taken by another one (a higher epoch) has lost
//! every claim that it made: it takes a new slot and answers 503 for what was under way.
//!
//! | who | connection | what it does | made durable |
//! |---|---|---|---|
//! | `desk` thread | its own | claims, releases, turns of what is owed, the sweeper: rows of `claims` and `account_use` | within a second |
//! | `ledger` thread | its own | captures and everything else that is posted; renews the lease | before anybody is told |
//!
//! The life of a row of `claims`, the same for all gateways; each arrow is one transaction:
//!
//! ```text
//!                  claim              capture
//!  (none) ───────────────────► r ───────────────────► c          r  held by (slot, epoch)
//!     ▲      ▲                 │ intend                ▲         s  money may be moving
//!     │      └── f ◄── release ┤          settled      │         u  nobody knows whether it moved
//!     │          │    or the   └──► s ─────────────────┤         c  captured: a tombstone
//!   swept    3 ×▼    sweeper        │ unknown          │         o  captured, its answer is owed
//!   below       b ◄──── failed ─────┤       ┌──────────┤         v  what is owed is being served
//!   the floor                       ▼       │ settled  ▼         f  free again      b  spent, uncharged
//!                                   u ──────┘    o ◄──► v ──► c
//! ```
//!
//! What a crash at each point leaves:
//!
//! | the gateway dies | in the database | what follows |
//! |---|---|---|
//! | holding `r` | `r` of a dead slot | the sweeper of any gateway frees it and gives the credit back, in one transaction |
//! | after the intent, before or in the settlement | `s` of a dead slot | becomes `u`: adopted by whoever reconciles first, never freed |
//! | in the capture's commit | `r` or `c`, with its posting or without | `r`: freed; `c`: captured, unproven |
//! | serving what is owed | `v` of a dead slot | `o` again |
//! | frozen for longer than its lease, then going on | its claims are free, or another one's | the capture finds no row of its slot and epoch in the state that it left: nothing is posted, the answer is withheld (503) |
//!
//! The server that dies loses at most the claims of its last second: the capture of such a claim finds no row, and a second
//! call of the origin is all that it cost. What else it loses of that second, that a claim was released or a settlement given up,
//! is said again by its gateway. Tables are touched in one order, rows in the order of their keys: `writers`,
//! `claims`, `account_use`, `entries`, `rollups`, `batches`.

pub(super) mod bulk;
pub(super) mod claims;
pub(super) mod desk;
pub(super) mod fence;
pub(super) mod lease;
mod renewal;
pub(super) mod schema;
pub mod server;
mod sweep;
mod tls;
