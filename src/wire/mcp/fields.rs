//! HTTP fields that repeat what an MCP body says. The body decides; a field that says otherwise is refused, since whoever
//! reads only the field would see another call.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, header};

use super::request::Message;

/// The revision from which on the fields are required.
const REQUIRED_FROM: &str = "2026-07-28";

/// Whether the request is of a revision in which fields repeat the body and results have a type.
pub fn is_typed(headers: &HeaderMap) -> bool {
    // Dates, so they compare as text.
    headers.get("mcp-protocol-version").and_then(|v| v.to_str().ok()).is_some_and(|v| v.trim() >= REQUIRED_FROM)
}

/// Checks `Mcp-Method` and `Mcp-Name` against the body.
///
/// # Errors
/// What is missing or different, in a sentence.
pub fn check(headers: &HeaderMap, message: &Message<'_>) -> Result<(), String> {
    if headers.get_all("mcp-protocol-version").iter().count() > 1 {
        return Err("`MCP-Protocol-Version` stands more than once".to_owned());
    }
    let required = is_typed(headers);
    field(headers, "mcp-method", message.method.as_deref(), required)?;
    let name = message.call.as_ref().map(|(_, name)| &**name);
    match name {
        Some(_) => field(headers, "mcp-name", name, required),
        // It may be there for methods of extensions, which have no price.
        None => Ok(()),
    }
}

fn field(headers: &HeaderMap, field: &str, said: Option<&str>, required: bool) -> Result<(), String> {
    let mut lines = headers.get_all(field).iter();
    let (line, second) = (lines.next(), lines.next());
    match (line, said) {
        _ if second.is_some() => Err(format!("`{field}` stands more than once")),
        (None, Some(_)) if required => Err(format!("`{field}` is missing")),
        (None, _) => Ok(()),
        (Some(line), Some(said)) if decoded(line.as_bytes()).as_deref() == Some(said) => Ok(()),
        (Some(_), _) => Err(format!("`{field}` is not what the body says")),
    }
}

/// A value as it is, or what `=?base64?…?=` wraps.
fn decoded(value: &[u8]) -> Option<String> {
    let bytes = match value.strip_prefix(b"=?base64?").and_then(|rest| rest.strip_suffix(b"?=")) {
        Some(wrapped) => STANDARD.decode(wrapped).ok()?,
        None => value.to_vec(),
    };
    String::from_utf8(bytes).ok()
}

/// What is wrong with the representation of a POST's body, if anything is: only plain JSON in UTF-8 is the same to every
/// reader.
///
/// # Errors
/// A sentence for the client.
pub fn representation(headers: &HeaderMap) -> Result<(), &'static str> {
    let plain = |v: &http::HeaderValue| v.as_bytes().eq_ignore_ascii_case(b"identity");
    if !headers.get_all(header::CONTENT_ENCODING).iter().all(plain) {
        return Err("send the body without `Content-Encoding`");
    }
    let mut kinds = headers.get_all(header::CONTENT_TYPE).iter();
    let (Some(kind), None) = (kinds.next().and_then(|v| v.to_str().ok()), kinds.next()) else {
        return Err("send one `Content-Type: application/json`");
    };
    let mut parts = kind.split(';').map(|part| part.trim().to_ascii_lowercase());
    if parts.next().as_deref() != Some("application/json") {
        return Err("send one `Content-Type: application/json`");
    }
    // UTF-7 and its like would be other text to a server that obeys it.
    let utf8 = ["charset=utf-8", "charset=\"utf-8\"", "charset=utf8", ""];
    if parts.any(|part| !utf8.contains(&&*part)) {
        return Err("send `Content-Type: application/json`, in UTF-8 and without other parameters");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::request::{Body, read};
    use super::*;

    fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, http::HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        headers
    }

    #[test]
    fn fields_must_say_what_the_body_says() {
        let body = |name: &str| format!(r#"{{"id":1,"method":"tools/call","params":{{"name":"{name}"}}}}"#);
        let check = |name: &str, lines: &[(&'static str, &str)]| {
            let body = body(name);
            let Ok(Body::One(message)) = read(body.as_bytes()) else { panic!() };
            super::check(&headers(lines), &message).is_ok()
        };
        let new = ("mcp-protocol-version", "2026-07-28");
        let old = ("mcp-protocol-version", "2025-06-18");
        let method = ("mcp-method", "tools/call");
        assert!(check("add", &[]) && check("add", &[old]) && check("add", &[old, method]));
        assert!(!check("add", &[new]) && !check("add", &[new, method]) && !check("add", &[new, ("mcp-name", "add")]));
        assert!(check("add", &[new, method, ("mcp-name", "add")]));
        assert!(!check("add", &[old, ("mcp-name", "echo")]) && !check("add", &[old, ("mcp-method", "tools/list")]));
        assert!(!check("add", &[new, method, ("mcp-name", "add"), ("mcp-name", "add")]));
        assert!(!check("add", &[new, method, ("mcp-name", "Add")]));
        assert!(check("größe", &[new, method, ("mcp-name", "=?base64?Z3LDtsOfZQ==?=")]));
        assert!(!check("größe", &[new, method, ("mcp-name", "=?base64?Z3LDtsOfZQ?=")]));
        assert!(!check("add", &[new, new, method, ("mcp-name", "add")]));
    }

    #[test]
    fn only_plain_json_is_read() {
        let check = |lines: &[(&'static str, &str)]| representation(&headers(lines)).is_ok();
        let json = ("content-type", "application/json");
        assert!(check(&[json]) && check(&[("content-type", "Application/JSON; charset=UTF-8")]));
        assert!(check(&[json, ("content-encoding", "identity")]));
        for wrong in [
            &[][..],
            &[json, json],
            &[json, ("content-encoding", "gzip")],
            &[json, ("content-encoding", "identity"), ("content-encoding", "br")],
            &[("content-type", "text/plain")],
            &[("content-type", "application/json; charset=utf-7")],
            &[("content-type", "application/json; charset=utf-8; charset=utf-16")],
            &[("content-type", "application/x-www-form-urlencoded")],
            &[("content-type", "multipart/form-data; boundary=a")],
        ] {
            assert!(!check(wrong), "{wrong:?}");
        }
    }
}
