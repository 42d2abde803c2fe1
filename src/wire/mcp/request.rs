//! What a POST to an MCP server says: one message or a batch, what it calls, and the payment in it.

use std::borrow::Cow;
use std::ops::Range;

use super::scan::{self, JsonError, Member};
use super::{INVALID_PARAMS, INVALID_REQUEST, Kind, PARSE_ERROR, PAYMENT};

/// Names at a message's top that matter.
const TOP: [&str; 4] = ["jsonrpc", "id", "method", "params"];
/// Names in `params` that matter.
const PARAMS: [&str; 4] = ["name", "uri", "_meta", TASK];
/// The member of `params` by which a call is to run as a task (revision 2025-11-25).
const TASK: &str = "task";
/// Longest id of a paid call, bytes.
const ID_BYTES_MAX: usize = 256;
/// Greatest number that JavaScript tells from its neighbours.
const SAFE_INTEGER: u64 = (1 << 53) - 1;

/// A POST's body.
#[derive(Debug)]
pub enum Body<'t> {
    /// One message.
    One(Message<'t>),
    /// An array of them, which only revision 2025-03-26 knows.
    Batch(Vec<Message<'t>>),
}

/// A request, a notification or a response.
#[derive(Debug)]
pub struct Message<'t> {
    text: &'t str,
    /// What the message is told by; [`Id::None`] for notifications.
    pub id: Id,
    /// The id as it was written; empty where there is none.
    pub id_text: &'t str,
    /// `tools/call`; `None` for responses.
    pub method: Option<Cow<'t, str>>,
    /// What it calls, where that may have a price.
    pub call: Option<(Kind, Cow<'t, str>)>,
    /// `params._meta["x402/payment"]`, JSON.
    pub payment: Option<&'t str>,
    /// What is cut out so that the payment does not travel on.
    cut: Range<usize>,
    /// The members of `params`.
    params: Vec<Member<'t>>,
}

/// A request's id, as far as it can be told from others by every reader.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Id {
    /// Absent: nobody answers.
    None,
    /// `"a"`
    Text(String),
    /// `1`
    Number(i64),
    /// Null, a fraction, a number or text too large: not for paid calls.
    Other,
}

impl Id {
    fn read(json: &str) -> Id {
        match scan::unquoted(json) {
            Some(text) if text.len() <= ID_BYTES_MAX => Id::Text(text.into_owned()),
            Some(_) => Id::Other,
            None => match json.parse::<i64>() {
                Ok(number) if number.unsigned_abs() <= SAFE_INTEGER => Id::Number(number),
                _ => Id::Other,
            },
        }
    }

    /// Whether an answer's id, as it is written there, is this one. Servers may write 1 as 1.0.
    pub fn is(&self, json: &str) -> bool {
        match self {
            Id::Text(text) => scan::unquoted(json).is_some_and(|theirs| theirs == text.as_str()),
            Id::Number(number) => json.parse::<f64>().is_ok_and(|theirs| theirs == *number as f64),
            Id::None | Id::Other => false,
        }
    }
}

/// Why a body is no message that is taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// Not UTF-8, which JSON is (RFC 8259 §8.1).
    #[error("the body is not UTF-8")]
    Utf8,
    /// Not JSON, or JSON that can be read in two ways.
    #[error("the body can't be read in one way only: {0}")]
    Json(#[from] JsonError),
    /// Neither an object nor an array of objects.
    #[error("a message must be a JSON object")]
    NoObject,
    /// `method` is no text.
    #[error("`method` must be a text")]
    Method,
    /// A call that names nothing.
    #[error("`params.{0}` must be a text")]
    Params(&'static str),
    /// `params._meta` is no object.
    #[error("`params._meta` must be an object")]
    Meta,
}

impl ReadError {
    /// JSON-RPC's code.
    pub fn code(&self) -> i32 {
        match self {
            ReadError::Utf8 | ReadError::Json(JsonError::Syntax(_)) => PARSE_ERROR,
            ReadError::Json(_) | ReadError::NoObject | ReadError::Method => INVALID_REQUEST,
            ReadError::Params(_) | ReadError::Meta => INVALID_PARAMS,
        }
    }
}

/// Reads a body.
///
/// # Errors
/// [`ReadError`]: what this reader can't read in one way only does not go on to a server that may read it in another.
pub fn read(body: &[u8]) -> Result<Body<'_>, ReadError> {
    let text = std::str::from_utf8(body).map_err(|_| ReadError::Utf8)?;
    let whole = scan::value(text)?;
    match text.as_bytes()[whole.start] {
        b'{' => Message::read(text, &whole).map(Body::One),
        b'[' => {
            let elements = scan::elements(text, &whole)?;
            elements.iter().map(|at| Message::read(text, at)).collect::<Result<_, _>>().map(Body::Batch)
        }
        _ => Err(ReadError::NoObject),
    }
}

impl<'t> Message<'t> {
    fn read(text: &'t str, at: &Range<usize>) -> Result<Message<'t>, ReadError> {
        if !text[at.clone()].starts_with('{') {
            return Err(ReadError::NoObject);
        }
        let of = |members: &[Member<'t>], name: &str| {
            members.iter().find(|member| member.name == name).map(|member| member.value.clone())
        };
        let top = scan::members(text, at, &TOP)?;
        let id = of(&top, "id");
        let id_text = id.map_or("", |at| &text[at]);
        let method = match of(&top, "method") {
            Some(at) => Some(scan::unquoted(&text[at]).ok_or(ReadError::Method)?),
            None => None,
        };
        let params = of(&top, "params").filter(|at| text[at.clone()].starts_with('{'));
        let params = match params {
            Some(at) => scan::members(text, &at, &PARAMS)?,
            None => Vec::new(),
        };
        let call = match method.as_deref().and_then(Kind::of_method) {
            Some(kind) => {
                let name = of(&params, kind.member()).and_then(|at| scan::unquoted(&text[at]));
                Some((kind, name.ok_or(ReadError::Params(kind.member()))?))
            }
            None => None,
        };
        let (mut payment, mut cut) = (None, 0..0);
        if let Some(meta) = of(&params, "_meta").filter(|at| &text[at.clone()] != "null") {
            if !text[meta.clone()].starts_with('{') {
                return Err(ReadError::Meta);
            }
            let members = scan::members(text, &meta, &[PAYMENT])?;
            if let Some(i) = members.iter().position(|member| member.name == PAYMENT) {
                let value = members[i].value.clone();
                cut = match (i.checked_sub(1).map(|i| &members[i]), members.get(i + 1)) {
                    (Some(before), _) => before.value.end..value.end,
                    (None, Some(after)) => members[i].from..after.from,
                    (None, None) => members[i].from..value.end,
                };
                payment = Some(&text[value]).filter(|json| *json != "null");
            }
        }
        let id = if id_text.is_empty() { Id::None } else { Id::read(id_text) };
        Ok(Message { text, id, id_text, method, call, payment, cut, params })
    }

    /// The body as the server gets it: without the payment, otherwise byte for byte.
    pub fn forwarded(&self) -> Vec<u8> {
        let text = self.text.as_bytes();
        [&text[..self.cut.start], &text[self.cut.end..]].concat()
    }

    /// Whether something is cut out.
    pub fn is_cut(&self) -> bool {
        !self.cut.is_empty()
    }

    /// Whether the call is to run as a task, whose result is fetched by another method.
    pub fn asks_for_task(&self) -> bool {
        self.params.iter().any(|member| member.name == TASK)
    }

    /// What makes a second call the same as the first: everything in `params` but `_meta`, as it is written.
    pub fn bought(&self) -> Vec<&'t [u8]> {
        let members = self.params.iter().filter(|member| member.name != "_meta");
        members.map(|member| &self.text.as_bytes()[member.from..member.value.end]).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    fn one(text: &str) -> Message<'_> {
        match read(text.as_bytes()) {
            Ok(Body::One(message)) => message,
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn calls_are_told_from_everything_else() {
        let call = |text: &str| one(text).call.map(|(kind, name)| format!("{}/{name}", kind.word()));
        assert_eq!(call(r#"{"id":1,"method":"tools/call","params":{"name":"add"}}"#).as_deref(), Some("tool/add"));
        assert_eq!(
            call(r#"{"id":1,"m\u0065thod":"tools\/call","params":{"\u006eame":"\u0061dd"}}"#).as_deref(),
            Some("tool/add")
        );
        assert_eq!(
            call(r#"{"id":1,"method":"resources/read","params":{"uri":"memo://a"}}"#).as_deref(),
            Some("resource/memo://a")
        );
        assert_eq!(call(r#"{"id":1,"method":"prompts/get","params":{"name":"p"}}"#).as_deref(), Some("prompt/p"));
        for text in [
            r#"{"id":1,"method":"tools/list"}"#,
            r#"{"method":"notifications/initialized","params":[1]}"#,
            r#"{"id":1,"result":{"name":"add"}}"#,
            r#"{"id":1,"method":"Tools/call","params":{"name":"add"}}"#,
        ] {
            assert_eq!(call(text), None, "{text}");
        }
        assert!(
            matches!(read(br#"[{"id":1,"method":"ping"},{"method":"a"}]"#), Ok(Body::Batch(two)) if two.len() == 2)
        );
    }

    #[test]
    fn what_servers_may_read_differently_is_refused() {
        for (text, code) in [
            ("", PARSE_ERROR),
            ("\u{feff}{}", PARSE_ERROR),
            ("{'id':1}", PARSE_ERROR),
            ("1", INVALID_REQUEST),
            ("[1]", INVALID_REQUEST),
            (r#"{"method":1}"#, INVALID_REQUEST),
            (r#"{"method":"tools/list","method":"tools/call"}"#, INVALID_REQUEST),
            (r#"{"method":"tools/list","\u006dethod":"tools/call"}"#, INVALID_REQUEST),
            (r#"{"method":"tools/list","Method":"tools/call","params":{"name":"add"}}"#, INVALID_REQUEST),
            (r#"{"method":"tools/call","params":{"name":"a","\u006eame":"b"}}"#, INVALID_REQUEST),
            (r#"{"method":"tools/call","params":{"name":"a","NAME":"b"}}"#, INVALID_REQUEST),
            (r#"{"method":"tools/call","params":{"name":"a"},"params":{"name":"b"}}"#, INVALID_REQUEST),
            (r#"{"method":"tools/call","params":{"name":"a","Task":{}}}"#, INVALID_REQUEST),
            (r#"{"method":"tools/call","params":{"name":"a","_meta":{},"_meta":{}}}"#, INVALID_REQUEST),
            (
                r#"{"method":"tools/call","params":{"name":"a","_meta":{"x402/payment":{},"x402\/payment":{}}}}"#,
                INVALID_REQUEST,
            ),
            (r#"{"id":1,"id":2,"method":"tools/call","params":{"name":"a"}}"#, INVALID_REQUEST),
            (r#"{"method":"tools/call"}"#, INVALID_PARAMS),
            (r#"{"method":"tools/call","params":["add"]}"#, INVALID_PARAMS),
            (r#"{"method":"tools/call","params":{"name":7}}"#, INVALID_PARAMS),
            (r#"{"method":"tools/call","params":{"name":"\ud800"}}"#, INVALID_PARAMS),
            (r#"{"method":"tools/call","params":{"name":"a","_meta":[]}}"#, INVALID_PARAMS),
        ] {
            assert_eq!(read(text.as_bytes()).map_err(|e| e.code()).err(), Some(code), "{text}");
        }
        assert_eq!(read(b"\"\xff\"").err(), Some(ReadError::Utf8));
        let utf16: Vec<u8> = "{}".encode_utf16().flat_map(u16::to_le_bytes).collect();
        assert!(read(&utf16).is_err());
    }

    #[test]
    fn ids_keep_their_type() {
        let id = |json: &str| one(&format!(r#"{{"id":{json},"method":"ping"}}"#)).id;
        assert_eq!(id("1"), Id::Number(1));
        assert_eq!(id("\"1\""), Id::Text("1".into()));
        assert!(id("1").is("1") && id("1").is("1.0") && !id("1").is("\"1\"") && !id("1").is("2"));
        assert!(id("\"\\u0061\"").is("\"a\"") && !id("\"1\"").is("1"));
        for odd in ["null", "1.5", "9007199254740993", "-9223372036854775808", "1e999", "true", "{}"] {
            assert_eq!(id(odd), Id::Other, "{odd}");
            assert!(!id(odd).is(odd));
        }
        assert_eq!(id(&format!("\"{}\"", "a".repeat(257))), Id::Other);
        assert_eq!(one(r#"{"method":"ping"}"#).id, Id::None);
    }

    #[test]
    fn the_payment_is_cut_out_and_nothing_else() {
        let check = |meta: &str, left: &str| {
            let text =
                format!(r#"{{ "id":1e0,"method":"tools/call","params":{{"name":"a","x":1.10,"_meta":{meta}}} }}"#);
            let message = one(&text);
            assert_eq!(message.payment, Some("{\"a\":[1]}"), "{meta}");
            assert_eq!(String::from_utf8(message.forwarded()).unwrap(), text.replace(meta, left));
        };
        check(r#"{"x402/payment":{"a":[1]}}"#, "{}");
        check(r#"{ "x402/payment" : {"a":[1]} }"#, "{  }");
        check(r#"{"x402/payment":{"a":[1]}, "b":2}"#, r#"{"b":2}"#);
        check(r#"{"b":2 , "\u0078402/payment":{"a":[1]}}"#, r#"{"b":2}"#);
        check(r#"{"b":2,"x402/payment":{"a":[1]},"c":3}"#, r#"{"b":2,"c":3}"#);
        let null = one(r#"{"id":1,"method":"ping","params":{"_meta":{"x402/payment":null}}}"#);
        assert_eq!((null.payment, null.is_cut()), (None, true));
    }

    #[test]
    fn the_same_call_is_known_under_another_id_and_meta() {
        let bought = |text: &str| one(text).bought().concat();
        let first =
            bought(r#"{"id":1,"method":"tools/call","params":{"name":"a","arguments":{"n":1},"_meta":{"t":1}}}"#);
        let again = bought(r#"{"id":2,"method":"tools/call","params":{"name":"a","arguments":{"n":1}}}"#);
        let other = bought(r#"{"id":1,"method":"tools/call","params":{"name":"a","arguments":{"n":2}}}"#);
        assert!(first == again && first != other);
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            ".{0,8}".prop_map(Value::from)
        ];
        leaf.prop_recursive(3, 16, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map("[a-w]{1,4}", inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect()))
            ]
        })
    }

    proptest! {
        #[test]
        fn cutting_leaves_equal_json(
            arguments in any_json(), payment in any_json(), before in any_json(), after in any_json(), pretty: bool
        ) {
            let whole = json!({"jsonrpc": "2.0", "id": "1", "method": "tools/call", "params": {"name": "a",
                "_meta": {"before": before, "x402/payment": payment, "zafter": after}, "arguments": arguments}});
            let text = if pretty { serde_json::to_string_pretty(&whole).unwrap() } else { whole.to_string() };
            let mut expected: Value = serde_json::from_str(&text).unwrap();
            let meta = expected["params"]["_meta"].as_object_mut().unwrap();
            let payment = meta.shift_remove("x402/payment").unwrap();
            let message = one(&text);
            prop_assert_eq!(serde_json::from_slice::<Value>(&message.forwarded()).unwrap(), expected);
            let read = message.payment.map_or(Value::Null, |json| serde_json::from_str(json).unwrap());
            prop_assert_eq!(read, payment);
        }

        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = read(&bytes);
        }
    }
}
