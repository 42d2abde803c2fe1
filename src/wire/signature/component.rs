//! Covered components (RFC 9421 §2): how each is named in a signature base, and what stands for it there.

use std::fmt::Write as _;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{HeaderMap, HeaderName};
use sfv::{BareItem, Dictionary, FieldType as _, Item, ItemSerializer, List, ListEntry, Parser};

use super::{FIELD_BYTES_MAX, RequestView, SignatureError, inner_list_text};

/// A covered component.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Component {
    /// What it is.
    pub name: ComponentName,
    /// Which part or form of a field; whole for all else.
    pub part: Part,
}

/// What of a field is covered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// All lines, as they are.
    Whole,
    /// `;sf`: all lines as the structured field that they are, strictly serialised.
    Strict,
    /// `;bs`: each line as a byte sequence.
    Bytes,
    /// `;key="sig1"`: one member of a dictionary.
    Member(String),
}

/// The name of a covered component.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ComponentName {
    /// `@method`
    Method,
    /// `@target-uri`
    TargetUri,
    /// `@authority`
    Authority,
    /// `@scheme`
    Scheme,
    /// `@path`
    Path,
    /// `@query`
    Query,
    /// `@query-param`, with the encoded name of the parameter: `fa%C3%A7ade`.
    QueryParam(String),
    /// `@request-target`
    RequestTarget,
    /// A field of the request.
    Field(HeaderName),
}

impl ComponentName {
    fn as_str(&self) -> &str {
        match self {
            ComponentName::Method => "@method",
            ComponentName::TargetUri => "@target-uri",
            ComponentName::Authority => "@authority",
            ComponentName::Scheme => "@scheme",
            ComponentName::Path => "@path",
            ComponentName::Query => "@query",
            ComponentName::QueryParam(_) => "@query-param",
            ComponentName::RequestTarget => "@request-target",
            ComponentName::Field(name) => name.as_str(),
        }
    }

    fn parse(text: &str) -> Option<ComponentName> {
        Some(match text {
            "@method" => ComponentName::Method,
            "@target-uri" => ComponentName::TargetUri,
            "@authority" => ComponentName::Authority,
            "@scheme" => ComponentName::Scheme,
            "@path" => ComponentName::Path,
            "@query" => ComponentName::Query,
            "@request-target" => ComponentName::RequestTarget,
            // Names are lower case in a base (RFC 9421 §2.1); another spelling would let two names mean one field.
            field if !field.starts_with('@') && !field.bytes().any(|b| b.is_ascii_uppercase()) => {
                ComponentName::Field(HeaderName::from_bytes(field.as_bytes()).ok()?)
            }
            _ => return None,
        })
    }
}

impl Component {
    /// A component without parameters.
    pub fn whole(name: ComponentName) -> Component {
        Component { name, part: Part::Whole }
    }

    /// An item of `Signature-Input`; `None` for what is not supported. No two parameters go together.
    pub(super) fn of(item: &Item) -> Option<Component> {
        let name = item.bare_item.as_string()?.as_str();
        let mut params = item.params.iter();
        let param = params.next().map(|(name, value)| (name.as_str(), value));
        if params.next().is_some() {
            return None;
        }
        if let ("@query-param", Some(("name", BareItem::String(param)))) = (name, param) {
            return Some(Component::whole(ComponentName::QueryParam(param.as_str().to_owned())));
        }
        let name = ComponentName::parse(name)?;
        let part = match (&name, param) {
            (_, None) => Part::Whole,
            (ComponentName::Field(_), Some(("key", BareItem::String(key)))) => Part::Member(key.as_str().to_owned()),
            (ComponentName::Field(_), Some(("sf", BareItem::Boolean(true)))) => Part::Strict,
            (ComponentName::Field(_), Some(("bs", BareItem::Boolean(true)))) => Part::Bytes,
            _ => return None,
        };
        Some(Component { name, part })
    }

    /// The identifier as the base writes it: `"signature-agent";key="sig1"`.
    pub fn identifier(&self) -> String {
        let mut text = format!("\"{}\"", self.name.as_str());
        // Structured-field keys when signing, serialised strings when verified: both escape the same way.
        let quoted = |value: &str| value.replace('\\', "\\\\").replace('"', "\\\"");
        if let ComponentName::QueryParam(name) = &self.name {
            let _ = write!(text, ";name=\"{}\"", quoted(name));
        }
        match &self.part {
            Part::Whole => {}
            Part::Strict => text.push_str(";sf"),
            Part::Bytes => text.push_str(";bs"),
            Part::Member(key) => _ = write!(text, ";key=\"{}\"", quoted(key)),
        }
        text
    }

    pub(super) fn value(&self, request: &RequestView<'_>) -> Result<String, SignatureError> {
        let path = if request.path.is_empty() { "/" } else { request.path };
        let query = || request.query.map(|q| format!("?{q}")).unwrap_or_default();
        Ok(match &self.name {
            ComponentName::Method => request.method.to_owned(),
            ComponentName::TargetUri => format!("{}://{}{path}{}", request.scheme, request.authority, query()),
            ComponentName::Authority => request.authority.to_owned(),
            ComponentName::Scheme => request.scheme.to_owned(),
            ComponentName::Path => path.to_owned(),
            ComponentName::Query => format!("?{}", request.query.unwrap_or("")),
            ComponentName::QueryParam(name) => self.parameter(request.query.unwrap_or(""), name)?,
            ComponentName::RequestTarget => format!("{path}{}", query()),
            ComponentName::Field(name) if self.part == Part::Bytes => self.bytes(request.headers, name)?,
            ComponentName::Field(name) => {
                let joined = field(request.headers, name)?.ok_or_else(|| SignatureError::Absent(self.identifier()))?;
                match &self.part {
                    Part::Member(key) => self.member(&joined, key)?,
                    Part::Strict => self.strict(&joined)?,
                    Part::Whole | Part::Bytes => joined,
                }
            }
        })
    }

    /// One dictionary member, serialised without its key (RFC 9421 §2.1.2).
    fn member(&self, joined: &str, key: &str) -> Result<String, SignatureError> {
        let absent = || SignatureError::Absent(self.identifier());
        let dictionary: Dictionary = Parser::new(joined).parse().map_err(|_| absent())?;
        Ok(match dictionary.get(key).ok_or_else(absent)? {
            ListEntry::Item(item) => {
                let serializer = ItemSerializer::new().bare_item(&item.bare_item);
                serializer.parameters(&item.params).finish()
            }
            ListEntry::InnerList(list) => inner_list_text(list),
        })
    }

    /// The strict form (§2.1.1). Which type the field is of need not be known: an item is a list of one, and what can be
    /// read as a list and as a dictionary has to be the same text in both.
    fn strict(&self, joined: &str) -> Result<String, SignatureError> {
        let list = Parser::new(joined).parse::<List>().ok().map(|list| list.serialize().unwrap_or_default());
        let dictionary = Parser::new(joined).parse::<Dictionary>().ok().map(|d| d.serialize().unwrap_or_default());
        match (list, dictionary) {
            (Some(list), Some(dictionary)) if list != dictionary => Err(SignatureError::Ambiguous(self.identifier())),
            (Some(text), _) | (None, Some(text)) => Ok(text),
            (None, None) => Err(SignatureError::Component(self.identifier())),
        }
    }

    /// Each line, trimmed, as a byte sequence (§2.1.3).
    fn bytes(&self, headers: &HeaderMap, name: &HeaderName) -> Result<String, SignatureError> {
        let lines: Vec<&[u8]> = headers.get_all(name).iter().map(|value| value.as_bytes().trim_ascii()).collect();
        if lines.is_empty() {
            return Err(SignatureError::Absent(self.identifier()));
        }
        if lines.iter().map(|line| line.len() + 2).sum::<usize>() > FIELD_BYTES_MAX {
            return Err(SignatureError::Field(name.as_str().to_owned()));
        }
        Ok(lines.iter().map(|line| format!(":{}:", STANDARD.encode(line))).collect::<Vec<_>>().join(", "))
    }

    /// The one query parameter of this name, decoded and encoded again (§2.2.8).
    fn parameter(&self, query: &str, name: &str) -> Result<String, SignatureError> {
        let ambiguous = || SignatureError::Ambiguous(self.identifier());
        let mut found = None;
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            // What is no UTF-8 would stand for the same replacement as any other.
            let key = reencoded(key).ok_or_else(ambiguous)?;
            if key != name {
                continue;
            }
            if found.replace(reencoded(value).ok_or_else(ambiguous)?).is_some() {
                return Err(ambiguous());
            }
        }
        found.ok_or_else(|| SignatureError::Absent(self.identifier()))
    }
}

/// `application/x-www-form-urlencoded`, decoded and percent-encoded: `with+plus` → `with%20plus`. `None` for what is no UTF-8.
fn reencoded(text: &str) -> Option<String> {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let hex = |at: usize| bytes.get(at).and_then(|b| char::from(*b).to_digit(16));
        match (byte, hex(at + 1), hex(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                decoded.push((high * 16 + low) as u8);
                at += 2;
            }
            (b'+', ..) => decoded.push(b' '),
            _ => decoded.push(byte),
        }
        at += 1;
    }
    std::str::from_utf8(&decoded).ok()?;
    let mut text = String::with_capacity(decoded.len());
    for byte in decoded {
        match byte {
            b'*' | b'-' | b'.' | b'_' | b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' => text.push(char::from(byte)),
            _ => _ = write!(text, "%{byte:02X}"),
        }
    }
    Some(text)
}

/// A field's lines, each trimmed, joined by `, ` (RFC 9421 §2.1); `None` when the field is absent.
///
/// # Errors
/// [`SignatureError::Field`] beyond [`FIELD_BYTES_MAX`] or outside visible ASCII.
pub fn field(headers: &HeaderMap, name: &HeaderName) -> Result<Option<String>, SignatureError> {
    let mut joined: Option<String> = None;
    for value in headers.get_all(name) {
        let bad = || SignatureError::Field(name.as_str().to_owned());
        let line = std::str::from_utf8(value.as_bytes()).map_err(|_| bad())?.trim_matches([' ', '\t']);
        if !line.bytes().all(|b| b == b'\t' || (b' '..=b'~').contains(&b)) {
            return Err(bad());
        }
        match &mut joined {
            None => joined = Some(line.to_owned()),
            Some(text) => {
                text.push_str(", ");
                text.push_str(line);
            }
        }
        if joined.as_ref().is_some_and(|text| text.len() > FIELD_BYTES_MAX) {
            return Err(bad());
        }
    }
    Ok(joined)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(component: &str, query: Option<&str>, lines: &[&str], expect: Result<&str, SignatureError>) {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append("example-header", line.parse().unwrap());
        }
        let (method, scheme, authority, path) = ("GET", "https", "www.example.com", "/path");
        let request = RequestView { method, scheme, authority, path, query, headers: &headers };
        let item: Item = Parser::new(component).parse().unwrap();
        let component = Component::of(&item).unwrap();
        assert_eq!(component.value(&request), expect.map(str::to_owned), "{}", component.identifier());
    }

    /// The examples of RFC 9421 §2.2.8, §2.1.1 and §2.1.3.
    #[test]
    fn parts_have_the_values_of_the_specification() {
        let query = Some("param=value&foo=bar&baz=batman&qux=");
        for (name, value) in [("baz", "batman"), ("qux", ""), ("param", "value")] {
            check(&format!("\"@query-param\";name=\"{name}\""), query, &[], Ok(value));
        }
        let query =
            Some("var=this%20is%20a%20big%0Amultiline%20value&bar=with+plus+whitespace&fa%C3%A7ade%22%3A%20=something");
        for (name, value) in [
            ("var", "this%20is%20a%20big%0Amultiline%20value"),
            ("bar", "with%20plus%20whitespace"),
            ("fa%C3%A7ade%22%3A%20", "something"),
        ] {
            check(&format!("\"@query-param\";name=\"{name}\""), query, &[], Ok(value));
        }
        let dictionary = ["  a=1,    b=2;x=1;y=2,   c=(a   b   c), d"];
        check("\"example-header\";sf", None, &dictionary, Ok("a=1, b=2;x=1;y=2, c=(a b c), d"));
        for (key, value) in [("a", "1"), ("d", "?1"), ("b", "2;x=1;y=2"), ("c", "(a b c)")] {
            check(&format!("\"example-header\";key=\"{key}\""), None, &dictionary, Ok(value));
        }
        let two = ["value, with, lots", "of, commas"];
        let lines = "\"example-header\";bs";
        check(lines, None, &two, Ok(":dmFsdWUsIHdpdGgsIGxvdHM=:, :b2YsIGNvbW1hcw==:"));
        check(lines, None, &["value, with, lots, of, commas"], Ok(":dmFsdWUsIHdpdGgsIGxvdHMsIG9mLCBjb21tYXM=:"));
        check(lines, None, &[" ü "], Ok(":w7w=:"));
    }

    #[test]
    fn what_has_no_single_value_has_none() {
        let param = "\"@query-param\";name=\"a\"";
        let ambiguous = || SignatureError::Ambiguous(param.to_owned());
        check(param, Some("a=1&b=2&a=1"), &[], Err(ambiguous()));
        check(param, Some("a=1&%61=2"), &[], Err(ambiguous()));
        check(param, Some("a=%ff"), &[], Err(ambiguous()));
        check(param, Some("a=1&%ff=2"), &[], Err(ambiguous()));
        check(param, Some("A=1"), &[], Err(SignatureError::Absent(param.into())));
        check(param, None, &[], Err(SignatureError::Absent(param.into())));
        check(param, Some("a"), &[], Ok(""));
        check(param, Some("&&a=b=c&"), &[], Ok("b%3Dc"));
        check(param, Some("a=%zz%4"), &[], Ok("%25zz%254"));
        // Another spelling of the name is not that of any parameter.
        check(
            "\"@query-param\";name=\"%61\"",
            Some("a=1"),
            &[],
            Err(SignatureError::Absent("\"@query-param\";name=\"%61\"".into())),
        );
        let strict = "\"example-header\";sf";
        check(strict, None, &["a, a"], Err(SignatureError::Ambiguous(strict.into())));
        check(strict, None, &["a;x,  b"], Ok("a;x, b"));
        check(strict, None, &["\"text\""], Ok("\"text\""));
        check(strict, None, &["Tue, 20 Apr 2021 02:07:55 GMT"], Err(SignatureError::Component(strict.into())));
        check(strict, None, &[], Err(SignatureError::Absent(strict.into())));
    }

    #[test]
    fn other_parameters_and_two_of_them_are_not_supported() {
        for component in [
            "\"a\";sf=?0",
            "\"a\";sf;bs",
            "\"a\";key=\"x\";sf",
            "\"a\";bs;key=\"x\"",
            "\"a\";tr",
            "\"a\";req",
            "\"a\";key=x",
            "\"a\";name=\"x\"",
            "\"@method\";sf",
            "\"@query-param\"",
            "\"@query-param\";name=x",
            "\"@query\";name=\"x\"",
            "\"@query-param\";name=\"x\";req",
            "\"@status\"",
            "a",
        ] {
            assert_eq!(Component::of(&Parser::new(component).parse().unwrap()), None, "{component}");
        }
    }
}
