//! What a payer has to pay with.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use http::{HeaderMap, HeaderValue, header};

use super::offer::{Offer, Way};
use super::signer::{Agent, SignError, SignedPayment};
use super::wallet::Wallet;
use crate::wire::signature::RequestView;

/// What an agent that signs accepts, unless the request says it itself: anything, and best of all what names `deferred`.
/// Gateways that sell for tokens too then put offers that only a signer can read into the body.
const ACCEPT_OF_SIGNERS: &str = "*/*, application/json;scheme=deferred;q=0.1";

/// What a payer has to pay with; decides which offers can be taken.
#[derive(Debug, Clone)]
pub enum Means {
    /// An agent's key: `deferred`.
    Agent(Agent),
    /// A wallet: `exact` in known tokens.
    Wallet(Wallet),
    /// Both: whichever the server prefers.
    Both(Agent, Wallet),
}

impl From<Agent> for Means {
    fn from(agent: Agent) -> Means {
        Means::Agent(agent)
    }
}

impl From<Wallet> for Means {
    fn from(wallet: Wallet) -> Means {
        Means::Wallet(wallet)
    }
}

impl Means {
    /// Whether an offer can be paid with it.
    pub fn can_pay(&self, offer: &Offer) -> bool {
        match offer.way {
            Way::Deferred { .. } => self.agent().is_some(),
            Way::Exact(_) => self.wallet().is_some(),
        }
    }

    /// Adds to a request's fields what shows that an agent can sign: `Accept`, where the request has none.
    pub fn announce(&self, headers: &mut HeaderMap) {
        if self.agent().is_some() {
            headers.entry(header::ACCEPT).or_insert(HeaderValue::from_static(ACCEPT_OF_SIGNERS));
        }
    }

    /// Signs `request` for `offer`. `now` in Unix seconds; `random` must be fresh for each payment.
    ///
    /// Signing a deferred offer twice makes the same payment, signing an exact one twice makes two.
    ///
    /// # Errors
    /// [`SignError`]
    pub fn sign(
        &self,
        request: &RequestView<'_>,
        offer: &Offer,
        now: i64,
        random: [u8; 32],
    ) -> Result<SignedPayment, SignError> {
        match (&offer.way, self.agent(), self.wallet()) {
            (Way::Deferred { .. }, Some(agent), _) => {
                agent.sign(request, offer, now, Some(&URL_SAFE_NO_PAD.encode(&random[..16])))
            }
            (Way::Exact(transfer), _, Some(wallet)) => wallet.sign(transfer, now, random),
            (Way::Deferred { .. }, None, _) | (Way::Exact(_), _, None) => Err(SignError::NoMeans(offer.scheme())),
        }
    }

    fn agent(&self) -> Option<&Agent> {
        match self {
            Means::Agent(agent) | Means::Both(agent, _) => Some(agent),
            Means::Wallet(_) => None,
        }
    }

    fn wallet(&self) -> Option<&Wallet> {
        match self {
            Means::Wallet(wallet) | Means::Both(_, wallet) => Some(wallet),
            Means::Agent(_) => None,
        }
    }
}
