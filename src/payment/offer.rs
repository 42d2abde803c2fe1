//! Offers: prepared once per route, completed per request with the resource, fresh ids and the reason.
//!
//! Each client must find what it can parse, and official clients refuse a whole list for one entry that they do not know:
//!
//! | part of the 402 | read by | holds |
//! |---|---|---|
//! | `PAYMENT-REQUIRED` | x402 v2 | all entries that v2 can express, `extra` |
//! | its `extensions` | v2 that signs | how to sign, for `batch-settlement` |
//! | `crawler-price` | crawlers | the price |
//! | JSON body | x402 v1 | `exact` alone, as v1 has it |
//! | JSON body | signing agents | `deferred` as the proposal has it, `extras`; where nothing else is offered, or the client shows that it signs |
//! | text body | people | the price, where only crawlers can pay |

use std::sync::{Arc, OnceLock};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::HeaderValue;
use serde_json::{Value, json};

use super::batch::{self, BatchTerms};
use super::bazaar::{self, Asked, Bazaar};
use super::crawl;
use super::deferred;
use super::gateway_key::GatewayKey;
use super::identifier::{self, Mode};
use super::offer_receipt::{self, Offered};
use super::pass::PassTerms;
use super::pieces::{Filling, Hole, Holes, Pieces};
use super::signed::{Cover, Rules};
use super::terms::{PUBLIC, Template, Term};
use super::token::{OfferId, Token};
use super::upto;
use crate::wire::amount::{Money, Units, WireAmount};
use crate::wire::x402::requirements::ResourceInfo;

/// Most bytes that all the fields of an offer may take: Node's clients break at 16 KiB, proxies at 8.
pub const FIELD_BYTES_MAX: usize = 8 * 1024 - 1024;

/// What the operator says about deferred payments.
#[derive(Debug, Clone)]
pub struct DeferredTerms {
    /// `tollgate:deferred`
    pub network: String,
    /// `merchant`
    pub pay_to: String,
    /// Empty for none.
    pub terms_url: String,
}

/// A way to pay, with what it takes.
#[derive(Debug, Clone)]
pub enum Way {
    /// A signed commitment.
    Deferred(DeferredTerms),
    /// A token transfer.
    Exact(Arc<Token>),
    /// A token transfer of at most the price.
    Upto(Arc<Token>),
    /// A signed commitment as x402 v2 has it.
    Batch(BatchTerms),
    /// A signed price, pay per crawl; it has no entry and no id.
    Crawl,
}

/// What is sold.
#[derive(Debug, Clone, Copy, Default)]
pub struct Sold<'a> {
    /// `An article`
    pub description: Option<&'a str>,
    /// `text/html`
    pub mime_type: Option<&'a str>,
    /// How it is asked for, for catalogues.
    pub bazaar: Option<(&'a Bazaar, Asked<'a>)>,
    /// Whether payments may be named.
    pub identifier: Mode,
    /// What it is good for besides, where it is paid with a signature.
    pub pass: Option<PassTerms>,
    /// Whose price it is, where it is not for everybody: `claimed:GPTBot`.
    pub class: Option<&'a str>,
}

/// Which forms an offer has besides that of x402 v2.
#[derive(Debug, Clone, Copy, Default)]
pub struct Forms {
    /// Also for x402 v1.
    pub v1: bool,
    /// Entries are signed by the gateway's key.
    pub signed: bool,
}

/// One entry of an offer.
#[derive(Debug)]
pub struct Entry {
    /// How it is paid.
    pub way: Way,
    /// The terms that its ids commit to.
    pub term: Arc<Term>,
    /// The price in ledger units of what it is paid in.
    pub amount: Units,
}

/// The offer of one route, all but the resource, the ids and the reason.
#[derive(Debug)]
pub struct PreparedOffer {
    /// The entries, preferred first; each gets an id of its own.
    pub entries: Vec<Entry>,
    /// What it costs.
    pub price: Money,
    /// Whose price it is: [`PUBLIC`], or `claimed:GPTBot`.
    pub class: String,
    /// The price for crawlers: `USD 0.01`.
    crawl: Option<String>,
    /// For everybody.
    body: Pieces,
    /// For clients that show that they sign, where `body` has nothing for them.
    signers_body: Option<Pieces>,
    /// Absent where v2 clients could parse no entry: a network without a colon, or an asset that is no plain currency.
    field: Option<Pieces>,
    /// The same with the extensions that a payment can do without.
    rich_field: Option<Pieces>,
    /// The entries of `field`: which of `entries`, and as it stands there but for its id.
    listed: Vec<(usize, Value)>,
    /// Whether `rich_field` has room for signatures.
    signed: bool,
    /// `Accept-Signature`, once somebody was offered it.
    asked: OnceLock<Option<HeaderValue>>,
}

impl PreparedOffer {
    /// Prepares the offer of a route at `price`, in each of these ways, preferred first; `ttl` in seconds. A way that can't
    /// express the price is left out; the configuration sees to it that there is none.
    pub fn new(price: Money, ttl: u64, ways: &[Way], forms: Forms, sold: Sold<'_>) -> PreparedOffer {
        let entries: Vec<Entry> = ways.iter().filter_map(|way| Entry::new(way.clone(), price, ttl, &sold)).collect();
        let example = sold.bazaar.and_then(|(bazaar, asked)| bazaar.extension(asked));
        let example_text = example.as_ref().map(Value::to_string);
        let texts = [sold.description, sold.mime_type, sold.class, example_text.as_deref()].into_iter().flatten();
        let templates = entries.iter().map(|entry| &entry.term.template);
        let signing = entries.iter().find_map(|entry| match &entry.way {
            Way::Batch(terms) => Some(terms),
            _ => None,
        });
        let of_templates = templates.flat_map(|t| [&*t.network, &*t.pay_to, &*t.terms_url, &*t.asset]);
        let holes =
            Holes::new(texts.chain(of_templates).chain(signing.map(|terms| &*terms.registration_url)), entries.len());
        let draft = Draft { price, ttl, sold, holes: &holes };
        let deferred: Vec<Value> = draft.each(&entries, Draft::proposal);
        let old: Vec<Value> = if forms.v1 { draft.each(&entries, Draft::v1) } else { Vec::new() };
        let new: Vec<(usize, Value)> =
            entries.iter().enumerate().filter_map(|(i, entry)| Some((i, draft.v2(i, entry)?))).collect();
        let accepts: Vec<&Value> = new.iter().map(|(_, entry)| entry).collect();
        let (error, message) = (holes.of(Hole::Error), holes.of(Hole::Message));
        // A v1 client refuses a list with any entry that it does not know, and a body that says it is v1 without entries
        // is better understood than none at all.
        let v1_body = json!({"x402Version": 1, "error": error, "accepts": old, "message": message});
        let signers_body = json!({"accepts": deferred, "error": error, "message": message});
        let has_tokens = entries.iter().any(|entry| matches!(entry.way, Way::Exact(_)));
        let (body, signers_body) = match (deferred.is_empty(), has_tokens) {
            (true, _) => (v1_body, None),
            (false, false) => (signers_body, None),
            (false, true) => (v1_body, Some(signers_body)),
        };
        let mut resource = json!({"url": holes.of(Hole::Resource)});
        draft.describe(&mut resource);
        let mut field = json!({"x402Version": 2, "error": error, "resource": resource, "accepts": accepts});
        if let Some(terms) = signing {
            field["extensions"] = json!({batch::EXTENSION: terms.extension()});
        }
        if let Some(extension) = sold.identifier.extension() {
            field["extensions"][identifier::EXTENSION] = extension;
        }
        let mut rich = field.clone();
        if forms.signed {
            let places = new.iter().enumerate();
            let offers = places.map(|(at, (i, _))| offer_receipt::offer_entry(at, &holes.of(Hole::Signed(*i))));
            rich["extensions"][offer_receipt::EXTENSION] = json!({"info": {"offers": offers.collect::<Vec<_>>()}});
        }
        if let Some(example) = example {
            rich["extensions"][bazaar::EXTENSION] = example;
        }
        let is_rich = forms.signed || example_text.is_some();
        PreparedOffer {
            price,
            class: sold.class.unwrap_or(PUBLIC).to_owned(),
            crawl: ways.iter().any(|way| matches!(way, Way::Crawl)).then(|| crawl::text_of(price)),
            body: holes.cut(&body),
            signers_body: signers_body.map(|body| holes.cut(&body)),
            field: (!new.is_empty()).then(|| holes.cut(&field)),
            rich_field: (!new.is_empty() && is_rich).then(|| holes.cut(&rich)),
            listed: new.into_iter().map(|(i, entry)| (i, without_id(entry))).collect(),
            signed: forms.signed,
            asked: OnceLock::new(),
            entries,
        }
    }

    /// The 402 body: JSON, or text where it [is text](PreparedOffer::is_text). `signs` says that the client can sign its
    /// requests.
    pub fn body(&self, filling: &Filling<'_>, signs: bool) -> String {
        if let Some(price) = self.crawl.as_ref().filter(|_| self.is_text()) {
            return format!("{}\nPrice: {price}\n", filling.message);
        }
        let body = self.signers_body.as_ref().filter(|_| signs).unwrap_or(&self.body);
        body.fill(filling)
    }

    /// The value of `PAYMENT-REQUIRED`, standard base64; `None` where v2 clients could parse no entry or it would not fit.
    pub fn field(&self, filling: &Filling<'_>) -> Option<String> {
        let fits = |json: &String| json.len() * 4 / 3 <= FIELD_BYTES_MAX;
        let rich = self.rich_field.as_ref().map(|field| field.fill(filling)).filter(fits);
        let json = rich.or_else(|| Some(self.field.as_ref()?.fill(filling)).filter(fits))?;
        Some(STANDARD.encode(json))
    }

    /// The entries of `PAYMENT-REQUIRED` without their ids, for catalogues.
    pub fn accepts(&self) -> Vec<&Value> {
        self.listed.iter().map(|(_, entry)| entry).collect()
    }

    /// Each entry of `PAYMENT-REQUIRED` signed by the gateway, as [`Filling::signed`] wants them; empty unless it was
    /// [prepared](Forms::signed) for that. `now` in Unix seconds.
    pub fn sign(&self, key: &GatewayKey, authority: &str, resource: &str, now: u64) -> Vec<String> {
        if !self.signed {
            return Vec::new();
        }
        let mut signed = vec![String::new(); self.entries.len()];
        for (i, entry) in &self.listed {
            let text = |name: &str| entry[name].as_str().unwrap_or_default();
            let offered = Offered {
                scheme: text("scheme"),
                network: text("network"),
                asset: text("asset"),
                pay_to: text("payTo"),
                amount: text("amount"),
                valid_until: now + entry["maxTimeoutSeconds"].as_u64().unwrap_or_default(),
            };
            signed[*i] = offered.sign(key, authority, resource);
        }
        signed
    }

    /// x402 v2's PaymentRequired as JSON, for carriers that are no field; else what the body has.
    pub fn json(&self, filling: &Filling<'_>) -> String {
        self.rich_field.as_ref().or(self.field.as_ref()).unwrap_or(&self.body).fill(filling)
    }

    /// Whether the body is text: nobody but crawlers can pay, who read the fields.
    pub fn is_text(&self) -> bool {
        self.crawl.is_some() && self.entries.is_empty()
    }

    /// The value of `crawler-price`, where pay per crawl is taken: `USD 0.01`.
    pub fn crawler_price(&self) -> Option<&str> {
        self.crawl.as_deref()
    }

    /// What a signature must cover that pays in the first way that is signed; `None` where none is.
    fn cover(&self) -> Option<Cover> {
        let of_entry = |entry: &Entry| match entry.way {
            Way::Deferred(_) => Some(deferred::COVER),
            Way::Batch(_) => Some(batch::COVER),
            Way::Exact(_) | Way::Upto(_) | Way::Crawl => None,
        };
        self.entries.iter().find_map(of_entry).or_else(|| self.crawl.is_some().then_some(crawl::COVER))
    }

    /// The value of `Accept-Signature`, where the offer is paid with a signature. The rules are those of its configuration.
    pub fn asked(&self, rules: &Rules) -> Option<HeaderValue> {
        let asked = || HeaderValue::try_from(self.cover()?.asked(rules)).ok();
        self.asked.get_or_init(asked).clone()
    }

    /// Whether the body depends on what the client shows.
    pub fn has_two_bodies(&self) -> bool {
        self.signers_body.is_some()
    }
}

impl Entry {
    fn new(way: Way, price: Money, ttl: u64, sold: &Sold<'_>) -> Option<Entry> {
        let (mut template, amount) = match &way {
            Way::Crawl => return None,
            Way::Batch(terms) => {
                let wire = price.wire();
                (!wire.millionths).then(|| (terms.template(&wire, ttl), price.units))?
            }
            Way::Deferred(terms) => {
                let wire = price.wire();
                let template = Template {
                    ttl,
                    class: PUBLIC.into(),
                    scheme: "deferred".into(),
                    network: terms.network.clone(),
                    asset: wire.asset(),
                    decimals: wire.decimals(),
                    pay_to: terms.pay_to.clone(),
                    terms_url: terms.terms_url.clone(),
                };
                (template, price.units)
            }
            Way::Exact(token) => (token.template("exact", ttl), token.units(price)?),
            Way::Upto(token) => (token.template(upto::SCHEME, ttl), token.units(price)?),
        };
        let class = sold.class.unwrap_or(PUBLIC);
        template.class = match sold.pass {
            Some(pass) if matches!(way, Way::Deferred(_) | Way::Batch(_)) => pass.class(class),
            _ => class.to_owned(),
        };
        Some(Entry { way, term: Term::new(template), amount })
    }
}

/// An entry that stands for every request: its id is made for one.
fn without_id(mut entry: Value) -> Value {
    if let Some(extra) = entry.get_mut("extra").and_then(Value::as_object_mut) {
        extra.remove("id");
    }
    entry
}

/// What the entries of one offer have in common.
struct Draft<'a> {
    price: Money,
    ttl: u64,
    sold: Sold<'a>,
    holes: &'a Holes,
}

impl Draft<'_> {
    fn each(&self, entries: &[Entry], write: fn(&Self, usize, &Entry) -> Option<Value>) -> Vec<Value> {
        entries.iter().enumerate().filter_map(|(i, entry)| write(self, i, entry)).collect()
    }

    fn describe(&self, json: &mut Value) {
        for (name, value) in [("description", self.sold.description), ("mimeType", self.sold.mime_type)] {
            if let Some(value) = value {
                json[name] = json!(value);
            }
        }
    }

    fn id<'i>(&'i self, id: &'i str) -> OfferId<'i> {
        OfferId { id, class: self.sold.class.unwrap_or(PUBLIC) }
    }

    fn extras(&self, index: usize, (terms, class): (&DeferredTerms, &str), wire: &WireAmount) -> Value {
        let id = self.holes.of(Hole::Id(index));
        let mut extras = json!({"id": id, "price": self.price.to_string(), "version": super::terms::VERSION,
            "class": class, "ttl": self.ttl, "decimals": wire.decimals()});
        if !terms.terms_url.is_empty() {
            extras["termsUrl"] = json!(terms.terms_url);
        }
        if let Some(pass) = self.sold.pass {
            extras["pass"] = json!(pass.good.to_string());
            extras["passFor"] = json!(if pass.whole_route { "route" } else { "resource" });
        }
        extras
    }

    /// As the `deferred` proposal has it.
    fn proposal(&self, index: usize, entry: &Entry) -> Option<Value> {
        let Way::Deferred(terms) = &entry.way else { return None };
        let wire = self.price.wire();
        let resource = self.holes.of(Hole::Resource);
        let mut json = json!({"scheme": "deferred", "network": terms.network, "resource": resource});
        self.describe(&mut json);
        json["amount"] = json!(wire.amount.to_string());
        json["asset"] = json!(wire.asset());
        json["payTo"] = json!(terms.pay_to);
        json["maxTimeoutSeconds"] = json!(self.ttl);
        json["extras"] = self.extras(index, (terms, &entry.term.template.class), &wire);
        Some(json)
    }

    fn v1(&self, _: usize, entry: &Entry) -> Option<Value> {
        let Way::Exact(token) = &entry.way else { return None };
        let url = self.holes.of(Hole::Resource);
        let description = self.sold.description.unwrap_or("");
        let mime_type = self.sold.mime_type.unwrap_or("");
        let resource = ResourceInfo { url: &url, description, mime_type };
        token.requirements("exact", entry.amount, self.ttl, None).to_v1(&resource)
    }

    fn v2(&self, index: usize, entry: &Entry) -> Option<Value> {
        match &entry.way {
            Way::Deferred(terms) => {
                let wire = self.price.wire();
                (terms.network.contains(':') && !wire.millionths).then(|| {
                    json!({"scheme": "deferred", "network": terms.network, "amount": wire.amount.to_string(),
                        "asset": wire.asset(), "payTo": terms.pay_to, "maxTimeoutSeconds": self.ttl,
                        "extra": self.extras(index, (terms, &entry.term.template.class), &wire)})
                })
            }
            Way::Crawl => None,
            Way::Batch(_) => {
                let id = self.holes.of(Hole::Id(index));
                Some(batch::entry(&entry.term.template, self.price.wire().amount, &id))
            }
            Way::Exact(token) => {
                let id = self.holes.of(Hole::Id(index));
                Some(token.requirements("exact", entry.amount, self.ttl, Some(self.id(&id))).to_v2())
            }
            Way::Upto(token) => {
                let id = self.holes.of(Hole::Id(index));
                Some(token.requirements(upto::SCHEME, entry.amount, self.ttl, Some(self.id(&id))).to_v2())
            }
        }
    }
}

#[cfg(test)]
#[path = "offer/tests.rs"]
mod tests;
