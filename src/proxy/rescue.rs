//! «No» → an answer, nowhere else: status, reason code, fresh offer where one helps, Retry-After, CORS.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Response, StatusCode};
use serde_json::json;

use super::body::AnswerBody;
use crate::payment::reason::Refusal;
use crate::payment::{crawl, page};
use crate::wire::x402::Version;

/// The field that carries the reason code.
pub const REASON_FIELD: HeaderName = HeaderName::from_static("tollgate-reason");
/// What should be signed (RFC 9421 §5.1).
const ACCEPT_SIGNATURE: HeaderName = HeaderName::from_static("accept-signature");
/// x402 v2's offer, base64 of JSON.
pub const PAYMENT_REQUIRED: HeaderName = HeaderName::from_static("payment-required");

/// The ledger's number of the capture that used a payment.
const RECEIPT: HeaderName = HeaderName::from_static("tollgate-receipt");

/// Response fields that a page in a browser may read.
pub const EXPOSED: &str = "PAYMENT-REQUIRED, PAYMENT-RESPONSE, X-PAYMENT-RESPONSE, Payment-Response, Crawler-Price, Crawler-Charged, \
     Crawler-Error, Accept-Signature, Tollgate-Charged, Tollgate-Reason, Tollgate-Receipt, \
     Retry-After";
/// Request fields that a page in a browser may send. Official clients put the expose field on their paid request.
const ALLOWED: &str = "PAYMENT-SIGNATURE, X-PAYMENT, Payment, Signature, Signature-Input, Signature-Agent, SIGN-IN-WITH-X, \
     Crawler-Exact-Price, Crawler-Max-Price, Content-Digest, Content-Type, Access-Control-Expose-Headers";

/// A refusal on its way out.
#[derive(Debug)]
pub struct Refused {
    /// Why.
    pub refusal: Refusal,
    /// What the answer carries besides; boxed, since most requests are not refused.
    pub extra: Box<Extra>,
}

/// What some refusals carry.
#[derive(Debug, Default)]
pub struct Extra {
    /// A complete JSON body with a fresh offer.
    pub offer_body: Option<String>,
    /// `PAYMENT-REQUIRED`.
    pub offer_field: Option<String>,
    /// `Accept-Signature`: what a signature that pays must cover.
    pub asked_signature: Option<HeaderValue>,
    /// `Allow`, for 405.
    pub allow: Option<String>,
    /// Where an unknown agent registers.
    pub registration_url: Option<String>,
    /// What is answered to an MCP client instead, with the status.
    pub message: Option<(u16, String)>,
    /// What kind of body it is.
    pub kind: Kind,
    /// `crawler-price`.
    pub crawler_price: Option<String>,
    /// `crawler-error`.
    pub crawler_error: Option<Box<str>>,
    /// The reference of an earlier capture.
    pub receipt: Option<String>,
    /// x402's payment response: of which version, and its value.
    pub payment_response: Option<(Version, String)>,
    /// `Vary`: what the answer depends on.
    pub vary: Option<&'static str>,
    /// A page in a browser asked: add CORS fields.
    pub cors: bool,
    /// The connection's framing is in doubt: end it.
    pub close: bool,
}

/// What the body of a refusal is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    /// JSON.
    #[default]
    Json,
    /// A line for people.
    Text,
    /// A page for browsers.
    Html,
}

impl Refused {
    /// Of the answer.
    pub fn status(&self) -> u16 {
        self.extra.message.as_ref().map_or(self.refusal.reason.status(), |(status, _)| *status)
    }
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Refused {
        Refused { refusal, extra: Box::default() }
    }
}

/// The answer to a refused request.
pub fn response(refused: Refused) -> Response<AnswerBody> {
    let Refused { refusal, extra } = refused;
    let extra = *extra;
    let reason = refusal.reason;
    tracing::debug!(reason = reason.code(), detail = refusal.detail, "refused");
    let (status, message) = extra.message.unzip();
    let body = message.or(extra.offer_body).unwrap_or_else(|| {
        let message = if refusal.detail.is_empty() { reason.meaning() } else { &refusal.detail };
        let error = refusal.error.as_deref().unwrap_or(reason.code());
        let mut body = json!({"error": error, "message": message, "advice": reason.advice()});
        if let Some(url) = extra.registration_url {
            body["registrationUrl"] = json!(url);
        }
        body.to_string()
    });
    let mut response = Response::new(AnswerBody::made(body));
    // Every status of the table is a valid one.
    *response.status_mut() =
        StatusCode::from_u16(status.unwrap_or(reason.status())).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    let kind = match extra.kind {
        Kind::Json => "application/json",
        Kind::Text => "text/plain; charset=utf-8",
        Kind::Html => "text/html; charset=utf-8",
    };
    if extra.kind == Kind::Html {
        headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(page::SECURITY_POLICY));
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    }
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(REASON_FIELD, HeaderValue::from_static(reason.code()));
    let texts = [
        (PAYMENT_REQUIRED, extra.offer_field),
        (header::ALLOW, extra.allow),
        (RECEIPT, extra.receipt),
        (HeaderName::from_static(crawl::PRICE_FIELD), extra.crawler_price),
        (HeaderName::from_static(crawl::ERROR_FIELD), extra.crawler_error.map(Into::into)),
    ];
    for (name, text) in texts {
        if let Some(value) = text.and_then(|t| HeaderValue::try_from(t).ok()) {
            headers.insert(name, value);
        }
    }
    if let Some(value) = extra.asked_signature {
        headers.insert(ACCEPT_SIGNATURE, value);
    }
    if let Some((version, value)) = extra.payment_response
        && let Ok(value) = HeaderValue::try_from(value)
    {
        headers.insert(payment_response_field(version), value);
    }
    if let Some(fields) = extra.vary {
        headers.insert(header::VARY, HeaderValue::from_static(fields));
    }
    if let Some(seconds) = refusal.retry_after {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    if extra.close {
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    if extra.cors {
        allow_any_origin(headers);
    }
    response
}

/// The field of the payment response in a version of x402.
pub fn payment_response_field(version: Version) -> HeaderName {
    HeaderName::from_static(match version {
        Version::V1 => "x-payment-response",
        Version::V2 => "payment-response",
    })
}

/// The answer to a preflight on a priced route: made here, free of charge.
pub fn preflight(methods: &str, cors: bool) -> Response<AnswerBody> {
    let mut response = Response::new(AnswerBody::made(""));
    *response.status_mut() = StatusCode::NO_CONTENT;
    let headers = response.headers_mut();
    if !cors {
        // The browser reads this as «no».
        return response;
    }
    allow_any_origin(headers);
    if let Ok(methods) = HeaderValue::from_str(methods) {
        headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, methods);
    }
    headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static(ALLOWED));
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
    headers.insert(header::VARY, HeaderValue::from_static("Access-Control-Request-Method"));
    response
}

fn allow_any_origin(headers: &mut HeaderMap) {
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(EXPOSED));
}

/// Lets a page read the payment response too, where the origin lets it read the answer at all.
pub fn expose_with_origin(headers: &mut HeaderMap) {
    if headers.contains_key(header::ACCESS_CONTROL_ALLOW_ORIGIN) {
        headers.append(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(EXPOSED));
    }
}
