//! A call of an MCP server that has a price.

use std::net::IpAddr;
use std::rc::Rc;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use http::Method;
use sha2::{Digest, Sha256};

use crate::config::Signal;
use crate::payment::presented::Words;
use crate::proxy::core::Core;
use crate::proxy::gate::Visit;
use crate::proxy::target::Target;
use crate::wire::mcp::Kind;
use crate::wire::mcp::request::{Id, Message};

/// A call, with all that an answer to it is made from.
pub struct Call {
    /// What answers are told by.
    pub id: Id,
    /// The same as it was written.
    pub id_text: String,
    /// What is called.
    pub kind: Kind,
    /// Its name or URI.
    pub name: String,
    /// Both, as ids are sealed for them: `tool/add`.
    pub tool: String,
    /// Results say of which type they are.
    pub typed: bool,
    /// How a payment is asked for.
    pub signal: Signal,
    /// Offers stand in `structuredContent`, too.
    pub structured: bool,
    /// The route that sells it, by its index.
    pub route: usize,
    /// The HTTP request's target.
    pub target: Target,
    /// `http` or `https`
    pub scheme: &'static str,
    /// The network that the client comes from, where that counts.
    pub network: Option<IpAddr>,
    /// The client shows that it can sign requests.
    pub signs: bool,
    /// Whose words refusals are told in.
    pub words: Words,
    /// SHA-256 of what is called with: everything that makes it another call.
    digest: [u8; 32],
}

/// What of the HTTP request a call is made with.
pub(super) struct Carrier {
    pub(super) target: Target,
    pub(super) scheme: &'static str,
    pub(super) network: Option<IpAddr>,
    pub(super) signs: bool,
    pub(super) words: Words,
    pub(super) typed: bool,
    pub(super) signal: Signal,
    pub(super) structured: bool,
}

impl Call {
    pub(super) fn new(message: &Message<'_>, (kind, name): (Kind, &str), route: usize, carrier: Carrier) -> Call {
        let Carrier { target, scheme, network, signs, words, typed, signal, structured } = carrier;
        let mut digest = Sha256::new();
        for member in message.bought() {
            digest.update((member.len() as u64).to_be_bytes());
            digest.update(member);
        }
        Call {
            id: message.id.clone(),
            id_text: message.id_text.to_owned(),
            kind,
            name: name.to_owned(),
            tool: format!("{}/{name}", kind.word()),
            typed,
            signal,
            structured,
            route,
            target,
            scheme,
            network,
            signs,
            words,
            digest: digest.finalize().into(),
        }
    }

    /// Whether payments are asked for in results.
    pub fn tells_in_result(&self) -> bool {
        self.signal == Signal::ToolResult
    }

    /// x402's name for it: `mcp://tool/add`.
    pub fn url(&self) -> String {
        format!("mcp://{}", visible(&self.tool))
    }

    /// The books' name for it: the URL, what is called, and a digest of what it is called with.
    pub fn booked(&self, url: &str) -> String {
        format!("{url}#{};sha256={}", visible(&self.tool), URL_SAFE_NO_PAD.encode(self.digest))
    }

    /// The call at the gate; `None` for a route without a price.
    pub fn visit<'a>(&'a self, core: &'a Rc<Core>) -> Option<Visit<'a>> {
        let offer = core.shared.offers.get(self.route)?.as_ref()?;
        Some(Visit {
            core,
            scheme: self.scheme,
            target: &self.target,
            route: self.route,
            offer,
            key: core.shared.route_keys.get(self.route)?,
            method: &Method::POST,
            network: self.network,
            signs: self.signs,
            words: self.words,
            is_browser: false,
            // The body that it may stand in is read anyway.
            is_long: false,
            call: Some(self),
        })
    }
}

/// Text of visible ASCII; everything else, and `%`, escaped.
fn visible(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'!'..=b'~' if byte != b'%' => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}
