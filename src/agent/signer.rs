//! An agent that commits to offers of `deferred`, or says who it is, and the fields that do it.

use std::fmt;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use ed25519_dalek::{Signer as _, SigningKey};
use http::{HeaderMap, HeaderName, HeaderValue};
use sha2::{Digest as _, Sha256};

use super::offer::Offer;
use crate::wire::agent_url::AgentUrl;
use crate::wire::content_digest;
use crate::wire::deferred::Payment;
use crate::wire::evm::eip3009::Authorization;
use crate::wire::jwk::{Jwk, thumbprint};
use crate::wire::signature::{
    Component, ComponentName, Part, RequestView, SignatureDraft, SignatureError, SignatureParams,
};

/// How long a signature lives, seconds, unless its offer ends sooner.
pub const SIGNATURE_SECONDS: i64 = 60;
/// The purpose that Web Bot Auth gives signatures.
const TAG: &str = "web-bot-auth";
const LABEL: &str = "sig1";

/// An agent: the origin that vouches for it, and its key.
#[derive(Clone)]
pub struct Agent {
    url: AgentUrl,
    key: SigningKey,
    thumbprint: String,
}

/// A payment, signed for one request.
#[derive(Debug, Clone)]
pub struct SignedPayment {
    /// What was committed to.
    pub payment: Committed,
    /// `Payment`, `Signature-Agent`, `Signature-Input`, `Signature`; or `PAYMENT-SIGNATURE`, or `X-PAYMENT`: to be added to
    /// the request.
    pub fields: Vec<(HeaderName, HeaderValue)>,
    /// What was signed: the base of RFC 9421 §2.5, or the token transfer a member a line.
    pub base: String,
    /// Unix seconds after which a gateway refuses it.
    pub expires: i64,
}

/// What a payment commits to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Committed {
    /// A debt.
    Deferred(Payment),
    /// A token transfer.
    Transfer(Authorization),
}

/// Why a request can't be signed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignError {
    /// The offer's time is over.
    #[error("the offer ended before it could be signed")]
    OfferExpired,
    /// The payer has nothing to pay this scheme with.
    #[error("there is nothing to pay `{0}` with")]
    NoMeans(&'static str),
    /// The offer holds what no field can.
    #[error("the offer's network or id can't be written into a header field")]
    Unprintable,
    /// The base can't be made.
    #[error(transparent)]
    Base(#[from] SignatureError),
}

impl Agent {
    /// An agent whose key is in the directory of `url`.
    pub fn new(url: AgentUrl, key: SigningKey) -> Agent {
        let thumbprint = thumbprint(&key.verifying_key());
        Agent { url, key, thumbprint }
    }

    /// Its origin: `https://signer.example.com`.
    pub fn url(&self) -> &AgentUrl {
        &self.url
    }

    /// RFC 7638 thumbprint of its key: `poqkLGiymh_W0uP6PZFw-dvez3QJT5SolqXBCW38r0U`.
    pub fn thumbprint(&self) -> &str {
        &self.thumbprint
    }

    /// Its public key, as its directory publishes it.
    pub fn public_jwk(&self) -> Jwk {
        public_jwk(&self.key)
    }

    /// Signs `request` for `offer`: covers `@authority`, `@method`, `@path`, `@query` where there is one, the payment and the
    /// agent. `now` in Unix seconds; a `nonce` makes two signatures of one second differ.
    ///
    /// The signature ends after [`SIGNATURE_SECONDS`], or with the offer. Signing one offer twice makes the same payment: its
    /// id buys once.
    ///
    /// # Errors
    /// [`SignError`]
    pub fn sign(
        &self,
        request: &RequestView<'_>,
        offer: &Offer,
        now: i64,
        nonce: Option<&str>,
    ) -> Result<SignedPayment, SignError> {
        let expires = now.saturating_add(SIGNATURE_SECONDS).min(offer.expires.unwrap_or(i64::MAX));
        if expires <= now {
            return Err(SignError::OfferExpired);
        }
        let payment = offer.payment().ok_or(SignError::NoMeans(offer.scheme()))?;
        let payment_value = value(payment.to_field().ok_or(SignError::Unprintable)?)?;
        let carried = (HeaderName::from_static("payment"), payment_value);
        let (fields, base) = self.sign_fields(request, Some(carried), (now, expires), nonce)?;
        Ok(SignedPayment { payment: Committed::Deferred(payment), fields, base, expires })
    }

    /// Signs `request` as itself, and pays nothing: covers `@authority`, `@method`, `@path`, `@query` where there is one, the
    /// digest of the body where there is one, and the agent. The fields to be added are returned.
    ///
    /// # Errors
    /// [`SignError`]
    pub fn sign_itself(
        &self,
        request: &RequestView<'_>,
        body: Option<&[u8]>,
        now: i64,
        nonce: Option<&str>,
    ) -> Result<Vec<(HeaderName, HeaderValue)>, SignError> {
        let digest = |body| value(format!("sha-256=:{}:", STANDARD.encode(Sha256::digest(body))));
        let digest = body.map(digest).transpose()?;
        let carried = digest.map(|digest| (HeaderName::from_static(content_digest::FIELD), digest));
        let times = (now, now.saturating_add(SIGNATURE_SECONDS));
        Ok(self.sign_fields(request, carried, times, nonce)?.0)
    }

    /// The field that is carried and those of the signature; then its base.
    fn sign_fields(
        &self,
        request: &RequestView<'_>,
        carried: Option<(HeaderName, HeaderValue)>,
        (now, expires): (i64, i64),
        nonce: Option<&str>,
    ) -> Result<(Vec<(HeaderName, HeaderValue)>, String), SignError> {
        let kind = if self.url.key_set().is_some() { ";type=jwks_uri" } else { "" };
        let agent_value = value(format!("{LABEL}=\"{}\"{kind}", self.url))?;
        let agent_name = HeaderName::from_static("signature-agent");
        let mut headers: HeaderMap = carried.iter().cloned().collect();
        headers.insert(agent_name.clone(), agent_value.clone());
        let whole = Component::whole;
        let mut components =
            vec![whole(ComponentName::Authority), whole(ComponentName::Method), whole(ComponentName::Path)];
        if request.query.is_some() {
            components.push(whole(ComponentName::Query));
        }
        components.extend(carried.iter().map(|(name, _)| whole(ComponentName::Field(name.clone()))));
        components
            .push(Component { name: ComponentName::Field(agent_name.clone()), part: Part::Member(LABEL.to_owned()) });
        let params = SignatureParams {
            created: Some(now),
            expires: Some(expires),
            nonce: nonce.map(str::to_owned),
            keyid: Some(self.thumbprint.clone()),
            tag: Some(TAG.to_owned()),
            alg: None,
        };
        let draft = SignatureDraft { label: LABEL.to_owned(), components, params };
        let (input, base) = draft.prepare(&RequestView { headers: &headers, ..*request })?;
        let signature = STANDARD.encode(self.key.sign(base.as_bytes()).to_bytes());
        let mut fields = Vec::from_iter(carried);
        fields.extend([
            (agent_name, agent_value),
            (HeaderName::from_static("signature-input"), value(input)?),
            (HeaderName::from_static("signature"), value(format!("{LABEL}=:{signature}:"))?),
        ]);
        Ok((fields, base))
    }
}

fn value(text: String) -> Result<HeaderValue, SignError> {
    HeaderValue::try_from(text).map_err(|_| SignError::Unprintable)
}

impl fmt::Debug for Agent {
    /// Never the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Agent({}, {})", self.url, self.thumbprint)
    }
}

/// The public half of a key, as a directory publishes it; `kid` is the thumbprint.
pub fn public_jwk(key: &SigningKey) -> Jwk {
    let public = key.verifying_key();
    Jwk { kid: Some(thumbprint(&public)), use_: Some("sig".to_owned()), ..Jwk::from_public(&public) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::offer::Way;
    use crate::wire::amount::Money;
    use crate::wire::signature::LabelledSignature;

    fn offer(price: &str, expires: Option<i64>) -> Offer {
        Offer {
            price: Money::parse(price).unwrap(),
            network: "example-network-provider".into(),
            resource: None,
            pay_to: None,
            description: None,
            expires,
            way: Way::Deferred { id: "abc123".into(), terms_url: None },
        }
    }

    fn agent() -> Agent {
        Agent::new(AgentUrl::parse("https://signer.example.com").unwrap(), SigningKey::from_bytes(&[7; 32]))
    }

    fn view<'a>(headers: &'a HeaderMap, query: Option<&'a str>) -> RequestView<'a> {
        let (scheme, authority, path) = ("https", "www.example.com", "/path/to/resource");
        RequestView { method: "GET", scheme, authority, path, query, headers }
    }

    #[test]
    fn the_emit_form_is_written_and_verifies() {
        let (none, agent) = (HeaderMap::new(), agent());
        let signed = agent.sign(&view(&none, None), &offer("0.01 USD", None), 1_700_000_000, None).unwrap();
        let text = |i: usize| signed.fields[i].1.to_str().unwrap();
        assert_eq!(text(0), r#"scheme="deferred", network="example-network-provider", id="abc123""#);
        assert_eq!(text(1), r#"sig1="https://signer.example.com""#);
        let expect = format!(
            "sig1=(\"@authority\" \"@method\" \"@path\" \"payment\" \"signature-agent\";key=\"sig1\")\
             ;created=1700000000;expires=1700000060;keyid=\"{}\";tag=\"web-bot-auth\"",
            agent.thumbprint()
        );
        assert_eq!(text(2), expect);
        let headers = HeaderMap::from_iter(signed.fields.clone());
        let read = LabelledSignature::parse_all(&headers, false).unwrap().remove(0);
        let base = read.base(&view(&headers, None)).unwrap();
        assert_eq!(base, signed.base);
        assert!(agent.public_jwk().public_key(false).unwrap().verifies(base.as_bytes(), &read.signature));
    }

    #[test]
    fn a_query_and_a_nonce_are_signed_too() {
        let none = HeaderMap::new();
        let signed = agent().sign(&view(&none, Some("")), &offer("1 USD", None), 5, Some("n\"1")).unwrap();
        assert!(
            signed.base.contains("\n\"@query\": ?\n") && signed.base.contains(";nonce=\"n\\\"1\""),
            "{}",
            signed.base
        );
    }

    #[test]
    fn a_signature_never_outlives_its_offer() {
        let none = HeaderMap::new();
        let sign = |expires| agent().sign(&view(&none, None), &offer("1 USD", expires), 1000, None);
        assert_eq!(sign(Some(1010)).unwrap().expires, 1010);
        assert_eq!(sign(Some(9999)).unwrap().expires, 1060);
        assert_eq!(sign(Some(1000)).unwrap_err(), SignError::OfferExpired);
    }

    #[test]
    fn the_key_is_never_shown() {
        assert_eq!(format!("{:?}", agent()), format!("Agent(https://signer.example.com, {})", agent().thumbprint()));
        assert!(agent().public_jwk().d.is_none());
    }
}
