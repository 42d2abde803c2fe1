//! The verdict on a `deferred` payment, in the order that is cheapest for us: no fetch and no curve work before an id of
//! ours holds.
//!
//! ```text
//! Payment → scheme, network → id (MAC, ttl, resource) → signature fields → coverage → times → agent → [key] → signature
//! ```

use super::id::{Quote, Resource, SealedId};
use super::reason::{Reason, Refusal};
use super::secrets::Secrets;
use super::signed::{Candidate, Cover, Rules, Server, candidates};
use super::terms::Terms;
use crate::wire::deferred::Payment;
use crate::wire::signature::RequestView;

/// The scheme, as offers name it.
pub const SCHEME: &str = "deferred";
/// What proves a payment.
pub const COVER: Cover = Cover { field: "payment", server: Server::ById, has_id: true, whole: false };

/// A payment whose id holds and whose signatures have the right form; what is missing is a key.
#[derive(Debug)]
pub struct Claimed {
    /// What the id commits to.
    pub quote: Quote,
    /// The signatures to try, in order; never empty.
    pub candidates: Vec<Candidate>,
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
    if payment.scheme != SCHEME || !terms.accepts(SCHEME, &payment.network) {
        return Err(Reason::UnsupportedScheme.into());
    }
    let id = SealedId::parse(&payment.id).ok_or(Reason::UnknownOffer)?;
    let quote = id.open(secrets, terms, now_ms, resource).map_err(Reason::from)?;
    // The id names its template; the field must name the same, or the answer would confirm what was not agreed.
    if quote.term.template.scheme != payment.scheme || quote.term.template.network != payment.network {
        return Err(Refusal::new(Reason::UnsupportedScheme, "scheme and network are not those of the offer"));
    }
    let candidates = candidates(request, &COVER, rules, now_ms)?;
    Ok(Claimed { quote, candidates })
}
