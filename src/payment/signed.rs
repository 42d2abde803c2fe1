//! Payments that a message signature proves: which signatures count, what they must cover, and the key of one that names no
//! id.
//!
//! ```text
//! signature fields → tag, payment field → coverage → agent → times → base
//! ```

use super::id::Resource;
use super::key::PaymentKey;
use super::reason::{Reason, Refusal};
use crate::wire::agent_url::AgentUrl;
use crate::wire::content_digest::{self, ContentDigest};
use crate::wire::jwk::{Algorithm, PublicKey};
use crate::wire::signature::{ComponentName, LabelledSignature, RequestView, SignatureError, field};
use crate::wire::signature_agent::covered_agent;

/// The only tag whose signatures count.
pub const TAG: &str = "web-bot-auth";
/// Longest `expires − created` of a signature that names no id of ours, seconds. The books remember a payment for longer.
pub const WINDOW_MAX_S: i64 = 300;
/// How old a signature that names no id of ours may be, seconds; the skew comes on top.
pub const FRESH_S: i64 = 30;
/// What a signature covers that proves an agent and no payment.
pub const AGENT_FIELD: &str = "signature-agent";
/// Most signatures of one request that are tried.
const TRIES_MAX: usize = 4;

/// What the operator set for signatures.
#[derive(Debug, Clone)]
pub struct Rules {
    /// Clock difference that is forgiven, seconds.
    pub skew: i64,
    /// Longest `expires − created` with an id of ours, seconds.
    pub window: i64,
    /// Refuse signatures that cover neither `@authority` nor `@target-uri`, also with an id of ours.
    pub require_authority: bool,
    /// Refuse signatures that cover not both `@method` and the path.
    pub require_path: bool,
    /// Read `Signature: sig=BASE64` too.
    pub lenient_signature: bool,
}

/// What a signature must cover to prove a payment.
#[derive(Debug, Clone, Copy)]
pub struct Cover {
    /// The field that carries the payment: `payment`.
    pub field: &'static str,
    /// How it names the server.
    pub server: Server,
    /// The payment names an id of ours, which binds it to one request and a time.
    pub has_id: bool,
    /// The signature itself must be for this method, path and query and no other.
    pub whole: bool,
}

/// How a signature names the server that it is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Server {
    /// The id of the payment does, unless the operator asks for more.
    ById,
    /// By `@authority` or `@target-uri`.
    Either,
    /// By `@authority`, as batch settlement demands.
    Authority,
}

impl Cover {
    /// The value of `Accept-Signature` (RFC 9421 §5.1) that asks for such a signature: all that is demanded, and no more.
    pub fn asked(&self, rules: &Rules) -> String {
        let mut components = Vec::with_capacity(5);
        if self.server != Server::ById || rules.require_authority {
            components.push("\"@authority\"");
        }
        if rules.require_path || self.whole {
            components.extend(["\"@method\"", "\"@path\""]);
        }
        if self.whole {
            components.push("\"@query\"");
        }
        let field = format!("\"{}\"", self.field);
        if self.field != AGENT_FIELD {
            components.push(&field);
        }
        components.push("\"signature-agent\";key=\"sig1\"");
        format!(r#"sig1=({});created;expires;tag="{TAG}""#, components.join(" "))
    }
}

/// One signature that may prove the payment.
#[derive(Debug)]
pub struct Candidate {
    /// The agent it names.
    pub agent: AgentUrl,
    /// The key it names.
    pub keyid: String,
    /// The algorithm it says; the key's own, or it proves nothing.
    pub alg: Option<Algorithm>,
    /// What was signed.
    pub base: String,
    /// The signature.
    pub signature: Vec<u8>,
    /// What it says of the body.
    pub content: Option<Box<ContentDigest>>,
    /// When it was made, Unix seconds.
    pub created: i64,
    /// It has a nonce or covers the path: another request needs another signature.
    pub names_request: bool,
}

impl Candidate {
    /// Whether the key made this signature.
    ///
    /// # Errors
    /// [`Reason::InvalidSignature`], with what is wrong.
    pub fn is_by(&self, key: &PublicKey) -> Result<(), Refusal> {
        let invalid = |detail: String| Err(Refusal::new(Reason::InvalidSignature, detail));
        if let Some(alg) = self.alg.filter(|alg| *alg != key.algorithm()) {
            return invalid(format!("`alg` is {}, the key is for {}", alg.name(), key.algorithm().name()));
        }
        if !key.verifies(self.base.as_bytes(), &self.signature) {
            return invalid("the signature does not verify over the base that the request gives".into());
        }
        Ok(())
    }

    /// What makes a payment without an id single-use: agent, key and signature base, never the signature's bytes, of which
    /// others may be valid too. An agent may send one signature with many requests; then the request is part of the key.
    pub fn key(&self, agent: &str, thumbprint: &str, resource: &Resource<'_>) -> PaymentKey {
        let signed = [agent.as_bytes(), thumbprint.as_bytes(), self.base.as_bytes()];
        if self.names_request {
            return PaymentKey::from_signature(&signed);
        }
        let request = [resource.priced_method(), resource.authority, resource.path, resource.query].map(str::as_bytes);
        PaymentKey::from_signature(&[&signed[..], &request].concat())
    }

    /// Whether it was made just now.
    ///
    /// # Errors
    /// [`Reason::SignatureExpired`] for one that is older than [`FRESH_S`] and the skew.
    pub fn is_fresh(&self, skew: i64, now_ms: u64) -> Result<(), Refusal> {
        let now = (now_ms / 1000).cast_signed();
        if self.created >= now.saturating_sub(FRESH_S).saturating_sub(skew) {
            return Ok(());
        }
        let detail = format!("`created` {} is more than {FRESH_S} s ago; it is now {now}", self.created);
        Err(Refusal::new(Reason::SignatureExpired, detail))
    }

    /// When the payment was made, Unix ms.
    pub fn created_ms(&self) -> u64 {
        u64::try_from(self.created).unwrap_or(0).saturating_mul(1000)
    }
}

/// The signatures that may prove a payment, in order; never empty. What is missing is a key.
///
/// # Errors
/// The first thing that is wrong, when no signature is left.
pub fn candidates(
    request: &RequestView<'_>,
    cover: &Cover,
    rules: &Rules,
    now_ms: u64,
) -> Result<Vec<Candidate>, Refusal> {
    let invalid = |e: SignatureError| Refusal::new(Reason::InvalidSignature, e.to_string());
    let signatures = LabelledSignature::parse_all(request.headers, rules.lenient_signature).map_err(invalid)?;
    let agent_field = field(request.headers, &http::HeaderName::from_static("signature-agent"))
        .map_err(invalid)?
        .ok_or_else(|| Refusal::new(Reason::InvalidSignature, "`Signature-Agent` is missing"))?;
    let now = (now_ms / 1000).cast_signed();
    let mut candidates = Vec::with_capacity(1);
    let mut first_refusal = None;
    // A label that is not for us does not harm one that is; the first thing wrong is told when none is left.
    for signature in signatures.iter().filter(|s| is_for_us(s, cover)).take(TRIES_MAX) {
        match candidate(signature, &agent_field, request, (cover, rules), now) {
            Ok(candidate) => candidates.push(candidate),
            Err(refusal) => _ = first_refusal.get_or_insert(refusal),
        }
    }
    if !candidates.is_empty() {
        return Ok(candidates);
    }
    Err(first_refusal.unwrap_or_else(|| {
        let detail = format!("no signature with the tag \"{TAG}\" covers `{}`", cover.field);
        Refusal::new(Reason::InvalidSignature, detail)
    }))
}

fn is_for_us(signature: &LabelledSignature, cover: &Cover) -> bool {
    // Of `signature-agent` a member is enough: `covered_agent` sees that it is there.
    let covers = cover.field == AGENT_FIELD || signature.covers_field(cover.field);
    signature.params.tag.as_deref() == Some(TAG) && covers
}

fn candidate(
    signature: &LabelledSignature,
    agent_field: &str,
    request: &RequestView<'_>,
    (cover, rules): (&Cover, &Rules),
    now: i64,
) -> Result<Candidate, Refusal> {
    let invalid = |detail: String| Refusal::new(Reason::InvalidSignature, detail);
    // Whoever covers the body's digest wants it checked; taking it unchecked would be worse than refusing it.
    let digest_field = field(request.headers, &http::HeaderName::from_static(content_digest::FIELD));
    let digest_field = digest_field.map_err(|e| invalid(e.to_string()))?;
    let content = ContentDigest::covered(signature, digest_field.as_deref()).map_err(invalid)?;
    let covers = |name| signature.covers(&name);
    let target = covers(ComponentName::TargetUri);
    let authority = covers(ComponentName::Authority);
    if cover.server == Server::Authority && !authority {
        return Err(invalid("the signature does not cover `@authority`".into()));
    }
    if (rules.require_authority || cover.server == Server::Either) && !target && !authority {
        return Err(invalid("the signature covers neither `@authority` nor `@target-uri`".into()));
    }
    let path = target || covers(ComponentName::Path);
    if (rules.require_path || cover.whole) && !(covers(ComponentName::Method) && path) {
        return Err(invalid("the signature must cover `@method` and `@path` (or `@target-uri`)".into()));
    }
    if cover.whole && request.query.is_some() && !target && !covers(ComponentName::Query) {
        return Err(invalid("the signature must cover `@query` (or `@target-uri`)".into()));
    }
    let agent = covered_agent(signature, agent_field).map_err(|e| invalid(e.to_string()))?;
    let window = if cover.has_id { rules.window } else { rules.window.min(WINDOW_MAX_S) };
    signature
        .params
        .check_times(now, rules.skew, window)
        .map_err(|detail| Refusal::new(Reason::SignatureExpired, detail))?;
    let alg = match &signature.params.alg {
        None => None,
        Some(alg) => Some(Algorithm::ALL.into_iter().find(|known| known.name() == alg).ok_or_else(|| {
            let known = Algorithm::ALL.map(Algorithm::name).join(", ");
            invalid(format!("`alg` is none that is verified; these are: {known}"))
        })?),
    };
    let keyid = signature.params.keyid.clone().ok_or_else(|| invalid("`keyid` is missing".into()))?;
    let base = signature.base(request).map_err(|e| invalid(e.to_string()))?;
    Ok(Candidate {
        agent,
        keyid,
        alg,
        base,
        signature: signature.signature.clone(),
        content: content.map(Box::new),
        // Checked with the times.
        created: signature.params.created.unwrap_or_default(),
        names_request: path || signature.params.nonce.is_some(),
    })
}
