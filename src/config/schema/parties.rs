//! Keys of `[[accounts]]`, `[open_accounts]` and `[operator]`: who buys and who sells.

use super::{Key, Kind, count, key, optional, required};

/// What was agreed with an account.
const PRICES: &[Key] = &[
    required("routes", Kind::Texts(&[]), "[\"articles\"]", "Routes, each by its `name`."),
    required(
        "price",
        Kind::Text(None),
        "\"0.005 USD\"",
        "What it pays for them, at most their price, or \"free\". Offers say the route's price, and this is charged.",
    ),
];

pub(super) const ACCOUNT: &[Key] = &[
    required("name", Kind::Text(None), "\"example-crawler\"", "Unique; appears in the books and in Tollgate-Account."),
    required(
        "agents",
        Kind::Texts(&[]),
        "[\"https://signer.example.com\"]",
        "Its agents, also as \"https://*.example.com\" or \"any\"; the most specific account wins. The URL of a key set, \
         \"https://www.example.com/bot/jwks.json\", is an agent of its own, which only its own name stands for.",
    ),
    Key {
        instead: Some("prepaid"),
        ..required(
            "credit",
            Kind::Text(None),
            "\"100 USD\"",
            "The most that it may owe in a period, in its currency. Each account has this or `prepaid`.",
        )
    },
    optional(
        "prepaid",
        "\"USD\"",
        "It owes nothing: it buys from a balance in this currency, which `tollgate ledger topup` raises.",
    ),
    key(
        "period",
        Kind::Choice { of: &["day", "month"], default: "month" },
        "How often credit and allowance start anew, at midnight UTC.",
    ),
    count(
        "allowance",
        0,
        0,
        1_000_000_000_000,
        "So many paid requests of a period are not charged, for a subscription; those beyond it cost their price.",
    ),
    key(
        "allowance_routes",
        Kind::Texts(&[]),
        "Routes that the allowance is for, by their names; all where there are none.",
    ),
    key("prices", Kind::List(PRICES), "What was agreed with it, for a licence: other prices of single routes."),
    key("blocked", Kind::Flag(false), "Refuse its agents at once."),
    optional("address", "\"Example Inc.\\n2 Side St\\nLondon\"", "For its statements, lines apart by \\n."),
];

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
    count(
        "new_per_day",
        20,
        1,
        1_000_000,
        "Accounts that are opened in a day, UTC; each gateway counts by itself, from its start on.",
    ),
];

pub(super) const OPERATOR: &[Key] = &[
    optional("name", "\"Example GmbH\"", "As statements print it. Default: the host of server.public_url."),
    optional("address", "\"1 Main St\\n10115 Berlin\"", "For statements, lines apart by \\n; also a tax number."),
    optional("email", "\"billing@example.com\"", "For questions about a statement."),
];
