use std::slice::from_ref;

use super::*;
use crate::wire::amount::Currency;
use crate::wire::x402::network::Network;

fn deferred(network: &str) -> Way {
    Way::Deferred(DeferredTerms {
        network: network.into(),
        pay_to: "merchant".into(),
        terms_url: "https://a.example/terms".into(),
    })
}

fn batch() -> Way {
    Way::Batch(BatchTerms {
        network: "tollgate:402".into(),
        pay_to: "merchant".into(),
        terms_url: String::new(),
        registration_url: "https://a.example/register".into(),
    })
}

fn usdc(network: &str) -> Way {
    let network = Network::parse(network).unwrap();
    let address = "0x036CbD53842c5426634e7929541eC2318f3dCF7e";
    Way::Exact(Arc::new(Token {
        book: Token::book_name(&network, address),
        network,
        address: address.into(),
        symbol: "USDC".into(),
        decimals: 6,
        currency: Currency::parse("USD").unwrap(),
        pay_to: "0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC".into(),
        transfer: crate::payment::token::Transfer::Eip3009 { name: "USDC".into(), version: "2".into() },
        facilitator: None,
    }))
}

const V1: Forms = Forms { v1: true, signed: false };
const NOTHING: Sold<'_> = Sold {
    description: None,
    mime_type: None,
    bazaar: None,
    identifier: crate::payment::identifier::Mode::Off,
    pass: None,
    class: None,
};
const SOLD: Sold<'_> =
    Sold { description: Some("An article @<Id(0)>@ \"quoted\""), mime_type: Some("text/html"), ..NOTHING };

fn prepared(price: &str, ways: &[Way]) -> PreparedOffer {
    PreparedOffer::new(Money::parse(price).unwrap(), 300, ways, V1, SOLD)
}

fn ids() -> Vec<String> {
    vec!["abc".to_owned(), "def".to_owned(), "ghi".to_owned()]
}

fn body(offer: &PreparedOffer, signs: bool) -> Value {
    let ids = ids();
    let filling = Filling {
        resource: "https://a.example/p?q=\"1\"",
        ids: &ids[..offer.entries.len()],
        signed: &[],
        error: "payment_required",
        message: "This resource has a price.",
    };
    serde_json::from_str(&offer.body(&filling, signs)).unwrap()
}

fn field(offer: &PreparedOffer, resource: &str) -> Option<Value> {
    let ids = ids();
    let filling = Filling { resource, ids: &ids, signed: &[], error: "already_used", message: "" };
    let field = offer.field(&filling)?;
    Some(serde_json::from_slice(&STANDARD.decode(field).unwrap()).unwrap())
}

#[test]
fn the_body_is_json_with_one_complete_deferred_entry() {
    let body = body(&prepared("0.01 USD", &[deferred("tollgate:deferred")]), false);
    assert_eq!(
        body,
        json!({"accepts": [{
            "scheme": "deferred", "network": "tollgate:deferred", "resource": "https://a.example/p?q=\"1\"",
            "description": "An article @<Id(0)>@ \"quoted\"", "mimeType": "text/html",
            "amount": "1", "asset": "USD", "payTo": "merchant", "maxTimeoutSeconds": 300,
            "extras": {"id": "abc", "price": "0.01 USD", "version": 1, "class": "public", "ttl": 300, "decimals": 2,
                "termsUrl": "https://a.example/terms"}}],
            "error": "payment_required", "message": "This resource has a price."})
    );
}

#[test]
fn the_field_is_there_only_where_v2_clients_can_parse_it() {
    let field_of = |price: &str, network: &str| field(&prepared(price, &[deferred(network)]), "https://a.example/p");
    let it = field_of("0.01 USD", "tollgate:deferred").unwrap();
    assert_eq!(it["x402Version"], 2);
    assert_eq!(it["error"], "already_used");
    assert_eq!(it["resource"]["url"], "https://a.example/p");
    assert_eq!(it["accepts"][0]["extra"]["id"], "abc");
    for member in ["scheme", "network", "amount", "asset", "payTo", "maxTimeoutSeconds"] {
        assert!(!it["accepts"][0][member].is_null(), "{member}");
    }
    assert!(field_of("0.001 USD", "tollgate:deferred").is_none());
    assert!(field_of("0.01 USD", "no-colon").is_none());
    let long = format!("https://a.example/{}", "p".repeat(FIELD_BYTES_MAX));
    assert!(field(&prepared("0.01 USD", &[deferred("tollgate:deferred")]), &long).is_none());
}

/// The table of clients and the bodies that they refuse, for each mix of schemes.
#[test]
fn each_client_finds_what_it_can_parse() {
    let (v1, v2_only) = (usdc("eip155:84532"), usdc("eip155:42161"));
    type Mix<'a> = (&'a [Way], &'a [&'a str], &'a [&'a str], &'a [&'a str]);
    let mixes: [Mix; 11] = [
        // offered                                 v1's body      signers' body            v2's field
        (&[deferred("a-b:c")], &["deferred"], &["deferred"], &["deferred"]),
        (from_ref(&v1), &["exact"], &["exact"], &["exact"]),
        (from_ref(&v2_only), &[], &[], &["exact"]),
        (&[deferred("a-b:c"), v1.clone(), v2_only.clone()], &["exact"], &["deferred"], &["deferred", "exact", "exact"]),
        (&[v2_only.clone(), deferred("plain")], &[], &["deferred"], &["exact"]),
        (&[batch()], &[], &[], &["batch-settlement"]),
        (&[deferred("a-b:c"), batch()], &["deferred"], &["deferred"], &["deferred", "batch-settlement"]),
        (&[deferred("a-b:c"), Way::Crawl], &["deferred"], &["deferred"], &["deferred"]),
        (&[Way::Crawl, batch(), v1.clone()], &["exact"], &["exact"], &["batch-settlement", "exact"]),
        (&[batch(), v1.clone()], &["exact"], &["exact"], &["batch-settlement", "exact"]),
        (&[deferred("plain"), batch(), v2_only.clone()], &[], &["deferred"], &["batch-settlement", "exact"]),
    ];
    let schemes = |json: &Value| -> Vec<String> {
        json["accepts"].as_array().unwrap().iter().map(|e| e["scheme"].as_str().unwrap().to_owned()).collect()
    };
    for (ways, plain, signing, new) in mixes {
        let offer = prepared("0.01 USD", ways);
        assert_eq!(schemes(&body(&offer, false)), plain, "{ways:?}");
        assert_eq!(schemes(&body(&offer, true)), signing, "{ways:?}");
        assert_eq!(schemes(&field(&offer, "https://a.example/p").unwrap()), new, "{ways:?}");
        assert_eq!(offer.has_two_bodies(), plain != signing, "{ways:?}");
        let new = field(&offer, "https://a.example/p").unwrap();
        let signs = ways.iter().any(|way| matches!(way, Way::Batch(_)));
        assert_eq!(!new["extensions"]["http-message-signatures"]["info"]["registrationUrl"].is_null(), signs);
        for entry in new["accepts"].as_array().unwrap() {
            // What official clients demand of each entry; one that is incomplete makes them refuse all.
            let texts = ["scheme", "network", "amount", "asset", "payTo"].map(|name| entry[name].as_str());
            assert!(texts.iter().all(|text| text.is_some_and(|text| !text.is_empty())), "{entry}");
            assert!(entry["network"].as_str().unwrap().contains(':') && entry["maxTimeoutSeconds"] == 300, "{entry}");
            assert!(entry["extra"]["id"].is_string(), "{entry}");
        }
        let says_v1 = body(&offer, false)["x402Version"] == 1;
        assert_eq!(says_v1, !plain.contains(&"deferred"), "a deferred body names no version");
    }
}

#[test]
fn token_entries_are_complete_in_both_versions() {
    let offer = prepared("0.01 USD", &[deferred("a-b:c"), usdc("eip155:84532")]);
    assert_eq!(
        body(&offer, false)["accepts"][0],
        json!({"scheme": "exact", "network": "base-sepolia", "maxAmountRequired": "10000",
            "resource": "https://a.example/p?q=\"1\"", "description": "An article @<Id(0)>@ \"quoted\"",
            "mimeType": "text/html", "payTo": "0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC", "maxTimeoutSeconds": 300,
            "asset": "0x036CbD53842c5426634e7929541eC2318f3dCF7e", "extra": {"name": "USDC", "version": "2"}})
    );
    assert_eq!(
        field(&offer, "https://a.example/p").unwrap()["accepts"][1],
        json!({"scheme": "exact", "network": "eip155:84532", "amount": "10000",
            "asset": "0x036CbD53842c5426634e7929541eC2318f3dCF7e",
            "payTo": "0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC", "maxTimeoutSeconds": 300,
            "extra": {"name": "USDC", "version": "2", "id": "def", "idVersion": 1, "class": "public", "ttl": 300,
                "decimals": 6}})
    );
}

#[test]
fn an_offer_of_every_scheme_fits_into_a_field() {
    let long = "d".repeat(500);
    let ways = [deferred("tollgate:deferred"), batch(), Way::Crawl, usdc("eip155:84532"), usdc("eip155:42161")];
    let sold = Sold { description: Some(&long), mime_type: Some("text/html"), ..NOTHING };
    let offer = PreparedOffer::new(Money::parse("0.01 USD").unwrap(), 300, &ways, V1, sold);
    let ids = vec!["i".repeat(64); ways.len()];
    let resource = format!("https://a.example/{}", "p".repeat(500));
    let filling = Filling { resource: &resource, ids: &ids, signed: &[], error: "payment_required", message: "" };
    let length = offer.field(&filling).expect("the field is left out").len();
    assert!(length <= 8 * 1024, "{length}");
}

#[test]
fn batches_count_whole_cents_only() {
    assert!(prepared("0.001 USD", &[batch()]).entries.is_empty());
    assert_eq!(prepared("0.01 USD", &[batch()]).entries.len(), 1);
}

#[test]
fn where_only_crawlers_can_pay_the_body_is_text() {
    let offer = prepared("0.001 USD", &[Way::Crawl]);
    let filling =
        Filling { resource: "https://a.example/p", ids: &[], signed: &[], error: "x", message: "It has a price." };
    assert_eq!((offer.is_text(), offer.crawler_price()), (true, Some("USD 0.001")));
    assert_eq!(offer.body(&filling, true), "It has a price.\nPrice: USD 0.001\n");
    assert!(offer.field(&filling).is_none());
    let both = prepared("0.001 USD", &[Way::Crawl, deferred("a-b:c")]);
    assert_eq!((both.is_text(), both.crawler_price()), (false, Some("USD 0.001")));
}
