//! MCP over Streamable HTTP: JSON-RPC messages, read so that a server cannot read them differently, and changed without
//! touching what is not ours.
//!
//! ```text
//! {"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"add","arguments":{…},"_meta":{"x402/payment":{…}}}}
//! {"jsonrpc":"2.0","id":1,"result":{"content":[…],"_meta":{"x402/payment-response":{…}}}}
//! ```
//!
//! Source: MCP `specification/2026-07-28/basic/transports/streamable-http`, earlier revisions from 2025-03-26; x402
//! `specs/transports-v2/mcp.md`.

pub mod answer;
pub mod events;
pub mod fields;
pub mod request;
pub mod scan;
pub mod uri;

/// Where a call carries its payment: `params._meta["x402/payment"]`.
pub const PAYMENT: &str = "x402/payment";
/// Where a result carries the receipt: `result._meta["x402/payment-response"]`.
pub const PAYMENT_RESPONSE: &str = "x402/payment-response";
/// JSON that can't be read.
pub const PARSE_ERROR: i32 = -32700;
/// No request that is taken here.
pub const INVALID_REQUEST: i32 = -32600;
/// A call whose parameters name nothing.
pub const INVALID_PARAMS: i32 = -32602;
/// Fields that say something else than the body.
pub const HEADER_MISMATCH: i32 = -32020;
/// Any other «no» of the gateway; `data.reason` says which.
pub const REFUSED: i32 = -32000;

/// What a call asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// `tools/call` with `params.name`.
    Tool,
    /// `prompts/get` with `params.name`.
    Prompt,
    /// `resources/read` with `params.uri`.
    Resource,
}

impl Kind {
    /// `tool`, as in `mcp://tool/add`.
    pub fn word(self) -> &'static str {
        match self {
            Kind::Tool => "tool",
            Kind::Prompt => "prompt",
            Kind::Resource => "resource",
        }
    }

    /// The kind that a method asks for; `None` for methods that name nothing that could have a price.
    pub fn of_method(method: &str) -> Option<Kind> {
        match method {
            "tools/call" => Some(Kind::Tool),
            "prompts/get" => Some(Kind::Prompt),
            "resources/read" => Some(Kind::Resource),
            _ => None,
        }
    }

    /// The member of `params` that names it.
    pub fn member(self) -> &'static str {
        match self {
            Kind::Resource => "uri",
            Kind::Tool | Kind::Prompt => "name",
        }
    }
}
