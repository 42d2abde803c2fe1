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
    /// The body, and what it is: `json`, `form-data` or `text`. Of a tool, the arguments.
    pub body: Option<(&'static str, Value)>,
    /// JSON Schema of a tool's arguments.
    pub input_schema: Option<Map<String, Value>>,
    /// An answer: `{"temperature": 21}`.
    pub output: Option<Value>,
}

/// How a resource is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked<'a> {
    /// By a request with this method.
    Http(&'a str),
    /// By calling this tool of an MCP server.
    Tool(&'a str),
}

impl Bazaar {
    /// `info` of a resource.
    pub fn info(&self, asked: Asked<'_>) -> Value {
        let mut info = match asked {
            Asked::Http(method) => self.http(method),
            Asked::Tool(tool) => self.tool(tool),
        };
        if let Some(output) = &self.output {
            info["output"] = json!({"type": output_type(output), "example": output});
        }
        info
    }

    fn tool(&self, tool: &str) -> Value {
        let mut input = json!({"type": "mcp", "tool": tool, "transport": "streamable-http"});
        if let Some(schema) = &self.input_schema {
            input["inputSchema"] = json!(schema);
        }
        if let Some((_, arguments)) = &self.body {
            input["example"] = arguments.clone();
        }
        json!({ "input": input })
    }

    fn http(&self, method: &str) -> Value {
        let mut input = json!({"type": "http", "method": method});
        if let Some(query) = &self.query {
            input["queryParams"] = json!(query);
        }
        if let Some((kind, body)) = self.body.as_ref().filter(|_| takes_body(method)) {
            input["bodyType"] = json!(kind);
            input["body"] = body.clone();
        }
        json!({ "input": input })
    }

    /// The extension of an offer: `info`, and the schema that it fulfils. `None` for a tool whose arguments have no schema,
    /// which catalogues require.
    pub fn extension(&self, asked: Asked<'_>) -> Option<Value> {
        let input = match asked {
            Asked::Http(method) => self.http_schema(method),
            Asked::Tool(_) => self.input_schema.as_ref().map(|_| tool_schema())?,
        };
        let mut parts = json!({ "input": input });
        if let Some(output) = &self.output {
            let of_output = json!({"type": {"type": "string"}, "example": shape(output)});
            parts["output"] = json!({"type": "object", "properties": of_output, "required": ["type"]});
        }
        let schema = json!({"$schema": DIALECT, "type": "object", "properties": parts, "required": ["input"]});
        Some(json!({"info": self.info(asked), "schema": schema}))
    }

    fn http_schema(&self, method: &str) -> Value {
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
        json!({"type": "object", "properties": properties, "required": required, "additionalProperties": false})
    }
}

fn tool_schema() -> Value {
    let properties = json!({
        "type": {"type": "string", "const": "mcp"},
        "tool": {"type": "string"},
        "transport": {"type": "string", "enum": ["streamable-http", "sse"]},
        "inputSchema": {"type": "object"},
        "example": {"type": "object"},
    });
    json!({"type": "object", "properties": properties, "required": ["type", "tool", "inputSchema"],
        "additionalProperties": false})
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
        let bazaar = Bazaar { query, body: Some(("json", json!({"q": "x"}))), output, input_schema: None };
        let get = bazaar.extension(Asked::Http("GET")).unwrap();
        assert_eq!(
            get["info"],
            json!({"input": {"type": "http", "method": "GET", "queryParams": {"city": "Paris", "days": 3}},
                "output": {"type": "json", "example": {"temperature": 21, "rain": [false]}}})
        );
        let query = &get["schema"]["properties"]["input"]["properties"]["queryParams"];
        assert_eq!(query["properties"], json!({"city": {"type": "string"}, "days": {"type": "number"}}));
        let post = bazaar.extension(Asked::Http("POST")).unwrap();
        assert_eq!(post["info"]["input"]["body"], json!({"q": "x"}));
        assert_eq!(post["schema"]["properties"]["input"]["required"], json!(["type", "method", "bodyType", "body"]));
        let example = &post["schema"]["properties"]["output"]["properties"]["example"];
        assert_eq!(example["properties"]["rain"], json!({"type": "array", "items": {"type": "boolean"}}));
    }

    #[test]
    fn a_tool_says_its_arguments_or_is_not_catalogued() {
        assert_eq!(Bazaar::default().extension(Asked::Tool("add")), None);
        let schema = json!({"type": "object"}).as_object().cloned();
        let bazaar = Bazaar { input_schema: schema, body: Some(("json", json!({"a": 1}))), ..Bazaar::default() };
        let extension = bazaar.extension(Asked::Tool("add")).unwrap();
        assert_eq!(
            extension["info"]["input"],
            json!({"type": "mcp", "tool": "add", "transport": "streamable-http", "inputSchema": {"type": "object"},
                "example": {"a": 1}})
        );
        assert_eq!(extension["schema"]["properties"]["input"]["required"], json!(["type", "tool", "inputSchema"]));
    }

    #[test]
    fn nothing_said_is_nothing_claimed() {
        let extension = Bazaar::default().extension(Asked::Http("DELETE")).unwrap();
        assert_eq!(extension["info"], json!({"input": {"type": "http", "method": "DELETE"}}));
        assert_eq!(extension["schema"]["properties"]["input"]["required"], json!(["type", "method"]));
    }
}
