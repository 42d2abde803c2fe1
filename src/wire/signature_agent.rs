//! `Signature-Agent`: who says that it signed (Web Bot Auth).
//!
//! Three forms are read: the dictionary `sig1="https://signer.example.com"`, the legacy string
//! `"https://signer.example.com"`, and the proposal's bare host `signer.example.com`.

use sfv::{BareItem, Dictionary, Item, ListEntry, Parser};

use super::signature::{LabelledSignature, Part};

use super::agent_url::{AgentUrl, AgentUrlError};

/// Why the agent that a signature names can't be told.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignatureAgentError {
    /// The signature covers no `signature-agent`.
    #[error("the signature does not cover `signature-agent`")]
    NotCovered,
    /// Neither dictionary, string nor host.
    #[error("`Signature-Agent` must be `label=\"https://…\"`, `\"https://…\"` or a host name")]
    Syntax,
    /// The covered member is absent or is no string.
    #[error("`Signature-Agent` has no string member `{0}`")]
    Member(String),
    /// The whole field is covered and names several agents, none under the signature's label.
    #[error("`Signature-Agent` names several agents and the signature covers them all")]
    Ambiguous,
    /// A type that this gateway does not fetch.
    #[error("agents of type `{0}` are not supported; use a key directory")]
    Type(String),
    /// No agent can be named so.
    #[error("`Signature-Agent`: {0}")]
    Url(#[from] AgentUrlError),
}

/// The agent that this signature stands for: `https://signer.example.com`, or with `type=jwks_uri`
/// `https://www.example.com/bot/jwks.json`.
///
/// `value` is the field's value as it was received, lines joined. Only the member that the signature covers counts: another
/// member of the field proves nothing.
///
/// # Errors
/// When no single agent is covered, or it is of a type other than `directory` and `jwks_uri`.
pub fn covered_agent(signature: &LabelledSignature, value: &str) -> Result<AgentUrl, SignatureAgentError> {
    let mut covered = signature.field_components("signature-agent");
    let component = covered.next().ok_or(SignatureAgentError::NotCovered)?;
    if covered.next().is_some() {
        return Err(SignatureAgentError::Ambiguous);
    }
    if let Part::Member(key) = &component.part {
        return member(&dictionary(value)?, key);
    }
    // The first byte tells the legacy string from a dictionary.
    if value.starts_with('"') {
        let item: Item = Parser::new(value).parse().map_err(|_| SignatureAgentError::Syntax)?;
        return agent_of(&item);
    }
    if is_bare_host(value) {
        return Ok(AgentUrl::parse(&format!("https://{value}"))?);
    }
    let dictionary = dictionary(value)?;
    match dictionary.len() {
        1 => member(&dictionary, dictionary.keys().next().map_or("", |k| k.as_str())),
        _ if dictionary.contains_key(signature.label.as_str()) => member(&dictionary, &signature.label),
        _ => Err(SignatureAgentError::Ambiguous),
    }
}

fn dictionary(value: &str) -> Result<Dictionary, SignatureAgentError> {
    Parser::new(value).parse().map_err(|_| SignatureAgentError::Syntax)
}

fn member(dictionary: &Dictionary, key: &str) -> Result<AgentUrl, SignatureAgentError> {
    match dictionary.get(key) {
        Some(ListEntry::Item(item)) => agent_of(item),
        _ => Err(SignatureAgentError::Member(key.to_owned())),
    }
}

fn agent_of(item: &Item) -> Result<AgentUrl, SignatureAgentError> {
    let text = item.bare_item.as_string().ok_or(SignatureAgentError::Syntax)?.as_str();
    Ok(match item.params.get("type") {
        None => AgentUrl::parse(text)?,
        Some(BareItem::Token(kind)) if kind.as_str() == "directory" => AgentUrl::parse(text)?,
        Some(BareItem::Token(kind)) if kind.as_str() == "jwks_uri" => AgentUrl::parse_key_set(text)?,
        Some(BareItem::Token(kind)) => return Err(SignatureAgentError::Type(kind.as_str().to_owned())),
        Some(_) => return Err(SignatureAgentError::Syntax),
    })
}

fn is_bare_host(value: &str) -> bool {
    let host_byte = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b':' | b'[' | b']');
    !value.is_empty() && value.contains(['.', ':']) && value.bytes().all(host_byte)
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;

    use super::*;

    fn covering(component: &str) -> LabelledSignature {
        let mut headers = HeaderMap::new();
        headers.insert("signature-input", format!("sig1=({component});created=1").parse().unwrap());
        headers.insert("signature", "sig1=:AA==:".parse().unwrap());
        LabelledSignature::parse_all(&headers, false).unwrap().remove(0)
    }

    fn check(component: &str, value: &str, expect: Result<&str, SignatureAgentError>) {
        let found = covered_agent(&covering(component), value);
        assert_eq!(found.map(|agent| agent.to_string()), expect.map(str::to_owned), "{component} over {value}");
    }

    #[test]
    fn each_form_is_read_and_only_the_covered_member_counts() {
        use SignatureAgentError as E;
        let (whole, keyed) = ("\"signature-agent\"", "\"signature-agent\";key=\"sig1\"");
        check(whole, "\"https://a.example\"", Ok("https://a.example"));
        check(whole, "a.example", Ok("https://a.example"));
        check(whole, "127.0.0.1:80", Ok("https://127.0.0.1:80"));
        check(whole, "agent2=\"https://a.example\"", Ok("https://a.example"));
        check(whole, "x=\"https://b.example\", sig1=\"https://a.example\"", Ok("https://a.example"));
        check(whole, "x=\"https://b.example\", y=\"https://a.example\"", Err(E::Ambiguous));
        check(keyed, "x=\"https://b.example\", sig1=\"https://a.example\"", Ok("https://a.example"));
        check(keyed, "sig1=\"https://a.example\";type=directory", Ok("https://a.example"));
        check(keyed, "sig1=\"https://a.example/k\";type=jwks_uri", Ok("https://a.example/k"));
        check(whole, "\"https://a.example/k\";type=jwks_uri", Ok("https://a.example/k"));
        check(keyed, "sig1=\"https://a.example/k\"", Err(E::Url(AgentUrlError::Path)));
        check(keyed, "sig1=\"https://a.example/k\";type=directory", Err(E::Url(AgentUrlError::Path)));
        check(keyed, "sig1=\"https://a.example/k\";type=\"jwks_uri\"", Err(E::Syntax));
        check(keyed, "sig1=\"https://a.example/k?x\";type=jwks_uri", Err(E::Url(AgentUrlError::Query)));
        check(keyed, "sig1=\"https://a.example\";type=jwks_uri", Err(E::Url(AgentUrlError::KeySetPath)));
        check(keyed, "sig1=\"https://a.example/k\";type=cimd", Err(E::Type("cimd".into())));
        check(keyed, "sig1=https://a.example", Err(E::Syntax));
        check(keyed, "x=\"https://b.example\"", Err(E::Member("sig1".into())));
        check(keyed, "\"https://a.example\"", Err(E::Syntax));
        check(whole, "localhost", Err(E::Syntax));
        check("\"@method\"", "\"https://a.example\"", Err(E::NotCovered));
    }
}
