//! Every key that a file may have: the only home of names, types, ranges and defaults.
//!
//! The file is walked against these tables, the environment is looked up in them, defaults are read from them, and
//! `config/tollgate.toml` is printed from them.

mod parties;
mod routes;
mod schemes;

use self::parties::{ACCOUNT, OPEN_ACCOUNTS, OPERATOR};
use self::routes::{ROUTE, ROUTES_DOC};
use self::schemes::{BATCH, DEFERRED, DISCOVERY, EXACT, FACILITATOR, MCP, SIGNING};

/// A key of a section.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// As written: `ttl_seconds`.
    pub name: &'static str,
    /// Type, range and default.
    pub kind: Kind,
    /// Whether a section without it is an error.
    pub required: bool,
    /// A key of which one is enough: this or that.
    pub instead: Option<&'static str>,
    /// A value in TOML, for keys without default.
    pub example: &'static str,
    /// A sentence for the reference.
    pub doc: &'static str,
}

/// What a key holds.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// Text, and its default.
    Text(Option<&'static str>),
    /// `true` or `false`, and its default.
    Flag(bool),
    /// A whole number.
    Count {
        /// Least value.
        min: i64,
        /// Greatest value.
        max: i64,
        /// None: decided at start.
        default: Option<i64>,
    },
    /// Text or a whole number, without default.
    TextOrCount {
        /// Least number.
        min: i64,
        /// Greatest number.
        max: i64,
    },
    /// A list of texts, and its default.
    Texts(&'static [&'static str]),
    /// One of some words.
    Choice {
        /// Which.
        of: &'static [&'static str],
        /// One of them.
        default: &'static str,
    },
    /// A list of statuses: `"2xx"`, `206`.
    Statuses(&'static [&'static str]),
    /// `[section]`
    Table(&'static [Key]),
    /// `[section.NAME]`
    Named(&'static [Key]),
    /// `[[section]]`
    List(&'static [Key]),
}

const fn key(name: &'static str, kind: Kind, doc: &'static str) -> Key {
    Key { name, kind, required: false, instead: None, example: "", doc }
}

const fn count(name: &'static str, default: i64, min: i64, max: i64, doc: &'static str) -> Key {
    key(name, Kind::Count { min, max, default: Some(default) }, doc)
}

const fn optional(name: &'static str, example: &'static str, doc: &'static str) -> Key {
    Key { name, kind: Kind::Text(None), required: false, instead: None, example, doc }
}

const fn required(name: &'static str, kind: Kind, example: &'static str, doc: &'static str) -> Key {
    Key { name, kind, required: true, instead: None, example, doc }
}

/// The sections.
pub const ROOT: &[Key] = &[
    key("server", Kind::Table(SERVER), "Where and within which limits clients are served."),
    key("origin", Kind::Table(ORIGIN), "The server that the gateway stands in front of."),
    key("origins", Kind::Named(ORIGIN), "More origins, each with a name that routes use; the same keys as [origin]."),
    key("offers", Kind::Table(OFFERS), "What an unpaid request is answered with."),
    key("deferred", Kind::Table(DEFERRED), "The scheme `deferred`: agents sign now, the operator collects later."),
    key(
        "batch_settlement",
        Kind::Table(BATCH),
        "The scheme `batch-settlement` of x402 v2, on credit as `deferred`: its terms_url, registration_url and require_path \
         count here too.",
    ),
    key(
        "exact",
        Kind::Table(EXACT),
        "The scheme `exact` of x402: a wallet signs a token transfer, a facilitator settles it.",
    ),
    key("facilitators", Kind::Named(FACILITATOR), "Who verifies and settles `exact`; the first that can is asked."),
    key("identity", Kind::Table(IDENTITY), "Whose signatures count."),
    key("accounts", Kind::List(ACCOUNT), "Who owes what is bought. A section for each account."),
    key(
        "open_accounts",
        Kind::Table(OPEN_ACCOUNTS),
        "Off unless credit and total are set: each verified agent that identity.allow admits and no account names has an account of \
         its own, one for each registrable domain (`open:example.com`).",
    ),
    key("routes", Kind::List(ROUTE), ROUTES_DOC),
    key("operator", Kind::Table(OPERATOR), "Who sells, for statements."),
    key("signing", Kind::Table(SIGNING), "The gateway's own key, and what it signs."),
    key("discovery", Kind::Table(DISCOVERY), "What the gateway says to machines about what it sells."),
    key("mcp", Kind::Table(MCP), "MCP servers: paths that have a route with `tool`, `prompt` or `resource`."),
    key("ledger", Kind::Table(LEDGER), "The books."),
    key(
        "admin",
        Kind::Table(ADMIN),
        "Where the gateway tells how it is: /healthz, /readyz, /metrics. Not for clients.",
    ),
    key("telemetry", Kind::Table(TELEMETRY), "What the gateway writes about itself."),
];

const SERVER: &[Key] = &[
    key("listen", Kind::Texts(&["127.0.0.1:8402"]), LISTEN_DOC),
    key("tls", Kind::Table(TLS), "HTTPS, beside plain HTTP: HTTP/2 and HTTP/1.1, TLS 1.2 and 1.3."),
    optional(
        "public_url",
        "\"https://example.com\"",
        "Scheme and authority that clients use. Set it whenever something in front of the gateway ends TLS.",
    ),
    key(
        "hosts",
        Kind::Texts(&[]),
        "Hosts to serve besides those of public_url and of routes; `*.example.com` for those below. None anywhere: every host.",
    ),
    Key {
        name: "cores",
        kind: Kind::Count { min: 1, max: 1024, default: None },
        required: false,
        instead: None,
        example: "4",
        doc: "Runtimes, each with a listener of its own. Default: one for each core that the process may use.",
    },
    key(
        "trusted_proxies",
        Kind::Texts(&[]),
        "Addresses and networks in front of the gateway that are believed about their clients: `10.0.0.0/8`, `::1`; `unix` for \
         whoever comes through a Unix socket.",
    ),
    key(
        "forwarded_fields",
        Kind::Choice { of: &["x-forwarded", "forwarded"], default: "x-forwarded" },
        "Which fields they set: X-Forwarded-For, -Proto and -Host, or Forwarded (RFC 7239). The others are ignored, as is \
         everybody else's.",
    ),
    key(
        "proxy_protocol",
        Kind::Flag(false),
        "Their connections begin with a header of the PROXY protocol (version 1 or 2); one without is closed.",
    ),
    count(
        "drain_delay_seconds",
        0,
        0,
        300,
        "How long connections are still accepted after TERM, while /readyz says no: as long as a load balancer takes to notice.",
    ),
    count("drain_seconds", 10, 0, 3600, "How long open exchanges may take after TERM."),
    key(
        "cors",
        Kind::Flag(true),
        "Answer preflights on priced routes, and put CORS fields on the gateway's own answers.",
    ),
    key(
        "mode",
        Kind::Choice { of: &["enforce", "observe"], default: "enforce" },
        "Whether prices are asked for, on routes that do not say it themselves. \"observe\": nobody pays and nobody is refused; \
         what would have followed is counted (`tollgate ledger observed`).",
    ),
    key("limits", Kind::Table(LIMITS), "What one client, or all together, may cost."),
];

const LISTEN_DOC: &str = "Where to listen: an address with port (0 takes any free one), `unix:PATH` for a Unix socket, `systemd` for \
                          sockets that the service manager passes, `systemd:NAME` for those of a FileDescriptorName.";

const TLS: &[Key] = &[
    key("listen", Kind::Texts(&["127.0.0.1:8443"]), LISTEN_DOC),
    key(
        "certificates",
        Kind::List(CERTIFICATE),
        "Chosen by the names in the certificate; the first one where none fits. Files that change are read again within ten \
         seconds; one that can't be used is told of in the log, and the old one stays.",
    ),
];

const CERTIFICATE: &[Key] = &[
    required(
        "cert_file",
        Kind::Text(None),
        "\"/etc/letsencrypt/live/example.com/fullchain.pem\"",
        "PEM: the server's certificate, then those that lead to a root.",
    ),
    required(
        "key_file",
        Kind::Text(None),
        "\"/etc/letsencrypt/live/example.com/privkey.pem\"",
        "PEM: the certificate's private key.",
    ),
];

const LIMITS: &[Key] = &[
    count("header_bytes", 65536, 8192, 1_048_576, "Request line and header section; more is answered with 431."),
    count("header_count", 100, 1, 1000, "Header lines; more is answered with 431."),
    count("url_bytes", 8192, 64, 65536, "Request target; more is answered with 414."),
    count(
        "header_seconds",
        10,
        1,
        300,
        "From the first byte of a request to the end of its header section; then the connection is closed without an answer.",
    ),
    count(
        "tunnel_idle_seconds",
        300,
        1,
        86400,
        "A connection that went over to another protocol (WebSocket) is closed when nothing moves for this long.",
    ),
    count("tunnel_seconds", 0, 0, 604_800, "And after this long in any case; 0 for never."),
    count("keep_alive_seconds", 75, 1, 3600, "An idle connection is closed after this."),
    count("body_idle_seconds", 15, 1, 3600, "The longest silence inside a request body."),
    count(
        "body_min_rate",
        500,
        0,
        1_000_000_000,
        "Bytes a second that a request body must average once body_idle_seconds have passed; 0 for any.",
    ),
    count("write_stall_seconds", 30, 1, 3600, "A client that takes no byte for this long is dropped."),
    count("connections", 16384, 1, 1_000_000, "Open client connections; more are closed at once."),
    count(
        "failures_per_minute",
        60,
        0,
        1_000_000,
        "Payments and signatures that do not verify, and refused payments of 4 KiB and more, from one network (IPv4 /24, IPv6 /56; not from this machine); its next are \
         answered with 429 before they are looked at. 0 for any number.",
    ),
    count("failures_burst", 120, 1, 1_000_000, "So many at once."),
    count(
        "agent_requests_per_minute",
        0,
        0,
        1_000_000,
        "Requests that one verified agent signs; more are answered with 429, uncharged. 0 for any number.",
    ),
    count("agent_requests_burst", 100, 1, 1_000_000, "So many at once."),
    count("requests_in_flight", 4096, 1, 1_000_000, "Requests being served; more are answered with 503."),
];

const ORIGIN: &[Key] = &[
    required(
        "url",
        Kind::Text(None),
        "\"http://127.0.0.1:8080\"",
        "Scheme, host and port, without a path; `unix:PATH` for a Unix socket.",
    ),
    optional("ca_file", "\"origin-ca.pem\"", "PEM roots that replace the built-in ones."),
    key(
        "host_header",
        Kind::Choice { of: &["client", "origin"], default: "client" },
        "Which Host the origin receives: the client's, or its own authority.",
    ),
    key(
        "case_insensitive",
        Kind::Flag(false),
        "Set it if the origin ignores the case of paths, so that prices do too (IIS, ASP.NET, Windows files).",
    ),
    count("connect_seconds", 5, 1, 300, "For a new connection."),
    count("head_seconds", 60, 1, 3600, "From the last forwarded byte of the request to the head of the answer."),
    count("body_idle_seconds", 300, 1, 86400, "The longest silence inside an answer."),
    count("idle_connections", 256, 0, 65536, "Unused connections kept by each core."),
    count("idle_seconds", 60, 1, 3600, "An unused connection is closed after this."),
];

const OFFERS: &[Key] = &[
    key(
        "secret_file",
        Kind::Text(Some("tollgate-secret.json")),
        "Seals payment ids; made on the first run. Replicas share it, nobody else reads it.",
    ),
    count("ttl_seconds", 300, 10, 3600, "How long an offer stands."),
    key(
        "html",
        Kind::Flag(true),
        "Answer a browser that opens a priced page with a page for people, which holds the same offer.",
    ),
    count(
        "origin_prices",
        8192,
        0,
        1_048_576,
        "Prices that origins have named (origin_price) and that are kept, so that the next request without payment does not ask \
         them; about 64 bytes each.",
    ),
    count(
        "origin_price_seconds",
        300,
        0,
        86400,
        "For how long at most. 0: each request without payment asks the origin.",
    ),
];

const IDENTITY: &[Key] = &[
    key(
        "allow",
        Kind::Texts(&[]),
        "Agents whose directories may be fetched, besides those of accounts: \"https://signer.example.com\", \
         \"https://*.example.com\", \"any\".",
    ),
    key(
        "crawlers",
        Kind::Texts(&[]),
        "Words of User-Agent that make a request an agent's, where a route has charge = \"agents\"; besides the AI crawlers that \
         Tollgate knows (src/pricing/crawlers.txt).",
    ),
    key("crawlers_ignore", Kind::Texts(&[]), "Those of them that do not."),
    count("skew_seconds", 30, 0, 300, "How far the clocks of agents may be off."),
    key(
        "allow_test_keys",
        Kind::Flag(false),
        "Accept the published test keys of RFC 9421, which anybody can sign with.",
    ),
    key(
        "require_signed_directories",
        Kind::Flag(false),
        "Refuse directories that none of their own keys has signed (tag \"http-message-signatures-directory\").",
    ),
    optional("ca_file", "\"directory-ca.pem\"", "PEM roots that replace the built-in ones for directories."),
    count("fetch_seconds", 3, 1, 60, "For the whole fetch of a directory."),
    count("directory_bytes", 65536, 1024, 1_048_576, "Size of a directory."),
    count("directory_keys", 32, 1, 256, "Keys of a directory."),
    count("directories", 1024, 1, 65536, "Agents whose keys are kept in memory."),
    key("pins", Kind::List(PIN), "A key that you vouch for, so that no directory is needed."),
];

const PIN: &[Key] = &[
    required("agent", Kind::Text(None), "\"https://signer.example.com\"", "The agent's origin."),
    required(
        "jwk",
        Kind::Table(JWK),
        "{ kty = \"OKP\", crv = \"Ed25519\", x = \"2pnqOsQ2uVkHGmRrAzEOoEB9Wp5V0k0fYhU0b7Jmz5E\" }",
        "The public key.",
    ),
];

const JWK: &[Key] = &[
    required("kty", Kind::Text(None), "\"OKP\"", "`OKP`, `EC` or `RSA`."),
    optional("crv", "\"Ed25519\"", "`Ed25519`, or `P-256` or `P-384` of an EC key."),
    optional("x", "\"…\"", "The key, or the first coordinate of an EC key, base64url."),
    optional("y", "\"…\"", "The second coordinate of an EC key."),
    optional("n", "\"…\"", "The modulus of an RSA key, 2048 to 4096 bits."),
    optional("e", "\"AQAB\"", "The exponent of an RSA key."),
    optional("kid", "\"…\"", "Ignored: keys are named by their thumbprint."),
    optional("use", "\"sig\"", "Ignored."),
    optional("alg", "\"EdDSA\"", "Ignored."),
];

const LEDGER: &[Key] = &[
    key(
        "url",
        Kind::Text(Some("sqlite:tollgate.sqlite")),
        "`sqlite:` and a file, of one gateway; or `postgres://user@host:5432/database?sslmode=require`, which any number of \
         gateways share; of a socket in /run/postgresql `postgres://user@%2Frun%2Fpostgresql/database`. sslmode: disable, prefer, require; with TLS the certificate is always verified.",
    ),
    optional(
        "password_file",
        "\"/etc/tollgate/ledger.password\"",
        "File with the database's password, so that it stands nowhere else.",
    ),
    optional(
        "ca_file",
        "\"/etc/tollgate/database-ca.pem\"",
        "Roots (PEM) that the database's certificate must come from. Default: built in.",
    ),
    key("zone", Kind::Text(Some("UTC")), "Time zone (IANA) of book days; fixed when the ledger is made."),
    count(
        "keys_max",
        8_000_000,
        1000,
        1_000_000_000,
        "Payments remembered to refuse replays; a full memory answers 503.",
    ),
    count("queue_max", 8192, 1, 1_048_576, "Payments waiting for the disk; more are answered with 503."),
    count("dispute_days", 30, 1, 3650, "For so long after a charge it may be disputed (`tollgate ledger dispute`)."),
    count(
        "voids_per_day",
        1000,
        0,
        1_000_000_000,
        "Charges of an account that are reversed on one day by the gateway itself, because the answer was cut off or not sent; \
         above it they stand (`tollgate ledger list --state cut`).",
    ),
    count(
        "disputes_per_day",
        100,
        0,
        1_000_000,
        "Charges of an account that its agents may dispute by themselves in a day, UTC (`tollgate account --dispute`); 0: none. \
         Each gateway counts by itself, from its start on.",
    ),
    key(
        "keep_targets",
        Kind::Choice { of: &["full", "path", "hash"], default: "full" },
        "What of the URL that was bought is kept beside its digest: all of it, all but the query, or nothing. The evidence of a \
         payment names it, too, until it is archived and dropped (`tollgate ledger archive`).",
    ),
    key("sync", Kind::Flag(true), "Off, the last payments are lost with the machine's power: for measurements only."),
];

const ADMIN: &[Key] = &[
    key(
        "listen",
        Kind::Texts(&[]),
        "Addresses, as in server.listen: `127.0.0.1:8403`. Others than this machine's need token_file.",
    ),
    optional(
        "token_file",
        "\"/etc/tollgate/admin.token\"",
        "Holds the token that /metrics wants (`Authorization: Bearer`), and /readyz for its reasons; probes need none.",
    ),
];

const TELEMETRY: &[Key] = &[
    optional(
        "access_log",
        "\"/var/log/tollgate/access.log\"",
        "A line for each request, to `stdout`, `stderr` or a file, which HUP opens anew. No query, payment or signature is in it.",
    ),
    key("access_format", Kind::Choice { of: &["json", "logfmt"], default: "json" }, "How its lines are written."),
    key("log", Kind::Text(Some("info")), "What is logged: a level, or a filter such as \"warn,tollgate=debug\"."),
    key("format", Kind::Choice { of: &["text", "json"], default: "text" }, "How log lines look."),
];

impl Kind {
    /// What is expected, for messages.
    pub(super) fn expected(&self) -> String {
        match self {
            Kind::Text(_) => "text in quotes".to_owned(),
            Kind::Flag(_) => "`true` or `false`".to_owned(),
            Kind::Count { min, max, .. } => format!("a whole number from {min} to {max}"),
            Kind::TextOrCount { min, max, .. } => format!("text in quotes, or a whole number from {min} to {max}"),
            Kind::Texts(_) => "a list of texts".to_owned(),
            Kind::Choice { of, .. } => one_of(of),
            Kind::Statuses(_) => "a list of statuses such as `[\"2xx\"]` or `[200, 206]`".to_owned(),
            Kind::Table(_) => "a section".to_owned(),
            Kind::Named(_) => "a section for each name".to_owned(),
            Kind::List(_) => "a list of sections".to_owned(),
        }
    }

    /// The default as TOML.
    pub(super) fn default_toml(&self) -> Option<String> {
        let list = |items: &[&str]| {
            let items: Vec<String> = items.iter().map(|item| format!("\"{item}\"")).collect();
            format!("[{}]", items.join(", "))
        };
        match self {
            Kind::Text(default) => default.map(|text| format!("\"{text}\"")),
            Kind::Flag(flag) => Some(flag.to_string()),
            Kind::Count { default, .. } => default.map(|n| n.to_string()),
            Kind::Texts(items) | Kind::Statuses(items) => Some(list(items)),
            Kind::Choice { default, .. } => Some(format!("\"{default}\"")),
            Kind::TextOrCount { .. } | Kind::Table(_) | Kind::Named(_) | Kind::List(_) => None,
        }
    }
}

/// `` `a`, `b` or `c` ``
pub(super) fn one_of(words: &[&str]) -> String {
    let quoted: Vec<String> = words.iter().map(|word| format!("`{word}`")).collect();
    match quoted.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        Some((last, _)) => last.clone(),
        None => "nothing".to_owned(),
    }
}
