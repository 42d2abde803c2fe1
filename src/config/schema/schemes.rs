//! Keys of how things are paid, and of what is said about that.

use super::{Key, Kind, count, key, optional, required};

pub(super) const DEFERRED: &[Key] = &[
    key(
        "network",
        Kind::Text(Some("tollgate:deferred")),
        "The name under which payments are committed. With a colon (CAIP-2) x402 v2 clients can read it.",
    ),
    key("pay_to", Kind::Text(Some("merchant")), "Who is paid, in the terms of the network."),
    optional("terms_url", "\"https://example.com/terms\"", "The terms that a payment agrees to."),
    optional("registration_url", "\"https://example.com/agents\"", "Where an unknown agent gets an account."),
    count("window_seconds", 86400, 1, 86400, "The longest life of a signature that names an id of ours."),
    key(
        "require_authority",
        Kind::Flag(false),
        "Refuse signatures that cover neither @authority nor @target-uri, as the proposal's examples.",
    ),
    key("require_path", Kind::Flag(false), "Signatures must cover @method, and @path or @target-uri."),
    key("lenient_signature", Kind::Flag(true), "Also read `Signature: sig=BASE64`, as the proposal prints it."),
];

pub(super) const BATCH: &[Key] = &[
    key(
        "network",
        Kind::Text(Some("tollgate:402")),
        "Who settles, in CAIP-2 form; \"cloudflare:402\" only if Cloudflare collects the money for you.",
    ),
    key("pay_to", Kind::Text(Some("merchant")), "Who is paid, in the terms of the network."),
];

pub(super) const EXACT: &[Key] = &[
    key(
        "sandbox",
        Kind::Flag(false),
        "Settle on paper: signatures are verified, no money moves, no facilitator is asked. Test networks only.",
    ),
    key("v1", Kind::Flag(true), "Also offer to clients of x402 v1, in the body of the 402."),
    count("verify_seconds", 5, 1, 60, "For a facilitator's /verify."),
    count("settle_seconds", 90, 10, 600, "For its /settle; what has no end by then is unknown, and looked into."),
    count("answer_seconds", 30, 1, 600, "A client is told to come back if a settlement takes longer."),
    count("concurrency", 64, 1, 4096, "Calls to one facilitator at a time."),
    key(
        "payment_identifier",
        Kind::Choice { of: &["off", "optional", "required"], default: "optional" },
        "Whether clients of x402 v2 may name their payments: the same name and request gets the same answer again, another \
         payment under it 409.",
    ),
    count(
        "answers_bytes",
        16_777_216,
        0,
        1_073_741_824,
        "Memory for such answers, of up to 64 KiB each; the oldest go first, all of them with the process.",
    ),
    count(
        "body_bytes",
        1_048_576,
        1,
        67_108_864,
        "The longest answer that settle = \"after_body\" waits for. A longer one is settled then and streams on; with `upto` it \
         is refused. Also the longest request body of a payment that can be served again.",
    ),
    key("assets", Kind::List(ASSET), "What `exact` is paid in, preferred first. A section for each token."),
];

const ASSET: &[Key] = &[
    required(
        "network",
        Kind::Text(None),
        "\"eip155:84532\"",
        "Its network: CAIP-2, or x402 v1's name such as \"base\".",
    ),
    key("asset", Kind::Text(Some("USDC")), "A known token's symbol (USDC, EURC), or an address."),
    required(
        "pay_to",
        Kind::Text(None),
        "\"0x1111111111111111111111111111111111111111\"",
        "The address that is paid: yours.",
    ),
    key(
        "transfer",
        Kind::Choice { of: &["eip3009", "permit2"], default: "eip3009" },
        "How the token moves on Ethereum's chains.",
    ),
    optional("name", "\"USD Coin\"", "Name in the token's EIP-712 domain, if it is not known."),
    optional("version", "\"2\"", "Version in it."),
    Key {
        name: "decimals",
        kind: Kind::Count { min: 0, max: 24, default: None },
        required: false,
        instead: None,
        example: "6",
        doc: "Decimals of the token, if it is not known.",
    },
    optional("currency", "\"USD\"", "The currency that one token is worth one of, if it is not known."),
    optional(
        "rpc_url",
        "\"https://mainnet.base.org\"",
        "A node of the network (JSON-RPC), asked what became of a payment that has no verdict; EIP-3009 only.",
    ),
    optional(
        "fee_payer",
        "\"EwWqGE4ZFKLofuestmU4LDdK7XM1N4ALgdZccwYugwGd\"",
        "Solana: `feePayer` of the facilitator's /supported.",
    ),
    optional(
        "facilitator_address",
        "\"0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266\"",
        "`upto`: `facilitatorAddress` of the facilitator's /supported; only that account can settle.",
    ),
];

pub(super) const FACILITATOR: &[Key] = &[
    required("url", Kind::Text(None), "\"https://x402.org/facilitator\"", "Where /verify, /settle and /supported are."),
    optional("auth_file", "\"facilitator-auth\"", "A file with the value of Authorization that it wants."),
    optional("ca_file", "\"facilitator-ca.pem\"", "PEM roots that replace the built-in ones."),
    key("idempotent", Kind::Flag(false), "A second /settle of one payment is safe and says what became of the first."),
];

pub(super) const BAZAAR: &[Key] = &[
    optional("query", "'{\"city\": \"Paris\"}'", "An example of its query parameters: a JSON object."),
    optional(
        "body",
        "'{\"text\": \"Bonjour\"}'",
        "An example of a request body: JSON, or any text if body_type is \"text\".",
    ),
    key("body_type", Kind::Choice { of: &["json", "form-data", "text"], default: "json" }, "What the body is."),
    optional(
        "input_schema",
        "'{\"type\": \"object\", \"properties\": {\"city\": {\"type\": \"string\"}}}'",
        "JSON Schema of a tool's arguments, as the MCP server declares it; catalogues list no tool without. `body` is then an \
         example of arguments.",
    ),
    optional("output", "'{\"celsius\": 21}'", "An example of an answer: JSON."),
];

pub(super) const SIGNING: &[Key] = &[
    optional(
        "key_file",
        "\"tollgate-key.json\"",
        "A private JWK (Ed25519), as `tollgate keygen` writes it; made on the first run if it is not there. None: nothing \
         is signed.",
    ),
    key("offers", Kind::Flag(false), "Sign each entry of an offer (x402's offer-receipt); about 20 µs for each."),
    key("receipts", Kind::Flag(true), "Sign a receipt for each payment of x402 (offer-receipt)."),
    key("transaction", Kind::Flag(false), "Receipts name the transaction; whoever sees one then knows the purchase."),
];

pub(super) const DISCOVERY: &[Key] = &[key(
    "serve",
    Kind::Choice { of: &["fallback", "always", "off"], default: "fallback" },
    "The gateway's documents: /.well-known/x402, /discovery/resources and, with a key, its key directory and did.json. \
     \"fallback\": where the origin answers 404 or 410; \"always\": without asking it.",
)];

pub(super) const MCP: &[Key] = &[
    key(
        "signal",
        Kind::Choice { of: &["tool_result", "http_402"], default: "tool_result" },
        "How a payment is asked for: in the call's result, as x402 has it for MCP, or by HTTP's status and fields.",
    ),
    key(
        "structured",
        Kind::Flag(true),
        "Also put the offer into `structuredContent`. Off where tools have an output schema: clients on MCP's TypeScript SDK hold \
         it against that. The text is always there.",
    ),
    count("request_bytes", 1_048_576, 1024, 67_108_864, "Body of a POST; more is answered with 413."),
    count(
        "answer_bytes",
        4_194_304,
        1024,
        268_435_456,
        "JSON answer, or event, of a paid call, which is held until it is paid; more is not charged and answered with an error.",
    ),
];
