//! What a gateway sells, as a list for machines: made from the table that makes the offers, so that both agree.
//!
//! | document | path | source |
//! |---|---|---|
//! | manifest | `/.well-known/x402`, `/.well-known/x402.json` | a draft of the x402 foundation; advisory |
//! | list | `/discovery/resources?type&limit&offset` | x402 `specs/x402-specification-v2.md` §8.1 |

use serde_json::{Value, json};

use super::bazaar::{Asked, Bazaar};
use super::pieces::{Filling, Hole, Holes, Pieces};

/// Entries of a page of the list, unless the client says how many.
const LIMIT: usize = 20;
/// Most entries of a page.
const LIMIT_MAX: usize = 100;

/// A priced route, as it is listed.
#[derive(Debug, Clone)]
pub struct Listing<'a> {
    /// Its host, `example.com` or `*.example.com`; none for all.
    pub host: Option<&'a str>,
    /// `/articles/*`, `/users/{id}`
    pub path: &'a str,
    /// Upper case; empty for all.
    pub methods: &'a [String],
    /// At an MCP server, the tool.
    pub tool: Option<&'a str>,
    /// What is sold.
    pub description: Option<&'a str>,
    /// `text/html`
    pub mime_type: Option<&'a str>,
    /// How it is asked for.
    pub bazaar: Option<&'a Bazaar>,
    /// Entries of its offer, without ids.
    pub accepts: Vec<&'a Value>,
}

/// All that is listed.
#[derive(Debug, Default)]
pub struct Catalogue {
    items: Vec<Item>,
    /// When prices were loaded, Unix seconds.
    updated: u64,
}

/// A listing for one method, in both forms; what is missing is `https://host` in front of its path.
#[derive(Debug)]
struct Item {
    host: Option<String>,
    /// `http` or `mcp`
    kind: &'static str,
    in_manifest: Pieces,
    in_list: Pieces,
}

/// Which entries of the list are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Page {
    limit: usize,
    offset: usize,
    only: Only,
}

/// Of which kind entries are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Only {
    Any,
    Http,
    Mcp,
    /// Of a kind that is not sold here.
    None,
}

impl Only {
    fn takes(self, kind: &str) -> bool {
        match self {
            Only::Any => true,
            Only::Http => kind == "http",
            Only::Mcp => kind == "mcp",
            Only::None => false,
        }
    }
}

impl Page {
    /// Reads `type=http&limit=20&offset=0`; other parameters are ignored.
    ///
    /// # Errors
    /// Which parameter is wrong, and what it may be.
    pub fn parse(query: &str) -> Result<Page, String> {
        let mut page = Page { limit: LIMIT, offset: 0, only: Only::Any };
        let number = |name: &str, value: &str, least: usize, most: usize| {
            let number = value.parse().ok().filter(|n| (least..=most).contains(n));
            number.ok_or_else(|| format!("`{name}` is a whole number from {least} to {most}"))
        };
        for (name, value) in query.split('&').filter_map(|pair| pair.split_once('=')) {
            match name {
                "limit" => page.limit = number(name, value, 1, LIMIT_MAX)?,
                "offset" => page.offset = number(name, value, 0, 1_000_000_000)?,
                "type" => {
                    page.only = match value {
                        "" => Only::Any,
                        "http" => Only::Http,
                        "mcp" => Only::Mcp,
                        _ => Only::None,
                    }
                }
                _ => {}
            }
        }
        Ok(page)
    }
}

impl Catalogue {
    /// Lists these, prices as of `updated` (Unix seconds). What no x402 v2 client could pay is left out.
    pub fn new(listings: &[Listing<'_>], updated: u64) -> Catalogue {
        let payable = listings.iter().filter(|listing| !listing.accepts.is_empty());
        Catalogue { items: payable.flat_map(|listing| listing.items(updated)).collect(), updated }
    }

    /// The manifest of a host, reached under `base`: `https://example.com`.
    pub fn manifest(&self, host: &str, base: &str) -> String {
        let mut text = format!(r#"{{"x402Version":2,"lastUpdated":{},"items":["#, self.updated);
        join(&mut text, self.of(host).map(|item| item.in_manifest.fill(&at(base))));
        text.push_str("]}");
        text
    }

    /// A page of the list of a host.
    pub fn list(&self, host: &str, base: &str, page: Page) -> String {
        let wanted = || self.of(host).filter(|item| page.only.takes(item.kind));
        let (total, shown) = (wanted().count(), wanted().skip(page.offset).take(page.limit));
        let mut text = r#"{"x402Version":2,"items":["#.to_owned();
        join(&mut text, shown.map(|item| item.in_list.fill(&at(base))));
        let pagination = json!({"limit": page.limit, "offset": page.offset, "total": total});
        text.push_str(&format!(r#"],"pagination":{pagination}}}"#));
        text
    }

    fn of<'c>(&'c self, host: &'c str) -> impl Iterator<Item = &'c Item> {
        self.items.iter().filter(move |item| match item.host.as_deref() {
            None => true,
            Some(pattern) => match pattern.strip_prefix('*') {
                Some(below) => host.len() > below.len() && host.ends_with(below),
                None => host == pattern,
            },
        })
    }
}

impl Listing<'_> {
    /// The method that an example shows.
    pub fn method(&self) -> &str {
        let first = self.methods.iter().find(|method| *method != "HEAD");
        match first {
            Some(method) => method,
            None if self.bazaar.is_some_and(|bazaar| bazaar.body.is_some()) => "POST",
            None => "GET",
        }
    }

    /// How it is asked for.
    pub fn asked(&self) -> Asked<'_> {
        self.tool.map_or_else(|| Asked::Http(self.method()), Asked::Tool)
    }

    fn items(&self, updated: u64) -> Vec<Item> {
        if self.tool.is_some() {
            return vec![self.item(self.asked(), updated)];
        }
        let named = self.methods.iter().map(String::as_str).filter(|method| *method != "HEAD");
        let methods: Vec<&str> = if self.methods.is_empty() { vec![self.method()] } else { named.collect() };
        methods.into_iter().map(|method| self.item(Asked::Http(method), updated)).collect()
    }

    fn item(&self, asked: Asked<'_>, updated: u64) -> Item {
        let kind = if self.tool.is_some() { "mcp" } else { "http" };
        let template = template_of(self.path);
        let accepts = json!(self.accepts);
        let given = self.bazaar.cloned().unwrap_or_default().info(asked);
        let texts = [accepts.to_string(), given.to_string(), template.clone()];
        let described = self.description.into_iter().chain(self.mime_type);
        let holes = Holes::new(texts.iter().map(String::as_str).chain(described), 0);
        let url = format!("{}{template}", holes.of(Hole::Resource));
        let mut metadata = given.clone();
        let mut resource = json!({"url": url});
        for (name, value) in [("description", self.description), ("mimeType", self.mime_type)] {
            if let Some(value) = value {
                resource[name] = json!(value);
                metadata[name] = json!(value);
            }
        }
        let mut input = given["input"].clone();
        if template != self.path || self.path.ends_with('*') {
            input["routeTemplate"] = json!(template);
        }
        let mut manifest = json!({"resource": resource, "type": kind, "accepts": accepts, "input": input});
        if let Some(output) = given.get("output") {
            manifest["output"] = output.clone();
        }
        let list = json!({"resource": url, "type": kind, "x402Version": 2, "accepts": accepts,
            "lastUpdated": updated, "metadata": metadata});
        Item { host: self.host.map(str::to_owned), kind, in_manifest: holes.cut(&manifest), in_list: holes.cut(&list) }
    }
}

/// `/users/{id}/*` as catalogues write it: `/users/:id/*`.
fn template_of(path: &str) -> String {
    path.replace('{', ":").replace('}', "")
}

fn at(base: &str) -> Filling<'_> {
    Filling { resource: base, ids: &[], signed: &[], error: "", message: "" }
}

fn join(text: &mut String, items: impl Iterator<Item = String>) {
    for (i, item) in items.enumerate() {
        if i > 0 {
            text.push(',');
        }
        text.push_str(&item);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn catalogue(entry: &Value) -> Catalogue {
        let methods = ["GET".to_owned(), "HEAD".to_owned(), "POST".to_owned()];
        let query = json!({"city": "@<Resource>@"}).as_object().cloned();
        let bazaar = Bazaar { query, ..Bazaar::default() };
        let base = Listing {
            host: None,
            path: "/a",
            methods: &[],
            tool: None,
            description: Some("An article"),
            mime_type: None,
            bazaar: None,
            accepts: vec![entry],
        };
        let listings = [
            base.clone(),
            Listing { host: Some("b.example"), path: "/users/{id}/*", methods: &methods, ..base.clone() },
            Listing { host: Some("*.c.example"), bazaar: Some(&bazaar), ..base.clone() },
            Listing { host: Some("mcp.example"), path: "/mcp", tool: Some("add"), ..base.clone() },
            // Crawlers alone could pay for it.
            Listing { path: "/crawl", accepts: Vec::new(), ..base },
        ];
        Catalogue::new(&listings, 1_700_000_000)
    }

    fn json_of(text: &str) -> Value {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn a_host_lists_what_it_sells_and_nothing_of_others() {
        let entry = json!({"scheme": "exact", "amount": "10000"});
        let catalogue = catalogue(&entry);
        let urls = |host: &str| -> Vec<String> {
            let manifest = json_of(&catalogue.manifest(host, "https://h"));
            let items = manifest["items"].as_array().unwrap().iter();
            items
                .map(|i| {
                    format!("{} {}", i["input"]["method"].as_str().unwrap(), i["resource"]["url"].as_str().unwrap())
                })
                .collect()
        };
        assert_eq!(urls("other.example"), ["GET https://h/a"]);
        assert_eq!(urls("b.example"), ["GET https://h/a", "GET https://h/users/:id/*", "POST https://h/users/:id/*"]);
        assert_eq!(urls("x.c.example").len(), 2);
        assert_eq!(urls("c.example").len(), 1);
        let tools = json_of(&catalogue.list("mcp.example", "https://h", Page::parse("type=mcp").unwrap()));
        assert_eq!(tools["pagination"]["total"], 1);
        assert_eq!(
            (&tools["items"][0]["type"], &tools["items"][0]["metadata"]["input"]["tool"]),
            (&json!("mcp"), &json!("add"))
        );
        let manifest = json_of(&catalogue.manifest("x.c.example", "https://h"));
        assert_eq!(
            manifest["items"][1],
            json!({"resource": {"url": "https://h/a", "description": "An article"}, "type": "http", "accepts": [entry],
                "input": {"type": "http", "method": "GET", "queryParams": {"city": "@<Resource>@"}}})
        );
        assert_eq!((&manifest["x402Version"], &manifest["lastUpdated"]), (&json!(2), &json!(1_700_000_000)));
    }

    #[test]
    fn the_list_comes_in_pages() {
        let entry = json!({"scheme": "exact"});
        let catalogue = catalogue(&entry);
        let list = |query: &str| json_of(&catalogue.list("b.example", "http://h:1", Page::parse(query).unwrap()));
        let all = list("");
        assert_eq!(all["pagination"], json!({"limit": 20, "offset": 0, "total": 3}));
        assert_eq!(all["items"].as_array().unwrap().len(), 3);
        let second = list("limit=1&offset=1&unknown=x");
        assert_eq!(second["items"].as_array().unwrap().len(), 1);
        assert_eq!(second["items"][0], all["items"][1]);
        assert_eq!(second["items"][0]["resource"], "http://h:1/users/:id/*");
        assert_eq!(list("offset=9")["items"], json!([]));
        assert_eq!(list("type=mcp")["pagination"]["total"], 0);
        for bad in ["limit=0", "limit=101", "limit=x", "offset=-1", "offset=99999999999999999999"] {
            assert!(Page::parse(bad).is_err(), "{bad}");
        }
    }
}
