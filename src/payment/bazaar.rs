//! The x402 extension `bazaar`: how a resource is called and what it answers, for catalogues.
//!
//! Source: x402 `specs/extensions/bazaar.md`.

use serde_json::{Map, Value, json};

/// The extension's name.
pub const EXTENSION: &str = "bazaar";
/// The dialect of `schema`.
const DIALECT: &str = "https://json-schema.org/draft/2020-12/schema";

/// What the operator says about calling a route. Values are examples; their types become the schema.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Bazaar {
    /// Query parameters: `{"city": "Paris"}`.
    pub query: Option<Map<String, Value>>,
    /// The body, and what it is: `json`, `form-data` or `text`.
    pub body: Option<(&'static str, Value)>,
    /// An answer: `{"temperature": 21}`.
    pub output: Option<Value>,
}

impl Bazaar {
    /// `info` of a resource that is asked for with `method`.
    pub fn info(&self, method: &str) -> Value {
        let mut input = json!({"type": "http", "method": method});
        if let Some(query) = &self.query {
            input["queryParams"] = json!(query);
        }
        if let Some((kind, body)) = self.body.as_ref().filter(|_| takes_body(method)) {
            input["bodyType"] = json!(kind);
            input["body"] = body.clone();
        }
        let mut info = json!({ "input": input });
        if let Some(output) = &self.output {
            info["output"] = json!({"type": output_type(output), "example": output});
        }
        info
    }

    /// The extension of an offer: `info`, and the schema that it fulfils.
    pub fn extension(&self, method: &str) -> Value {
        let has_body = takes_body(method) && self.body.is_some();
        let methods: &[&str] = if takes_body(method) { &["POST", "PUT", "PATCH"] } else { &["GET", "HEAD", "DELETE"] };
        let mut properties = json!({
            "type": {"type": "string", "const": "http"},
            "method": {"type": "string", "enum": methods},
        });
        let mut required = vec!["type", "method"];
        if let Some(query) = &self.query {
            properties["queryParams"] = shape(&json!(query));
        }
        if let Some((_, body)) = self.body.as_ref().filter(|_| has_body) {
            properties["bodyType"] = json!({"type": "string", "enum": ["json", "form-data", "text"]});
            properties["body"] = shape(body);
            required.extend(["bodyType", "body"]);
        }
        let input =
            json!({"type": "object", "properties": properties, "required": required, "additionalProperties": false});
        let mut parts = json!({ "input": input });
        if let Some(output) = &self.output {
            let of_output = json!({"type": {"type": "string"}, "example": shape(output)});
            parts["output"] = json!({"type": "object", "properties": of_output, "required": ["type"]});
        }
        let schema = json!({"$schema": DIALECT, "type": "object", "properties": parts, "required": ["input"]});
        json!({"info": self.info(method), "schema": schema})
    }
}

/// Whether a method sends a body.
pub fn takes_body(method: &str) -> bool {
    matches!(method, "POST" | "PUT" | "PATCH")
}

fn output_type(output: &Value) -> &'static str {
    if output.is_string() { "text" } else { "json" }
}

/// A schema that values like this one fulfil; members of objects may be left out.
fn shape(value: &Value) -> Value {
    let kind = match value {
        Value::Null => return json!({}),
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(items) => {
            let mut schema = json!({"type": "array"});
            if let Some(first) = items.first() {
                schema["items"] = shape(first);
            }
            return schema;
        }
        Value::Object(members) => {
            let properties: Map<String, Value> =
                members.iter().map(|(name, value)| (name.clone(), shape(value))).collect();
            return json!({"type": "object", "properties": properties});
        }
    };
    json!({ "type": kind })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_get_says_its_query_and_a_post_its_body() {
        let query = json!({"city": "Paris", "days": 3}).as_object().cloned();
        let output = Some(json!({"temperature": 21, "rain": [false]}));
        let bazaar = Bazaar { query, body: Some(("json", json!({"q": "x"}))), output };
        let get = bazaar.extension("GET");
        assert_eq!(
            get["info"],
            json!({"input": {"type": "http", "method": "GET", "queryParams": {"city": "Paris", "days": 3}},
                "output": {"type": "json", "example": {"temperature": 21, "rain": [false]}}})
        );
        let query = &get["schema"]["properties"]["input"]["properties"]["queryParams"];
        assert_eq!(query["properties"], json!({"city": {"type": "string"}, "days": {"type": "number"}}));
        let post = bazaar.extension("POST");
        assert_eq!(post["info"]["input"]["body"], json!({"q": "x"}));
        assert_eq!(post["schema"]["properties"]["input"]["required"], json!(["type", "method", "bodyType", "body"]));
        let example = &post["schema"]["properties"]["output"]["properties"]["example"];
        assert_eq!(example["properties"]["rain"], json!({"type": "array", "items": {"type": "boolean"}}));
    }

    #[test]
    fn nothing_said_is_nothing_claimed() {
        let extension = Bazaar::default().extension("DELETE");
        assert_eq!(extension["info"], json!({"input": {"type": "http", "method": "DELETE"}}));
        assert_eq!(extension["schema"]["properties"]["input"]["required"], json!(["type", "method"]));
    }
}
