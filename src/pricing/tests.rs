use std::borrow::Cow;

use proptest::prelude::*;

use super::*;

mod reference;

/// `METHODS HOST PATH [priced|case]`, `*` for all methods and for any host; the index is the line's number.
fn specs(text: &str) -> Vec<RouteSpec> {
    let list = |s: &str| if s == "*" { Vec::new() } else { s.split(',').map(str::to_owned).collect() };
    text.lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .enumerate()
        .map(|(index, line)| {
            let words: Vec<&str> = line.split(' ').collect();
            RouteSpec {
                index,
                host: (words[1] != "*").then(|| words[1].to_owned()),
                path: words[2].to_owned(),
                methods: list(words[0]),
                priced: words.contains(&"priced"),
                case_insensitive: words.contains(&"case"),
            }
        })
        .collect()
}

fn table(text: &str) -> Table {
    Table::compile(&specs(text), &Site::default()).unwrap_or_else(|problems| panic!("{problems:?}"))
}

#[track_caller]
fn check(table: &Table, request: &str, expect: Found) {
    let words: Vec<&str> = request.split(' ').collect();
    assert_eq!(table.find(words[1], words[2], words[0]), expect, "{request}");
}

use Found::{AlwaysFree, Free, MethodNotAllowed, Route, UnknownHost};

#[test]
fn exact_beats_names_beat_the_longest_prefix() {
    let t = table(
        "* * /a/*
         * * /a/b
         * * /a/{x}
         * * /a/b/*
         * * /a/{x}/c
         * * /{y}/b/c
         * * /a/{x}/d/*
         * * /a/b/d/*",
    );
    for (path, expect) in [
        ("/a", Route(0)),
        ("/a/", Route(0)),
        ("/a/b", Route(1)),
        ("/a/b/", Route(3)),
        ("/a/z", Route(2)),
        ("/a/z/", Route(0)),
        ("/a/b/c", Route(4)),
        ("/z/b/c", Route(5)),
        ("/a/b/x/y", Route(3)),
        ("/a/z/d/1", Route(6)),
        ("/a/b/d/1", Route(7)),
        ("/a/z/e", Route(0)),
        ("/ab", Free),
        ("/", Free),
        ("/A/b", Free),
    ] {
        check(&t, &format!("GET h {path}"), expect);
    }
}

#[test]
fn root_patterns() {
    let t = table("* * /");
    check(&t, "GET h /", Route(0));
    check(&t, "GET h /x", Free);
    let t = table("* * /*");
    check(&t, "GET h /", Route(0));
    check(&t, "GET h /x/y/", Route(0));
    check(&t, "OPTIONS h *", Route(0));
    let t = table("* * /{x}");
    check(&t, "GET h /", Free);
    check(&t, "GET h /x", Route(0));
    let t = table("* * /x/");
    check(&t, "GET h /x", Free);
    check(&t, "GET h /x/", Route(0));
}

#[test]
fn a_slash_does_not_walk_around_a_price() {
    let t = table(
        "* * /a priced
         * * /b
         * * /c priced
         * * /c/
         * * /users/{id} priced
         GET * /m priced
         PUT * /m
         * * /a/*
         * * /{x}/
         * * /x/ priced",
    );
    for (path, expect) in [
        ("/a/", Route(0)),
        ("/a/x", Route(7)),
        ("/b/", Route(8)),
        ("/c/", Route(3)),
        ("/users/7/", Route(4)),
        ("/users/7/8", Free),
        ("/users/", Route(8)),
        ("/m/", Route(5)),
        ("/x/", Route(9)),
        ("/x", Free),
        ("/x//", Free),
        ("/a//", Route(7)),
    ] {
        check(&t, &format!("GET h {path}"), expect);
    }
    // Nothing falls through on the path with the slash either.
    check(&t, "PUT h /m/", Route(6));
    check(&t, "DELETE h /m/", MethodNotAllowed("GET, HEAD, PUT"));
    let t = table("* * /b\n* * /users/{id}\n* * / priced");
    check(&t, "GET h /b/", Free);
    check(&t, "GET h /users/7/", Free);
    check(&t, "GET h /", Route(2));
    let folded = table("* * /Caf%C3%A9 priced case");
    check(&folded, "GET h /cAF%c3%89/", Route(0));
    let hosts = table("* a.com /x priced\n* * /x/");
    check(&hosts, "GET a.com /x/", Route(0));
}

#[test]
fn routes_of_the_same_pattern_are_found() {
    let t = table(
        "GET * /a/{x} priced
         POST * /a/{y}
         * * /a/b
         GET h.com /a/{x}",
    );
    let same = |route| t.same_pattern(route).collect::<Vec<_>>();
    assert_eq!((same(0), same(1), same(2), same(3), same(9)), (vec![1], vec![0], vec![], vec![], vec![]));
}

#[test]
fn the_most_specific_host_with_a_match_wins() {
    let t = table(
        "* a.example.com /x/*
         * *.example.com /x/y
         * *.a.example.com /z
         * * /x/y
         * * /w",
    );
    check(&t, "GET a.example.com /x/y", Route(0));
    check(&t, "GET a.example.com. /x/y", Route(0));
    check(&t, "GET b.example.com /x/y", Route(1));
    check(&t, "GET c.a.example.com /z", Route(2));
    check(&t, "GET c.a.example.com /x/y", Route(1));
    check(&t, "GET c.a.example.com /w", Route(4));
    check(&t, "GET example.com /w", UnknownHost);
    check(&t, "GET evilexample.com /w", UnknownHost);
    check(&t, "GET .example.com /w", UnknownHost);
}

#[test]
fn a_method_that_the_pattern_does_not_name_is_not_served_by_another() {
    let t = table(
        "GET,POST * /a/b priced
         PUT * /a/b
         * * /a/*",
    );
    check(&t, "GET h /a/b", Route(0));
    check(&t, "HEAD h /a/b", Route(0));
    check(&t, "PUT h /a/b", Route(1));
    check(&t, "DELETE h /a/b", MethodNotAllowed("GET, HEAD, POST, PUT"));
    check(&t, "get h /a/b", MethodNotAllowed("GET, HEAD, POST, PUT"));
    check(&t, "DELETE h /a/c", Route(2));
}

#[test]
fn what_crawlers_need_is_free_unless_named_exactly() {
    let all = table("* * /* priced");
    for path in [
        "/robots.txt",
        "/sitemap.xml",
        "/sitemap-2.xml",
        "/sitemap_index.xml",
        "/sitemap1.xml.gz",
        "/security.txt",
        "/crawlers.json",
        "/.well-known/security.txt",
        "/.well-known/http-message-signatures-directory",
        "/.well-known/acme-challenge/tok-en_1",
    ] {
        check(&all, &format!("GET h {path}"), AlwaysFree);
        let exact = table(&format!("* * {path} priced"));
        check(&exact, &format!("GET h {path}"), Route(0));
    }
    for path in [
        "/robots.txt/x",
        "/a/robots.txt",
        "/sitemap/x.xml",
        "/sitemap.xml/x",
        "/sitemap%2F..xml",
        "/sitemapxml",
        "/ROBOTS.TXT",
        "/.well-known/acme-challenge/",
        "/.well-known/acme-challenge/a/b",
        "/.well-known/acme-challenge/..",
        "/.well-known/other",
    ] {
        check(&all, &format!("GET h {path}"), Route(0));
    }
    let inside = table("* * /.well-known/acme-challenge/* priced\n* * /{x} priced\n* * /.well-known/* priced");
    check(&inside, "GET h /.well-known/acme-challenge/a", Route(0));
    check(&inside, "GET h /robots.txt", AlwaysFree);
    check(&inside, "GET h /.well-known/security.txt", AlwaysFree);
}

#[test]
fn escapes_do_not_walk_around_a_price() {
    let t = table("* * /caf%c3%a9/%7Euser/a,b priced\n* * /a%2A/* priced");
    for path in ["/caf%C3%A9/~user/a,b", "/caf%C3%A9/~user/a%2Cb", "/caf%C3%A9/%7euser/%61,b", "/café/~user/a,b"] {
        check(&t, &format!("GET h {path}"), Route(0));
    }
    check(&t, "GET h /caf%C3%A9/~user%2Fa,b", Free);
    check(&t, "GET h /a*/x", Route(1));
    check(&t, "GET h /a%2a/x", Route(1));
    check(&t, "GET h /a%252A/x", Free);
}

#[test]
fn case_is_ignored_wherever_a_request_could_land_on_an_origin_that_ignores_it() {
    let t = table("* * /Paid/CAF%C3%89 priced case\n* * /other");
    check(&t, "GET h /pAID/caf%C3%A9", Route(0));
    check(&t, "GET h /OTHER", Route(1));
    check(&t, "GET h /Paid%2FCAF%C3%89", Free);
    let t = table("* a.com /Paid priced\n* *.com /* case\n* b.org /Paid priced\n* * /Free");
    check(&t, "GET a.com /paid", Route(0));
    check(&t, "GET b.org /paid", Free);
    let site = Site { case_insensitive: true, hosts: vec![] };
    let t = Table::compile(&specs("* a.com /Paid priced\n* * /Free"), &site).unwrap();
    check(&t, "GET a.com /PAID", Route(0));
    check(&t, "GET a.com /FREE", Route(1));
    let clash = Table::compile(&specs("* * /Paid case\n* * /PAID"), &Site::default()).unwrap_err();
    assert_eq!((clash[0].route, clash[0].other), (1, Some(0)));
    assert!(clash[0].reason.contains("case"), "{}", clash[0].reason);
}

#[test]
fn hosts_served_and_priced() {
    let t = table("* * /x priced\n* * /y");
    assert!(t.serves("anything") && t.has_priced("anything"));
    let site = Site { hosts: vec!["Example.com".into(), "*.x.org".into()], ..Site::default() };
    let t = Table::compile(&specs("* a.com /x priced\n* b.com /y\n* *.c.com /z priced"), &site).unwrap();
    for (host, serves, priced) in [
        ("a.com", true, true),
        ("b.com", true, false),
        ("c.com", false, false),
        ("d.c.com", true, true),
        ("example.com", true, false),
        ("w.x.org", true, false),
        ("x.org", false, false),
        ("", false, false),
    ] {
        assert_eq!((t.serves(host), t.has_priced(host)), (serves, priced), "{host}");
    }
}

#[test]
fn bad_patterns_say_why_and_what_to_write() {
    for (path, reason, hint) in [
        ("", "empty", "`/*`"),
        ("a", "starts with `/`", "`/a`"),
        ("https://x/a", "starts with `/`", "`host`"),
        ("*", "starts with `/`", "`/*`"),
        ("/a*", "`*` can only be the last", "`/a/*`"),
        ("/*/a", "`*` can only be the last", "{name}"),
        ("/a/**", "`*` can only be the last", ""),
        ("/a//b", "`//`", ""),
        ("//*", "`//`", ""),
        ("/a/../b", "`..`", ""),
        ("/a/%2e%2E/b", "`..`", ""),
        ("/a/.", "`.`", ""),
        ("/a%2fb", "%2F", ""),
        ("/a%5Cb", "%5C", ""),
        ("/a%00", "%00", ""),
        ("/a%2541", "%25", ""),
        ("/a%zz", "hexadecimal", "%25"),
        ("/a%4", "hexadecimal", "%25"),
        ("/café", "never arrives", "`%C3%A9`"),
        ("/a b", "never arrives", "`%20`"),
        ("/a|b", "never arrives", "`%7C`"),
        ("/%FF", "UTF-8", ""),
        ("/a;b", "`;`", ""),
        ("/a\\b", "`\\`", ""),
        ("/a?b=c", "query", "`/a`"),
        ("/a#b", "fragment", "`/a`"),
        ("/{}", "empty", ""),
        ("/{x}/{x}", "twice", ""),
        ("/{x}.html", "whole segment", ""),
        ("/a{", "whole segment", ""),
        ("/{x-y}", "letters", ""),
    ] {
        let (found, advice) = Pattern::parse(path).unwrap_err();
        assert!(found.contains(reason), "{path}: {found}");
        assert!(advice.clone().unwrap_or_default().contains(hint), "{path}: {advice:?}");
    }
}

#[test]
fn bad_hosts_and_methods_and_equal_routes_are_all_reported() {
    let problems = Table::compile(
        &specs(
            "* example.com:80 /a
             get * /b
             * * /{x}
             POST * /{y}
             * https://e.com /c
             HEAD * /d
             GET * /d
             * *.1.2.3.4 /a
             * a.*.com /a
             * ex..com /a
             * 300.1.1.1 /a
             * é.com /a",
        ),
        &Site::default(),
    )
    .unwrap_err();
    let seen: Vec<_> = problems.iter().map(|p| (p.route, p.other, p.field)).collect();
    use Field::{Host, Methods, Path};
    let expect = vec![
        (0, None, Host),
        (1, None, Methods),
        (3, Some(2), Path),
        (4, None, Host),
        (6, Some(5), Path),
        (7, None, Host),
        (8, None, Host),
        (9, None, Host),
        (10, None, Host),
        (11, None, Host),
    ];
    assert_eq!(seen, expect);
}

#[test]
fn normal_paths() {
    for (path, expect) in [
        ("/a-b_c.~", "/a-b_c.~"),
        ("/%61%2d%7e", "/a-~"),
        ("/%2f%c3%a9", "/%2F%C3%A9"),
        ("/é|\"{}", "/%C3%A9%7C%22%7B%7D"),
        ("/%2541", "/%2541"),
        ("/%", "/%25"),
        ("/%4%61", "/%254a"),
        ("/a\\b;c", "/a\\b;c"),
    ] {
        assert_eq!(normal_path(path), expect, "{path}");
    }
    assert!(matches!(normal_path("/a/b"), Cow::Borrowed(_)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn nothing_panics(host in any::<String>(), path in any::<String>(), method in any::<String>()) {
        let spec = RouteSpec {
            index: 7,
            host: Some(host.clone()),
            path: path.clone(),
            methods: vec![method.clone()],
            priced: true,
            case_insensitive: true,
        };
        let _ = Table::compile(&[spec], &Site::default());
        let fixed = table("* * /{x}/y priced case\n* *.b /x");
        let _ = fixed.find(&host, &path, &method);
    }

    #[test]
    fn the_normal_form_is_a_fixed_point_and_matches_the_same(path in "/[ -~é]{0,20}") {
        let once = normal_path(&path).into_owned();
        prop_assert_eq!(normal_path(&once).into_owned(), once);
    }

    /// Whatever pattern is accepted matches itself as a request, in its normal form.
    #[test]
    fn an_accepted_pattern_matches_its_own_text(path in "/[a-cA-C%0-9./~,]{0,12}") {
        if let Ok(pattern) = Pattern::parse(&path) {
            let spec = RouteSpec {
                index: 0, host: None, path: path.clone(), methods: vec![], priced: true, case_insensitive: false,
            };
            let table = Table::compile(&[spec], &Site::default()).unwrap();
            prop_assert_eq!(table.find("h", &pattern.text, "GET"), Route(0));
            prop_assert_eq!(table.find("h", &normal_path(&path), "GET"), Route(0));
            prop_assert_eq!(normal_path(&pattern.text).into_owned(), pattern.text.clone());
        }
    }
}
