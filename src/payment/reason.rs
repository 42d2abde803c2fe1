//! Every «no» of the gateway: a stable code, its status, what it means and what an agent should do.
//!
//! The code goes into the answer's body, into the field `Tollgate-Reason` and into the log. `docs/reasons.md` is this table;
//! a test keeps them equal.

macro_rules! reasons {
    ($($(#[$doc:meta])* $variant:ident = $code:literal, $status:literal, $meaning:literal, $advice:literal;)*) => {
        /// Why a request was not served. The documentation of a variant is its meaning.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Reason { $(#[doc = $meaning] $variant,)* }

        impl Reason {
            /// All of them, in the table's order.
            pub const ALL: &'static [Reason] = &[$(Reason::$variant,)*];

            /// The stable code: `already_used`.
            pub const fn code(self) -> &'static str {
                match self { $(Reason::$variant => $code,)* }
            }

            /// The HTTP status.
            pub const fn status(self) -> u16 {
                match self { $(Reason::$variant => $status,)* }
            }

            /// One sentence for people.
            pub const fn meaning(self) -> &'static str {
                match self { $(Reason::$variant => $meaning,)* }
            }

            /// What the agent should do next.
            pub const fn advice(self) -> &'static str {
                match self { $(Reason::$variant => $advice,)* }
            }
        }
    };
}

reasons! {
    // Offers and refusals that come with a fresh offer.
    PaymentRequired = "payment_required", 402, "This resource has a price.", "Sign one of the offers and send the request again.";
    UnknownOffer = "unknown_offer", 402, "The id is not one of ours, or was altered.", "Sign the fresh offer.";
    OfferExpired = "offer_expired", 402, "The offer is older than its ttl.", "Sign the fresh offer.";
    OtherResource = "other_resource", 402, "The offer was made for another method, host, path or query.", "Sign the fresh offer, which is for this resource.";
    UnsupportedScheme = "unsupported_scheme", 402, "The payment names a scheme or network that this resource does not take, or the account owes in another currency than the offer's.", "Use a scheme and network from the offers; about the currency ask the operator.";
    UsePaymentField = "use_payment_field", 402, "A deferred payment belongs into the field `Payment`, signed.", "Send `Payment`, `Signature-Agent`, `Signature-Input` and `Signature`.";
    AlreadyUsed = "already_used", 402, "This payment has bought something before.", "Sign the fresh offer; do not send the old payment again.";
    PaymentRefused = "payment_refused", 402, "The payment does not hold, or the facilitator refused it; `error` has the specification's code.", "Sign one of the fresh offers.";
    SettlementFailed = "settlement_failed", 402, "The facilitator could not move the money; nothing was charged.", "See `errorReason` in the payment response, and sign a fresh offer.";
    PaymentOwed = "payment_owed", 409, "This payment was made and its answer was not given; it cannot be served again.", "Do not pay again: ask the operator for the answer or a refund, with the receipt.";
    PaymentAlreadyUsed = "payment_already_used", 409, "This payment has bought something before; the receipt is in the payment response.", "Do not send it again; for another answer ask without a payment and sign the new offer.";
    IdentifierTaken = "payment_identifier_taken", 409, "The payment's identifier was used for another request or payment.", "Send the very request that it was made for, or take a new identifier.";
    AllowanceRequired = "permit2_allowance_required", 412, "The wallet has not allowed Permit2 to move the token.", "Approve Permit2 for the token once, and send the payment again.";
    PriceNotAcceptable = "price_not_acceptable", 402, "The payment offers less than the price, or takes an offer that does not stand.", "Take the fresh offer as it is.";
    CreditExhausted = "credit_exhausted", 402, "The account would owe more than its limit in this period.", "Wait until Retry-After, or ask the operator for a higher limit.";
    // The payment or the signature can't be read or does not hold.
    SeveralPayments = "several_payments", 400, "The request carries more than one payment.", "Send exactly one payment.";
    InvalidPayment = "invalid_payment", 400, "The payment field can't be read.", "Send `Payment: scheme=\"…\", network=\"…\", id=\"…\"` as offered.";
    InvalidSignature = "invalid_signature", 400, "The signature fields can't be read, do not cover what they must, or do not verify.", "Sign again; `message` says what is wrong.";
    SignatureRequired = "signature_required", 400, "Such a request must be signed, and it has no Web Bot Auth signature.", "Send `Signature-Agent`, `Signature-Input` and `Signature`, and cover what `Accept-Signature` names, such as the price field.";
    SignatureUsed = "signature_used", 400, "This signature has paid for this request before.", "Sign again; `created` or a nonce makes each signature another one.";
    SignatureExpired = "signature_expired", 400, "`created` or `expires` of the signature do not fit the time.", "Set the clock and sign again.";
    InvalidIdentifier = "invalid_payment_identifier", 400, "The payment's identifier is malformed, or absent where one is required.", "Put `info.id`, 16 to 128 of A-Z, a-z, 0-9, `_` and `-`, into the echoed extension `payment-identifier`.";
    ContentDigestMismatch = "content_digest_mismatch", 400, "The body is not the one whose `Content-Digest` the payment's signature covers; nothing was charged.", "Send the body that was digested, or sign the digest of this one.";
    // Who asks.
    SignatureAgentUnknown = "signature_agent_unknown", 403, "The agent has no account here.", "Register at `registrationUrl`, or ask the operator.";
    KeyUnknown = "key_unknown", 403, "The agent's key directory does not publish the key that signed.", "Publish the key, or sign with one that the directory has; a new key is seen within a minute.";
    PaymentFailed = "payment_failed", 403, "The account would owe more than its limit in this period, or owes in another currency.", "Wait until Retry-After, or ask the operator.";
    AgentBlocked = "agent_blocked", 403, "The operator does not serve this agent here.", "Ask the operator.";
    Blocked = "blocked", 403, "The operator blocked this account.", "Ask the operator.";
    // An agent's own account.
    EntryUnknown = "entry_unknown", 404, "This agent has bought nothing on its account that has this number.", "Use the number of a `capture` from its list of entries.";
    DisputeRefused = "dispute_refused", 409, "This charge can't be disputed, or not any more.", "`message` says why; ask the operator.";
    // Not now.
    DirectoryUnavailable = "directory_unavailable", 503, "The agent's key directory could not be read, so the signature could be neither accepted nor refused.", "See that the directory answers, and send the same request after Retry-After.";
    PaymentInFlight = "payment_in_flight", 503, "The same payment is being served right now.", "Wait for the first answer; send again after Retry-After only if it never came.";
    SettlementPending = "settlement_pending", 503, "Whether the payment moved money is not known yet.", "Send the same payment again after Retry-After; never sign another one for it.";
    PaymentUnresolved = "payment_unresolved", 503, "Whether an earlier payment for this resource moved money is not known yet.", "Send the earlier payment again after Retry-After, or ask the operator; no new payment is taken for it.";
    FacilitatorUnavailable = "facilitator_unavailable", 503, "The facilitator could not be asked, so the payment could be neither accepted nor refused; nothing was charged.", "Send the same payment after Retry-After.";
    LedgerUnavailable = "ledger_unavailable", 503, "Payments can't be recorded now, so none is taken.", "Send the same request after Retry-After.";
    RateLimited = "rate_limited", 429, "This agent asked too often, or too many payments or signatures from this network did not verify.", "Wait until Retry-After; correct what fails before sending it again.";
    TooManyClaims = "too_many_claims", 429, "Too many payments of this account were dropped before they were served.", "Slow down; read answers to their end.";
    // The origin.
    OriginUnreachable = "origin_unreachable", 502, "The origin could not be connected to.", "Try again later; nothing was charged unless the payment response says so.";
    OriginPrice = "origin_price_invalid", 502, "What the origin says that this costs can't be read.", "Try again later; nothing was charged.";
    OriginAmount = "origin_amount_invalid", 502, "What the origin takes of the payment can't be read.", "Try again later; nothing was charged.";
    AnswerTooLong = "answer_too_long", 502, "The origin's answer is longer than the gateway holds before it settles.", "Nothing was charged; tell the operator.";
    OriginInvalid = "origin_invalid", 502, "The origin broke off or its answer was not HTTP.", "Try again later; nothing was charged unless the payment response says so.";
    OriginTimeout = "origin_timeout", 504, "The origin did not answer in time.", "Try again later; nothing was charged unless the payment response says so.";
    // The request itself.
    BadHost = "bad_host", 400, "Host is missing, repeated, malformed or disagrees with the request target.", "Send one valid Host.";
    MisdirectedHost = "misdirected_host", 421, "This host is not served here.", "Use a host that the gateway serves.";
    AmbiguousPath = "ambiguous_path", 400, "The path can be read in more than one way.", "Send it without dot segments, `//`, `\\`, `;` and encoded `/`, `\\`, `%` or NUL, and with two hex digits after each `%`.";
    BadFraming = "bad_framing", 400, "Transfer-Encoding, Content-Length or Connection can't be trusted.", "Send plain framing: one Content-Length or `Transfer-Encoding: chunked`.";
    BadRequest = "bad_request", 400, "The request is malformed.", "Correct the request; `message` says what is wrong.";
    InvalidMessage = "invalid_message", 400, "The body is no MCP message, or one that can be read in more than one way, or a paid call in a form that is not taken.", "Send one JSON-RPC request, each member once, with a text or a whole number as its id, and without `task`: a call with a price is answered at once.";
    HeaderMismatch = "header_mismatch", 400, "`Mcp-Method` or `Mcp-Name` is missing or says something else than the body.", "Repeat `method` and `params.name` (or `params.uri`) of the body in them.";
    UnsupportedMediaType = "unsupported_media_type", 415, "The body of an MCP request must be plain JSON in UTF-8.", "Send `Content-Type: application/json` without `Content-Encoding`.";
    BodyTooLarge = "body_too_large", 413, "The body is larger than the limit.", "Send less.";
    MethodNotAllowed = "method_not_allowed", 405, "The route does not take this method.", "Use a method from Allow.";
    MethodUnsupported = "method_unsupported", 501, "CONNECT and TRACE are not served.", "Use another method.";
    UrlTooLong = "url_too_long", 414, "The request target is longer than the limit.", "Shorten it.";
    HeadersTooLarge = "headers_too_large", 431, "The header section is larger than the limit.", "Send fewer or shorter fields.";
    BodyTooSlow = "body_too_slow", 408, "The request body stopped or came too slowly.", "Send it again, faster.";
    Overloaded = "overloaded", 503, "The gateway serves as many requests as it may.", "Try again after Retry-After.";
    Internal = "internal_error", 500, "The gateway failed.", "Try again later.";
}

/// A reason with what the client is told about this case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The code.
    pub reason: Reason,
    /// What was expected and what arrived; for the client, so without secrets. Empty when the meaning says it all.
    pub detail: String,
    /// Seconds for Retry-After.
    pub retry_after: Option<u64>,
    /// What a specification calls it, where it says more than the code: `invalid_exact_evm_payload_signature`. Goes into
    /// `error` of offers.
    pub error: Option<Box<str>>,
}

impl Refusal {
    /// A refusal with a detail.
    pub fn new(reason: Reason, detail: impl Into<String>) -> Refusal {
        Refusal { reason, detail: detail.into(), retry_after: None, error: None }
    }

    /// The same, with a specification's word for it.
    pub fn error(mut self, error: &str) -> Refusal {
        self.error = Some(error.into());
        self
    }

    /// The same, telling when to come back.
    pub fn retry_after(mut self, seconds: u64) -> Refusal {
        self.retry_after = Some(seconds);
        self
    }
}

impl From<Reason> for Refusal {
    fn from(reason: Reason) -> Refusal {
        Refusal::new(reason, "")
    }
}
