//! What a server answers to a paid call, and what the gateway answers instead.
//!
//! ```text
//! success      {"id":1,"result":{…}}                                   charged, gets the receipt
//! no success   {"id":1,"error":{…}}, result.isError, result.resultType = "input_required"
//! unclear      result.task, result.resultType = "task": the content would be fetched by a method that costs nothing
//! ```

use std::ops::Range;

use serde_json::{Value, json};

use super::request::Id;
use super::scan::{self, JsonError};
use super::{Kind, PAYMENT_RESPONSE};

/// Names in a result that matter.
const RESULT: [&str; 4] = ["isError", "resultType", "task", "_meta"];

/// What a message of the server is to a paid call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Judged {
    /// Something else: a notification, a request of its own. It passes.
    NoAnswer,
    /// Not JSON (RFC 8259), or no object. Lenient readers may find an answer in it all the same, so it must not pass.
    NoJson,
    /// The call succeeded.
    Success,
    /// It did not; the client gets the answer as it is.
    Failure,
    /// The server needs more before it can answer; the client calls again.
    InputRequired,
    /// An answer that can't be told from one of these; it must not pass.
    Unclear(&'static str),
}

/// Judges a message.
pub fn judge(text: &str, id: &Id) -> Judged {
    let read = || -> Result<Judged, JsonError> {
        let whole = scan::value(text)?;
        if text[whole.clone()].starts_with('[') {
            return Ok(Judged::Unclear("it is a batch"));
        }
        let members = scan::members(text, &whole, &["id", "result", "error"])?;
        let of = |name: &str| members.iter().find(|member| member.name == name).map(|member| member.value.clone());
        let (result, error) = match (of("result"), of("error")) {
            (None, None) => return Ok(Judged::NoAnswer),
            (Some(_), Some(_)) => return Ok(Judged::Unclear("it has both `result` and `error`")),
            found => found,
        };
        let theirs = of("id").map_or("", |at| &text[at]);
        // An error about a request that the server could not read has no id.
        let is_ours = id.is(theirs) || (error.is_some() && matches!(theirs, "" | "null"));
        if !is_ours {
            return Ok(Judged::Unclear("its `id` is not the request's"));
        }
        let Some(result) = result else { return Ok(Judged::Failure) };
        if !text[result.clone()].starts_with('{') {
            return Ok(Judged::Unclear("its `result` is no object"));
        }
        let members = scan::members(text, &result, &RESULT)?;
        // The receipt goes in there.
        if let Some(meta) = members.iter().find(|member| member.name == "_meta")
            && text[meta.value.clone()].starts_with('{')
        {
            scan::members(text, &meta.value, &[PAYMENT_RESPONSE])?;
        }
        let of = |name: &str| members.iter().find(|member| member.name == name).map(|m| &text[m.value.clone()]);
        let kind = of("resultType").and_then(scan::unquoted);
        if kind.as_deref() == Some("task") || of("task").is_some_and(|task| task.starts_with('{')) {
            return Ok(Judged::Unclear("it is a task, whose result could be fetched unpaid"));
        }
        Ok(match (of("isError"), kind.as_deref()) {
            (Some("true"), _) => Judged::Failure,
            (_, Some("input_required")) => Judged::InputRequired,
            _ => Judged::Success,
        })
    };
    match read() {
        Ok(judged) => judged,
        Err(JsonError::Syntax(_)) => Judged::NoJson,
        Err(_) => Judged::Unclear("it can't be read in one way only"),
    }
}

/// The answer with this receipt (JSON) in `result._meta`, everything else byte for byte; `None` for what is no answer
/// with a result.
pub fn with_receipt(text: &str, receipt: &str) -> Option<String> {
    let find = |object: &Range<usize>, name: &str| -> Option<Option<Range<usize>>> {
        let members = scan::members(text, object, &[]).ok()?;
        Some(members.into_iter().find(|member| member.name == name).map(|member| member.value))
    };
    let whole = scan::value(text).ok()?;
    let result = find(&whole, "result")??;
    let name = Value::from(PAYMENT_RESPONSE);
    let entry = format!("{name}:{receipt}");
    let put = |at: Range<usize>, with: &str| format!("{}{with}{}", &text[..at.start], &text[at.end..]);
    let Some(meta) = find(&result, "_meta")? else {
        let comma = if is_empty(text, &result) { "" } else { "," };
        return Some(put(result.start..result.start + 1, &format!("{{\"_meta\":{{{entry}}}{comma}")));
    };
    if !text[meta.clone()].starts_with('{') {
        return Some(put(meta, &format!("{{{entry}}}")));
    }
    // What a server says about payments reaches nobody.
    if let Some(theirs) = find(&meta, PAYMENT_RESPONSE)? {
        return Some(put(theirs, receipt));
    }
    let comma = if is_empty(text, &meta) { "" } else { "," };
    Some(put(meta.start..meta.start + 1, &format!("{{{entry}{comma}")))
}

fn is_empty(text: &str, object: &Range<usize>) -> bool {
    text[object.start + 1..object.end - 1].trim().is_empty()
}

/// What a call that is to be paid gets.
#[derive(Debug, Clone, Copy)]
pub struct Offered<'a> {
    /// The call's id as it was written.
    pub id: &'a str,
    /// What was called.
    pub kind: Kind,
    /// Its name or URI.
    pub name: &'a str,
    /// x402's PaymentRequired, JSON.
    pub offer: &'a str,
    /// The payment response of a settlement that failed, JSON.
    pub receipt: Option<&'a str>,
    /// Results say of which type they are (from revision 2026-07-28).
    pub typed: bool,
    /// The offer stands in `structuredContent`, too: not where a client would hold it against the tool's output schema.
    pub structured: bool,
}

/// The result that asks for a payment: an error to clients that know nothing of payments, with the offer twice for those
/// that do. Results for prompts and resources must have members of their own besides, or client libraries refuse them.
pub fn payment_required(offered: &Offered<'_>) -> String {
    let offer: Value = serde_json::from_str(offered.offer).unwrap_or_default();
    let mut result = json!({"isError": true, "content": [{"type": "text", "text": offered.offer}]});
    if offered.structured {
        result["structuredContent"] = offer;
    }
    match offered.kind {
        Kind::Tool => {}
        Kind::Prompt => result["messages"] = json!([]),
        Kind::Resource => {
            result["contents"] = json!([{"uri": offered.name, "mimeType": "application/json", "text": offered.offer}]);
        }
    }
    if offered.typed {
        result["resultType"] = json!("complete");
    }
    if let Some(receipt) = offered.receipt.and_then(|json| serde_json::from_str::<Value>(json).ok()) {
        result["_meta"] = json!({PAYMENT_RESPONSE: receipt});
    }
    format!(r#"{{"jsonrpc":"2.0","id":{},"result":{result}}}"#, id_or_null(offered.id))
}

/// A JSON-RPC error; `id` as it was written, empty for none.
pub fn error(id: &str, code: i32, message: &str, data: &Value) -> String {
    let error = json!({"code": code, "message": message, "data": data});
    format!(r#"{{"jsonrpc":"2.0","id":{},"error":{error}}}"#, id_or_null(id))
}

fn id_or_null(id: &str) -> &str {
    if id.is_empty() { "null" } else { id }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn only_a_result_that_says_nothing_else_is_a_success() {
        let check = |text: &str, expect: Judged| assert_eq!(judge(text, &Id::Number(1)), expect, "{text}");
        check(r#"{"jsonrpc":"2.0","id":1,"result":{"content":[]}}"#, Judged::Success);
        check(r#"{"id":1.0,"result":{"isError":false,"resultType":"complete"}}"#, Judged::Success);
        check(r#"{"id":1,"result":{"isError":true}}"#, Judged::Failure);
        check(r#"{"id":1,"error":{"code":-32602}}"#, Judged::Failure);
        check(r#"{"id":null,"error":{"code":-32700}}"#, Judged::Failure);
        check(r#"{"id":1,"result":{"resultType":"input_required"}}"#, Judged::InputRequired);
        check(r#"{"id":1,"result":{"resultType":"input\u005frequired"}}"#, Judged::InputRequired);
        check(r#"{"method":"notifications/progress","params":{"result":1}}"#, Judged::NoAnswer);
        check(r#"{"id":1,"method":"sampling/createMessage"}"#, Judged::NoAnswer);
        check(r#"{"id":1,"result":{"task":"a word of the server's own"}}"#, Judged::Success);
        check("secret", Judged::NoJson);
        for unclear in [
            r#"{"id":2,"result":{}}"#,
            r#"{"id":"1","result":{}}"#,
            r#"{"result":{}}"#,
            r#"{"id":1,"result":"secret"}"#,
            r#"{"id":1,"result":{},"error":{}}"#,
            r#"{"id":1,"result":{},"result":{"isError":true}}"#,
            r#"{"id":1,"result":{"isError":true,"isError":false}}"#,
            r#"{"id":1,"Result":{}}"#,
            r#"{"id":1,"result":{"_meta":{"t":1,"t":2}}}"#,
            r#"[{"id":1,"result":{}}]"#,
            r#"{"id":1,"result":{"task":{"taskId":"a"}}}"#,
            r#"{"id":1,"result":{"isError":true,"task":{"taskId":"a"}}}"#,
            r#"{"id":1,"result":{"resultType":"task","taskId":"a"}}"#,
            r#"{"id":1,"result":{"Task":{"taskId":"a"}}}"#,
            r#"{"id":1,"result":{"IsError":true}}"#,
            r#"{"id":1,"result":{"resulttype":"input_required"}}"#,
            r#"{"id":1,"result":{"_META":{}}}"#,
            r#"{"id":1,"result":{"_meta":{"X402/payment-response":{}}}}"#,
        ] {
            assert!(matches!(judge(unclear, &Id::Number(1)), Judged::Unclear(_)), "{unclear}");
        }
    }

    #[test]
    fn the_receipt_is_merged_and_nothing_else_changes() {
        let check = |given: &str, expect: &str| assert_eq!(with_receipt(given, "{\"a\":1}").as_deref(), Some(expect));
        let ours = r#""x402/payment-response":{"a":1}"#;
        check(r#"{"id":1,"result":{}}"#, &format!(r#"{{"id":1,"result":{{"_meta":{{{ours}}}}}}}"#));
        check(r#"{"result": { "n":1.0 }}"#, &format!(r#"{{"result": {{"_meta":{{{ours}}}, "n":1.0 }}}}"#));
        check(r#"{"result":{"_meta":{"t":1}}}"#, &format!(r#"{{"result":{{"_meta":{{{ours},"t":1}}}}}}"#));
        check(r#"{"result":{"_meta":{ }}}"#, &format!(r#"{{"result":{{"_meta":{{{ours} }}}}}}"#));
        check(r#"{"result":{"_meta":null}}"#, &format!(r#"{{"result":{{"_meta":{{{ours}}}}}}}"#));
        check(
            r#"{"result":{"_meta":{"x402/payment-response":7}}}"#,
            &format!(r#"{{"result":{{"_meta":{{{ours}}}}}}}"#),
        );
        assert_eq!(with_receipt(r#"{"error":{}}"#, "{}"), None);
    }

    #[test]
    fn both_copies_of_an_offer_are_one() {
        let offer = r#"{"x402Version":2,"error":"payment_required","accepts":[]}"#;
        let offered = Offered {
            id: "\"7\"",
            kind: Kind::Tool,
            name: "add",
            offer,
            receipt: Some("{\"success\":false}"),
            typed: true,
            structured: true,
        };
        let said: Value = serde_json::from_str(&payment_required(&offered)).unwrap();
        let result = &said["result"];
        assert_eq!(
            (&said["id"], &result["isError"], &result["resultType"]),
            (&json!("7"), &json!(true), &json!("complete"))
        );
        assert_eq!(result["content"][0]["text"], result["structuredContent"].to_string());
        assert_eq!(result["_meta"][PAYMENT_RESPONSE], json!({"success": false}));
        let none: Value = serde_json::from_str(&error("", -32700, "no \"JSON\"", &Value::Null)).unwrap();
        assert_eq!((&none["id"], &none["error"]["code"]), (&Value::Null, &json!(-32700)));
    }

    proptest! {
        #[test]
        fn no_text_panics(text in r#"[{}\[\]":,a-z0-9 _/]{0,60}"#) {
            let _ = judge(&text, &Id::Number(1));
            let _ = with_receipt(&text, "{}");
        }
    }
}
