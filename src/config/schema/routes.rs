//! `[[routes]]`: what costs what.

use super::schemes::BAZAAR;
use super::{Key, Kind, key, optional, required};
use crate::payment::pass::REQUESTS_MAX;

pub(super) const ROUTES_DOC: &str = "What costs what. The most specific host wins, then the most specific path (exact, then {name} \
                          segments, then the longest prefix). No route: free.";

/// Rules for single agents.
const AGENTS: &[Key] = &[
    optional(
        "agent",
        "\"https://signer.example.com\"",
        "Verified agents, also \"https://*.example.com\" or \"any\". Their directories may be fetched. Calls of \
         an MCP server have rules by these only, for less or nothing.",
    ),
    optional(
        "user_agent",
        "\"GPTBot\"",
        "A word of User-Agent, which anybody can send: for a higher price, or `block`.",
    ),
    Key {
        name: "addresses",
        kind: Kind::Texts(&[]),
        required: false,
        instead: None,
        example: "[\"192.0.2.0/24\"]",
        doc: "Where they come from: for a higher price, `block`, or `allow`, if you vouch for them.",
    },
    optional(
        "price",
        "\"0.005 USD\"",
        "What they pay; a verified agent may pay less than others. An offer says the route's price, and the lower one is charged.",
    ),
    key(
        "allow",
        Kind::Flag(false),
        "They get it free. A verified agent signs the request (Web Bot Auth, tag `web-bot-auth`).",
    ),
    key("block", Kind::Flag(false), "They get 403 `agent_blocked`."),
];

pub(super) const ROUTE: &[Key] = &[
    optional("name", "\"articles\"", "For logs and books. Default: host and path as written."),
    optional("host", "\"example.com\"", "Only requests to it, or to hosts below it with `*.example.com`."),
    required(
        "path",
        Kind::Text(None),
        "\"/articles/*\"",
        "`/a/b`, `/a/*` (also `/a` and `/a/`), `/users/{id}`. Priced, `/a/b` is also `/a/b/` unless that has a route.",
    ),
    key("methods", Kind::Texts(&[]), "Methods; none: all. GET stands for HEAD too, methods left out get 405."),
    optional(
        "tool",
        "\"add\"",
        "MCP: only calls of this tool; `a*` for names that begin with `a`. The path's other calls are free, or have routes of \
         their own.",
    ),
    optional("prompt", "\"greet\"", "MCP: only this prompt, likewise."),
    optional("resource", "\"memo://greeting\"", "MCP: only this resource, by its URI, likewise."),
    required("price", Kind::Text(None), "\"0.01 USD\"", "Amount and currency in quotes, or \"free\"."),
    key(
        "origin_price",
        Kind::Flag(false),
        "The origin may name another price, in `crawler-price` of a success (`USD 0`: free); only for `crawl`, GET and HEAD. A \
         request without payment then asks the origin, too.",
    ),
    key(
        "accept",
        Kind::Texts(&["deferred"]),
        "Schemes that pay for it, preferred first: \"deferred\", \"batch-settlement\", \"crawl\", \"exact\", \"upto\" (at most \
         the price; the origin says how much in Settlement-Overrides).",
    ),
    key(
        "charge",
        Kind::Choice { of: &["everyone", "agents"], default: "everyone" },
        "Who pays. \"agents\": who carries a payment or signature field, an AI crawler's User-Agent (identity.crawlers) or none; \
         everybody else passes free, so it rests on the honesty of those who ask.",
    ),
    key(
        "mode",
        Kind::Choice { of: &["enforce", "observe"], default: "enforce" },
        "Whether its price is asked for; what server.mode says where this is left out. \"observe\": everybody passes free, and \
         who would have paid, who would have been refused and why is counted (`tollgate ledger observed`).",
    ),
    key(
        "settle",
        Kind::Choice { of: &["on_head", "first", "after_body"], default: "on_head" },
        "When `exact` and `upto` are settled: once the origin has answered with a success, before it is asked, or once its whole answer \
         is here (exact.body_bytes of memory for each).",
    ),
    Key {
        kind: Kind::TextOrCount { min: 1, max: REQUESTS_MAX },
        ..optional(
            "pass",
            "\"24h\"",
            "What a purchase on credit is good for besides: a time (\"24h\", \"7d\"), or so many requests (100), in which its \
             agent has it again without charge; \"sold\": none any more, but what was sold before is given.",
        )
    },
    key(
        "pass_for",
        Kind::Choice { of: &["resource", "route"], default: "resource" },
        "What it has again: the resource that it bought, or everything that this route sells.",
    ),
    optional("description", "\"An article\"", "What is sold, for offers; at most 500 bytes."),
    optional("mime_type", "\"text/html\"", "Of what is sold, for offers."),
    key(
        "agents",
        Kind::List(AGENTS),
        "What single agents get of it; the closest `agent` counts, a block before anything else, and of claims the dearest price.",
    ),
    key("discoverable", Kind::Flag(true), "List it in the gateway's discovery documents."),
    key("bazaar", Kind::Table(BAZAAR), "How it is asked for and what it answers, for catalogues (x402's bazaar)."),
    optional("origin", "\"default\"", "Name of the origin. Default: [origin]."),
    key(
        "charge_on",
        Kind::Statuses(&["2xx"]),
        "Statuses that are charged: \"2xx\", or some of 200 to 299. 101 (a WebSocket) always is.",
    ),
    key(
        "allow_method_override",
        Kind::Flag(false),
        "Pass X-HTTP-Method-Override, X-HTTP-Method and X-Method-Override on; only where the path is free for all methods. \
         Fields that override the URL are always removed.",
    ),
];
