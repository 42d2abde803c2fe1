//! Keys of `[open_accounts]` and `[operator]`.

use super::{Key, Kind, count, key, optional};

pub(super) const OPEN_ACCOUNTS: &[Key] = &[
    optional("credit", "\"5 USD\"", "The most that each of them may owe in a period."),
    optional(
        "total",
        "\"500 USD\"",
        "The most that all of them together may owe in a period, whatever gateways share the books.",
    ),
    key(
        "period",
        Kind::Choice { of: &["day", "month"], default: "month" },
        "How often credit and total start anew, at midnight UTC.",
    ),
    count("new_per_day", 20, 1, 1_000_000, "Accounts that are opened in a day, UTC; each gateway counts by itself."),
];

pub(super) const OPERATOR: &[Key] = &[
    optional("name", "\"Example GmbH\"", "As statements print it. Default: the host of server.public_url."),
    optional("address", "\"1 Main St\\n10115 Berlin\"", "For statements, lines apart by \\n; also a tax number."),
    optional("email", "\"billing@example.com\"", "For questions about a statement."),
];
