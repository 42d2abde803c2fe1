//! HTTP Message Signatures (RFC 9421): the fields, the covered components, the signature base.
//!
//! Pure: the caller brings the request as it was received and the time. Signing and verifying share one base, so that a
//! client and the gateway cannot disagree about it. Supported are the derived components of a request and its fields, as
//! they are, strictly (`;sf`), as bytes (`;bs`) or a dictionary member (`;key`); anything else makes a signature unusable
//! rather than weaker.

mod component;
pub mod directory;

use std::fmt::Write as _;

use http::{HeaderMap, HeaderName};
use sfv::{BareItem, Dictionary, InnerList, ItemSerializer, ListEntry, ListSerializer, Parser};

pub use component::{Component, ComponentName, Part, field};

/// Longest `Signature-Input`, `Signature`, `Signature-Agent` or `Payment` that is read, all lines joined.
pub const FIELD_BYTES_MAX: usize = 8 * 1024;
/// Most labels in one request.
pub const LABELS_MAX: usize = 16;
/// Most components that one signature covers.
pub const COMPONENTS_MAX: usize = 32;

/// A request as its sender wrote it, before the gateway rewrites anything.
#[derive(Clone, Copy, Debug)]
pub struct RequestView<'a> {
    /// `GET`, case kept.
    pub method: &'a str,
    /// `http` or `https`, as the client used it.
    pub scheme: &'a str,
    /// Lower case, without the scheme's default port: `example.com`.
    pub authority: &'a str,
    /// Path as received; empty stands for `/`.
    pub path: &'a str,
    /// Query without its `?`; `None` when there was no `?`.
    pub query: Option<&'a str>,
    /// Fields as received.
    pub headers: &'a HeaderMap,
}

/// Why the signature fields of a request, or one signature, can't be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// The field is absent.
    #[error("`{0}` is missing")]
    Missing(&'static str),
    /// Longer than [`FIELD_BYTES_MAX`], or not visible ASCII.
    #[error("`{0}` is longer than {FIELD_BYTES_MAX} bytes or holds bytes outside ASCII")]
    Field(String),
    /// Not the structured field that it should be.
    #[error("`{field}` is not a valid structured field: {reason}")]
    Syntax {
        /// The field.
        field: &'static str,
        /// The parser's words.
        reason: String,
    },
    /// More labels or components than are read.
    #[error("more than {0}")]
    TooMany(&'static str),
    /// No label stands in both `Signature-Input` and `Signature`.
    #[error("no label stands in both `Signature-Input` and `Signature`")]
    NoLabel,
    /// A parameter has the wrong type.
    #[error("signature parameter `{0}` has the wrong type")]
    Parameter(&'static str),
    /// A component that we do not support, or not in a request.
    #[error("covered component `{0}` is not supported")]
    Component(String),
    /// The same component twice.
    #[error("covered component `{0}` stands twice")]
    Repeated(String),
    /// A covered field, member or query parameter is absent from the request.
    #[error("covered component `{0}` is not in the request")]
    Absent(String),
    /// A covered field or query parameter has no single value.
    #[error("covered component `{0}` can be read in more than one way")]
    Ambiguous(String),
}

/// One label of `Signature-Input` with its `Signature`.
#[derive(Debug, Clone)]
pub struct LabelledSignature {
    /// `sig1`.
    pub label: String,
    /// What it covers, in order.
    pub components: Vec<Component>,
    /// Its parameters.
    pub params: SignatureParams,
    /// The signature's bytes.
    pub signature: Vec<u8>,
    /// The inner list with its parameters, strictly serialised: the value of `@signature-params`.
    params_text: String,
}

/// Parameters of a signature (RFC 9421 §2.3); unknown ones stay in the base only.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SignatureParams {
    /// Unix seconds.
    pub created: Option<i64>,
    /// Unix seconds.
    pub expires: Option<i64>,
    /// The key's name, a JWK thumbprint for Web Bot Auth.
    pub keyid: Option<String>,
    /// `web-bot-auth`.
    pub tag: Option<String>,
    /// Makes the signature unique.
    pub nonce: Option<String>,
    /// Must agree with the key when present.
    pub alg: Option<String>,
}

impl LabelledSignature {
    /// Reads every label that stands in both fields, in the order of `Signature-Input`.
    ///
    /// With `lenient`, a `Signature` that is no structured field is read once more as `label=base64`, the way the
    /// deferred proposal prints it. A label whose components we can't use is left out, with its error kept for the case
    /// that none is left.
    ///
    /// # Errors
    /// When a field is missing or malformed, or no usable label is left.
    pub fn parse_all(headers: &HeaderMap, lenient: bool) -> Result<Vec<LabelledSignature>, SignatureError> {
        let input_text = required(headers, "signature-input")?;
        let signature_text = required(headers, "signature")?;
        let inputs: Dictionary = parse_dictionary("signature-input", &input_text)?;
        let signatures = match parse_dictionary("signature", &signature_text) {
            Ok(dictionary) => signature_bytes(&dictionary),
            Err(error) if lenient => bare_signatures(&signature_text).ok_or(error)?,
            Err(error) => return Err(error),
        };
        if inputs.len() > LABELS_MAX || signatures.len() > LABELS_MAX {
            return Err(SignatureError::TooMany("16 signatures"));
        }
        let mut usable = Vec::with_capacity(inputs.len());
        let mut first_error = SignatureError::NoLabel;
        for (label, entry) in &inputs {
            let (ListEntry::InnerList(list), Some((_, signature))) =
                (entry, signatures.iter().find(|(l, _)| l == label.as_str()))
            else {
                continue;
            };
            match LabelledSignature::from_parts(label.as_str(), list, signature.clone()) {
                Ok(signature) => usable.push(signature),
                Err(error) if first_error == SignatureError::NoLabel => first_error = error,
                Err(_) => {}
            }
        }
        if usable.is_empty() { Err(first_error) } else { Ok(usable) }
    }

    fn from_parts(label: &str, list: &InnerList, signature: Vec<u8>) -> Result<LabelledSignature, SignatureError> {
        if list.items.len() > COMPONENTS_MAX {
            return Err(SignatureError::TooMany("32 covered components"));
        }
        let mut components: Vec<Component> = Vec::with_capacity(list.items.len());
        for item in &list.items {
            let component = Component::of(item).ok_or_else(|| {
                let shown = ItemSerializer::new().bare_item(&item.bare_item).parameters(&item.params).finish();
                SignatureError::Component(shown)
            })?;
            if components.contains(&component) {
                return Err(SignatureError::Repeated(component.identifier()));
            }
            components.push(component);
        }
        let params_text = inner_list_text(list);
        Ok(LabelledSignature {
            label: label.to_owned(),
            components,
            params: SignatureParams::from_list(list)?,
            signature,
            params_text,
        })
    }

    /// Whether a derived component is covered.
    pub fn covers(&self, name: &ComponentName) -> bool {
        self.components.iter().any(|c| c.name == *name)
    }

    /// Whether a whole field is covered, as text (not just a member of it).
    pub fn covers_field(&self, name: &str) -> bool {
        self.field_components(name).any(|c| matches!(c.part, Part::Whole | Part::Strict))
    }

    /// Every component that names this field, whole or a member.
    pub fn field_components(&self, name: &str) -> impl Iterator<Item = &Component> {
        self.components.iter().filter(move |c| matches!(&c.name, ComponentName::Field(f) if f.as_str() == name))
    }

    /// The signature base (RFC 9421 §2.5): what was signed.
    ///
    /// # Errors
    /// When a covered component is not in the request.
    pub fn base(&self, request: &RequestView<'_>) -> Result<String, SignatureError> {
        base_of(&self.components, &self.params_text, request)
    }
}

fn base_of(components: &[Component], params_text: &str, request: &RequestView<'_>) -> Result<String, SignatureError> {
    let mut base = String::with_capacity(512);
    for component in components {
        let value = component.value(request)?;
        // A field's line end can't get here (HeaderValue forbids it); the target's bytes are checked all the same.
        if value.bytes().any(|b| b == b'\n' || b == b'\r' || !b.is_ascii()) {
            return Err(SignatureError::Field(component.identifier()));
        }
        base.push_str(&component.identifier());
        base.push_str(": ");
        base.push_str(&value);
        base.push('\n');
    }
    base.push_str("\"@signature-params\": ");
    base.push_str(params_text);
    Ok(base)
}

impl SignatureParams {
    fn from_list(list: &InnerList) -> Result<SignatureParams, SignatureError> {
        let mut params = SignatureParams::default();
        let text = |value: &BareItem, name| {
            value.as_string().map(|s| Some(s.as_str().to_owned())).ok_or(SignatureError::Parameter(name))
        };
        let time = |value: &BareItem, name| {
            value.as_integer().map(|i| Some(i64::from(i))).ok_or(SignatureError::Parameter(name))
        };
        for (name, value) in &list.params {
            match name.as_str() {
                "created" => params.created = time(value, "created")?,
                "expires" => params.expires = time(value, "expires")?,
                "keyid" => params.keyid = text(value, "keyid")?,
                "tag" => params.tag = text(value, "tag")?,
                "nonce" => params.nonce = text(value, "nonce")?,
                "alg" => params.alg = text(value, "alg")?,
                _ => {}
            }
        }
        Ok(params)
    }

    /// Holds the times against `now` (Unix seconds): not from the future, not expired, no wider than `window`.
    ///
    /// # Errors
    /// One sentence saying which time is wrong, with both values.
    pub fn check_times(&self, now: i64, skew: i64, window: i64) -> Result<(), String> {
        let (Some(created), Some(expires)) = (self.created, self.expires) else {
            return Err("`created` and `expires` are required".to_owned());
        };
        if created > now.saturating_add(skew) {
            return Err(format!("`created` {created} is in the future; it is now {now}"));
        }
        if expires <= now.saturating_sub(skew) {
            return Err(format!("`expires` {expires} has passed; it is now {now}"));
        }
        if expires <= created {
            return Err(format!("`expires` {expires} is not after `created` {created}"));
        }
        if expires.saturating_sub(created) > window {
            return Err(format!(
                "`expires` is {} s after `created`; at most {window} s are accepted",
                expires - created
            ));
        }
        Ok(())
    }
}

/// A signature to be made: what to cover and with which parameters.
#[derive(Debug, Clone)]
pub struct SignatureDraft {
    /// `sig1`.
    pub label: String,
    /// What to cover, in order.
    pub components: Vec<Component>,
    /// Its parameters; written in the order created, expires, nonce, keyid, tag, alg.
    pub params: SignatureParams,
}

impl SignatureDraft {
    /// The value of `Signature-Input` and the base to sign.
    ///
    /// # Errors
    /// When a covered component is not in the request.
    pub fn prepare(&self, request: &RequestView<'_>) -> Result<(String, String), SignatureError> {
        let mut text = String::from("(");
        for (i, component) in self.components.iter().enumerate() {
            text.push_str(if i == 0 { "" } else { " " });
            text.push_str(&component.identifier());
        }
        text.push(')');
        let quoted = |value: &str| value.replace('\\', "\\\\").replace('"', "\\\"");
        let SignatureParams { created, expires, nonce, keyid, tag, alg } = &self.params;
        for (name, value) in [("created", created), ("expires", expires)] {
            value.iter().for_each(|v| _ = write!(text, ";{name}={v}"));
        }
        for (name, value) in [("nonce", nonce), ("keyid", keyid), ("tag", tag), ("alg", alg)] {
            value.iter().for_each(|v| _ = write!(text, ";{name}=\"{}\"", quoted(v)));
        }
        let base = base_of(&self.components, &text, request)?;
        Ok((format!("{}={text}", self.label), base))
    }
}

fn inner_list_text(list: &InnerList) -> String {
    let mut serializer = ListSerializer::new();
    let mut inner = serializer.inner_list();
    inner.items(&list.items);
    let _ = inner.finish().parameters(&list.params);
    // One member was written, so there is text.
    serializer.finish().unwrap_or_default()
}

fn required(headers: &HeaderMap, name: &'static str) -> Result<String, SignatureError> {
    field(headers, &HeaderName::from_static(name))?.ok_or(SignatureError::Missing(name))
}

fn parse_dictionary(field: &'static str, text: &str) -> Result<Dictionary, SignatureError> {
    Parser::new(text).parse().map_err(|e: sfv::Error| SignatureError::Syntax { field, reason: e.to_string() })
}

fn signature_bytes(dictionary: &Dictionary) -> Vec<(String, Vec<u8>)> {
    let bytes = |entry: &ListEntry| match entry {
        ListEntry::Item(item) => item.bare_item.as_byte_sequence().map(<[u8]>::to_vec),
        ListEntry::InnerList(_) => None,
    };
    dictionary.iter().filter_map(|(label, entry)| Some((label.as_str().to_owned(), bytes(entry)?))).collect()
}

/// `sig=abc==`, as the proposal prints it: every member a label and bare base64.
fn bare_signatures(text: &str) -> Option<Vec<(String, Vec<u8>)>> {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    text.split(',')
        .map(|member| {
            let (label, value) = member.trim().split_once('=')?;
            sfv::KeyRef::from_str(label).ok()?;
            Some((label.to_owned(), STANDARD.decode(value).ok()?))
        })
        .collect()
}
