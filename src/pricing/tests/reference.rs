//! The matcher against its rules, read aloud.

use proptest::prelude::*;

use super::{
    Found::{Free, MethodNotAllowed, Route},
    *,
};

/// A path pattern without the names in its braces.
fn shape(path: &str) -> Vec<&str> {
    path.split('/').map(|part| if part.starts_with('{') { "{}" } else { part }).collect()
}

/// The rules of the module's documentation, read aloud.
fn reference(routes: &[RouteSpec], host: &str, path: &str, method: &str) -> Option<Result<usize, ()>> {
    let host_rank = |route: &RouteSpec| match route.host.as_deref() {
        None => Some(0),
        Some(h) if h == host => Some(usize::MAX),
        Some(h) => h.strip_prefix('*').filter(|s| host.len() > s.len() && host.ends_with(s)).map(str::len),
    };
    let segments: Vec<&str> = path[1..].split('/').collect();
    // (class, prefix length, literal-ness from the left, without added slash), larger is better.
    let path_rank = |route: &RouteSpec| {
        let (body, prefix) = match route.path.strip_suffix("/*") {
            Some(body) => (body, true),
            None => (route.path.as_str(), false),
        };
        let mut wanted: Vec<&str> = body.split('/').skip(1).collect();
        // A priced pattern without slash at its end stands for the path with one, but a pattern of its own comes first.
        let same = |other: &&RouteSpec| other.host == route.host && shape(&other.path) == shape(&route.path);
        let slash = segments.last() == Some(&"") && segments.len() == wanted.len() + 1;
        let added = !prefix && slash && wanted.last() != Some(&"") && routes.iter().filter(same).any(|r| r.priced);
        if added {
            wanted.push("");
        }
        let enough = if prefix { segments.len() >= wanted.len() } else { segments.len() == wanted.len() };
        let fits = enough
            && wanted.iter().zip(&segments).all(|(w, s)| if w.starts_with('{') { !s.is_empty() } else { w == s });
        let literal: Vec<bool> = wanted.iter().map(|w| !w.starts_with('{')).collect();
        let literal_path = !body.contains('{');
        let class = if prefix { 0 } else { 1 + usize::from(literal_path) };
        fits.then_some((class, wanted.len(), literal, !added))
    };
    let best_host = routes.iter().filter(|r| path_rank(r).is_some()).filter_map(host_rank).max()?;
    let on_host = || routes.iter().filter(|r| host_rank(r) == Some(best_host));
    let best = on_host().filter_map(path_rank).max()?;
    let mut winners = on_host().filter(|r| path_rank(r).as_ref() == Some(&best));
    Some(
        winners
            .find(|r| r.methods.is_empty() || r.methods.iter().any(|m| m == method || (m == "GET" && method == "HEAD")))
            .map(|r| r.index)
            .ok_or(()),
    )
}

fn any_route() -> impl Strategy<Value = RouteSpec> {
    let host = prop::sample::select(vec![None, Some("a.b.c"), Some("*.b.c"), Some("*.c")]);
    let segment = prop::sample::select(vec!["x", "y", "{p}"]);
    let path = (prop::collection::vec(segment, 0..4), 0..3).prop_map(|(parts, tail)| {
        let mut path: String =
            parts.iter().enumerate().map(|(i, p)| format!("/{}", p.replace('p', &format!("p{i}")))).collect();
        path.push_str(match tail {
            0 => "/*",
            1 => "/",
            _ if path.is_empty() => "/",
            _ => "",
        });
        path
    });
    let methods = prop::sample::select(vec![vec![], vec!["GET"], vec!["POST"], vec!["GET", "POST"]]);
    (host, path, methods, any::<bool>()).prop_map(|(host, path, methods, priced)| RouteSpec {
        index: 0,
        host: host.map(str::to_owned),
        path,
        methods: methods.into_iter().map(str::to_owned).collect(),
        priced,
        case_insensitive: false,
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn agrees_with_the_rules_read_aloud(
        routes in prop::collection::vec(any_route(), 0..12),
        requests in prop::collection::vec(
            (
                prop::sample::select(vec!["a.b.c", "z.b.c", "b.c", "c"]),
                prop::collection::vec(prop::sample::select(vec!["x", "y", "z", ""]), 1..5),
                prop::sample::select(vec!["GET", "HEAD", "POST", "PUT"]),
            ),
            1..20,
        ),
    ) {
        let mut kept: Vec<RouteSpec> = Vec::new();
        for mut route in routes {
            route.index = kept.len();
            kept.push(route);
            if Table::compile(&kept, &Site::default()).is_err() {
                kept.pop();
            }
        }
        let site = Site { hosts: vec!["b.c".into(), "*.b.c".into(), "c".into()], ..Site::default() };
        let table = Table::compile(&kept, &site).unwrap();
        for (host, parts, method) in requests {
            let path = format!("/{}", parts.join("/"));
            let expect = match reference(&kept, host, &path, method) {
                None => Free,
                Some(Ok(index)) => Route(index),
                Some(Err(())) => match table.find(host, &path, method) {
                    found @ MethodNotAllowed(_) => found,
                    _ => MethodNotAllowed("?"),
                },
            };
            prop_assert_eq!(table.find(host, &path, method), expect, "{} {} {}", method, host, path);
        }
    }
}
