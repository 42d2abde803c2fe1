//! The verdict on a `deferred` payment, in the order that is cheapest for us: no fetch and no curve work before an id of
//! ours holds.
//!
//! ```text
//! Payment → scheme, network → id (MAC, ttl, resource) → signature fields → coverage → times → agent → [key] → signature
//! ```

use super::id::{IdError, Quote, Resource, SealedId};
use super::reason::{Reason, Refusal};
use super::secrets::Secrets;
use super::terms::Terms;
use crate::wire::deferred::Payment;
use crate::wire::signature::{ComponentName, LabelledSignature, RequestView, SignatureError, field};
use crate::wire::signature_agent::covered_agent;

/// The only tag whose signatures count.
pub const TAG: &str = "web-bot-auth";
/// Most signatures of one request that are tried.
const TRIES_MAX: usize = 4;

/// What the operator set for deferred payments.
#[derive(Debug, Clone)]
pub struct Rules {
    /// Clock difference that is forgiven, seconds.
    pub skew: i64,
    /// Longest `expires − created`, seconds.
    pub window: i64,
    /// Refuse signatures that cover neither `@authority` nor `@target-uri`.
    pub require_authority: bool,
    /// Refuse signatures that cover not both `@method` and the path.
    pub require_path: bool,
    /// Read `Signature: sig=BASE64` too.
    pub lenient_signature: bool,
}

/// A payment whose id holds and whose signatures have the right form; what is missing is a key.
#[derive(Debug)]
pub struct Claimed {
    /// What the id commits to.
    pub quote: Quote,
    /// The signatures to try, in order; never empty.
    pub candidates: Vec<Candidate>,
}

/// One signature that may prove the payment.
#[derive(Debug)]
pub struct Candidate {
    /// The agent it names, not yet an agent URL.
    pub agent: String,
    /// The key it names.
    pub keyid: String,
    /// What was signed.
    pub base: String,
    /// The signature.
    pub signature: Vec<u8>,
}

/// Everything that can be decided without a key.
///
/// # Errors
/// The first check that fails answers.
pub fn check(
    payment: &Payment,
    resource: &Resource<'_>,
    request: &RequestView<'_>,
    (secrets, terms, rules): (&Secrets, &Terms, &Rules),
    now_ms: u64,
) -> Result<Claimed, Refusal> {
    if !terms.accepts(&payment.scheme, &payment.network) {
        return Err(Reason::UnsupportedScheme.into());
    }
    let id = SealedId::parse(&payment.id).ok_or(Reason::UnknownOffer)?;
    let quote = id.open(secrets, terms, now_ms, resource).map_err(|e| match e {
        IdError::Unknown => Reason::UnknownOffer,
        IdError::Expired => Reason::OfferExpired,
        IdError::OtherResource => Reason::OtherResource,
    })?;
    // The id names its template; the field must name the same, or the answer would confirm what was not agreed.
    if quote.term.template.scheme != payment.scheme || quote.term.template.network != payment.network {
        return Err(Refusal::new(Reason::UnsupportedScheme, "scheme and network are not those of the offer"));
    }
    let candidates = candidates(request, rules, now_ms)?;
    Ok(Claimed { quote, candidates })
}

fn candidates(request: &RequestView<'_>, rules: &Rules, now_ms: u64) -> Result<Vec<Candidate>, Refusal> {
    let invalid = |e: SignatureError| Refusal::new(Reason::InvalidSignature, e.to_string());
    let signatures = LabelledSignature::parse_all(request.headers, rules.lenient_signature).map_err(invalid)?;
    let agent_field = field(request.headers, &http::HeaderName::from_static("signature-agent"))
        .map_err(invalid)?
        .ok_or_else(|| Refusal::new(Reason::InvalidSignature, "`Signature-Agent` is missing"))?;
    let now = (now_ms / 1000).cast_signed();
    let mut candidates = Vec::with_capacity(1);
    let mut first_refusal = None;
    // A label that is not for us does not harm one that is; the first thing wrong is told when none is left.
    for signature in signatures.iter().filter(|s| is_for_us(s)).take(TRIES_MAX) {
        match candidate(signature, &agent_field, request, rules, now) {
            Ok(candidate) => candidates.push(candidate),
            Err(refusal) => _ = first_refusal.get_or_insert(refusal),
        }
    }
    if !candidates.is_empty() {
        return Ok(candidates);
    }
    Err(first_refusal.unwrap_or_else(|| {
        Refusal::new(Reason::InvalidSignature, "no signature with the tag \"web-bot-auth\" covers `payment`")
    }))
}

fn is_for_us(signature: &LabelledSignature) -> bool {
    signature.params.tag.as_deref() == Some(TAG) && signature.covers_field("payment")
}

fn candidate(
    signature: &LabelledSignature,
    agent_field: &str,
    request: &RequestView<'_>,
    rules: &Rules,
    now: i64,
) -> Result<Candidate, Refusal> {
    let invalid = |detail: String| Refusal::new(Reason::InvalidSignature, detail);
    if signature.field_components("content-digest").next().is_some() {
        // Whoever covers the body's digest wants it checked; taking it unchecked would be worse than refusing it.
        return Err(invalid("`content-digest` is covered, and this gateway does not check it; leave it out".into()));
    }
    let covers = |name| signature.covers(&name);
    let target = covers(ComponentName::TargetUri);
    if rules.require_authority && !target && !covers(ComponentName::Authority) {
        return Err(invalid("the signature covers neither `@authority` nor `@target-uri`".into()));
    }
    if rules.require_path && !(covers(ComponentName::Method) && (target || covers(ComponentName::Path))) {
        return Err(invalid("the signature must cover `@method` and `@path` (or `@target-uri`)".into()));
    }
    let agent = covered_agent(signature, agent_field).map_err(|e| invalid(e.to_string()))?;
    signature
        .params
        .check_times(now, rules.skew, rules.window)
        .map_err(|detail| Refusal::new(Reason::SignatureExpired, detail))?;
    if signature.params.alg.as_deref().is_some_and(|alg| alg != "ed25519") {
        return Err(invalid("`alg` is not ed25519, the only algorithm that is verified".into()));
    }
    let keyid = signature.params.keyid.clone().ok_or_else(|| invalid("`keyid` is missing".into()))?;
    let base = signature.base(request).map_err(|e| invalid(e.to_string()))?;
    Ok(Candidate { agent, keyid, base, signature: signature.signature.clone() })
}
