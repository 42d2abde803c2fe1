//! `[server]`, `[origin]`, `[origins.NAME]`.

use std::{net::IpAddr, path::Path, sync::Arc, thread::available_parallelism};

use super::{listen, urls};
use crate::{
    config::{HostHeader, Limits, Listen, Origin, PublicUrl, Rate, Server, read::Section, walk::quote},
    pricing::HostPattern,
};

pub(super) fn server(section: &Section<'_>, base: &Path) -> Option<Server> {
    let places = listen::places(section, base);
    let trust = listen::trust(section);
    let public_url = section.text("public_url").is_none().then_some(None).or_else(|| {
        let url = urls::origin(section, "public_url")?;
        Some(Some(PublicUrl { https: url.https(), authority: url.authority() }))
    });
    let hosts: Vec<Option<String>> = section
        .texts("hosts")
        .into_iter()
        .map(|(path, text)| match HostPattern::parse(text) {
            Ok(HostPattern::Below(suffix)) => Some(format!("*{suffix}")),
            Ok(HostPattern::Exact(name)) => Some(name),
            Ok(HostPattern::Any) => None,
            Err((reason, help)) => {
                section.layers.complain(&path, format!("{reason}, found `{}`", quote(text)), help);
                None
            }
        })
        .collect();
    let limits = section.section("limits");
    let (listen, tls) = places?;
    Some(Server {
        listen,
        tls,
        trust: trust?,
        public_url: public_url?,
        hosts: hosts.into_iter().collect::<Option<_>>()?,
        cores: section.count("cores").unwrap_or_else(|| available_parallelism().map_or(1, usize::from)),
        drain_delay: section.seconds("drain_delay_seconds"),
        drain: section.seconds("drain_seconds"),
        cors: section.flag("cors"),
        limits: Limits {
            header_bytes: limits.number("header_bytes"),
            header_count: limits.number("header_count"),
            url_bytes: limits.number("url_bytes"),
            header: limits.seconds("header_seconds"),
            keep_alive: limits.seconds("keep_alive_seconds"),
            body_idle: limits.seconds("body_idle_seconds"),
            body_min_rate: limits.number("body_min_rate").try_into().unwrap_or(u64::MAX),
            write_stall: limits.seconds("write_stall_seconds"),
            tunnel_idle: limits.seconds("tunnel_idle_seconds"),
            tunnel: limits.seconds("tunnel_seconds"),
            connections: limits.number("connections"),
            failures: rate(&limits, "failures_per_minute", "failures_burst"),
            agent_requests: rate(&limits, "agent_requests_per_minute", "agent_requests_burst"),
            requests_in_flight: limits.number("requests_in_flight"),
        },
    })
}

fn rate(limits: &Section<'_>, per_minute: &str, burst: &str) -> Rate {
    let number = |key| limits.number(key).try_into().unwrap_or(u64::MAX);
    Rate { per_minute: number(per_minute), burst: number(burst) }
}

/// All origins, the default one first.
pub(super) fn origins(root: &Section<'_>, base: &Path, server: Option<&Server>) -> Option<Vec<Origin>> {
    let mut sections: Vec<(&str, Section<'_>)> = root.named("origins");
    if root.has("origin") {
        if sections.iter().any(|(name, _)| *name == "default") {
            let message = "`[origin]` is the origin named `default`, which is there twice";
            root.layers.clash("origins.default", "origin", message, None);
            return None;
        }
        sections.insert(0, ("default", root.section("origin")));
    } else if let Some(at) = sections.iter().position(|(name, _)| *name == "default") {
        sections.swap(0, at);
    } else if sections.is_empty() {
        let help = "add a section `[origin]` with `url = \"http://127.0.0.1:8080\"`, the server that the gateway stands in front of";
        root.layers.complain("", "no origin, so there is nothing to put a price on", Some(help.to_owned()));
        return None;
    } else if sections.len() > 1 {
        let help = "add `[origin]`, or name one of them `[origins.default]`".to_owned();
        root.layers.complain("origins", "requests that no route matches have no origin", Some(help));
        return None;
    }
    let origins: Vec<Option<Origin>> =
        sections.iter().map(|(name, section)| origin(name, section, base, server)).collect();
    origins.into_iter().collect()
}

fn origin(name: &str, section: &Section<'_>, base: &Path, server: Option<&Server>) -> Option<Origin> {
    if !section.has("url") && !section.layers.in_file(&section.path) {
        // Variables alone made this origin, so the walk of the file has not missed its URL.
        let help = "set its URL too, in the file or by a variable".to_owned();
        section.complain("url", "missing, expected text in quotes", Some(help));
    }
    let url = match section.text("url").and_then(|url| url.strip_prefix("unix:")) {
        Some(path) => return unix_origin(name, section, base, server, path),
        None => urls::origin(section, "url")?,
    };
    let bare = url.host().trim_start_matches('[').trim_end_matches(']').to_owned();
    let local = bare == "localhost" || bare.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
    let own = |listen: &Listen| match listen {
        Listen::Tcp(listen) => {
            listen.port() == url.port()
                && ((local && (listen.ip().is_loopback() || listen.ip().is_unspecified()))
                    || bare == listen.ip().to_string())
        }
        Listen::Unix(_) | Listen::Passed(_) => false,
    };
    if server.is_some_and(|server| server.places().any(own)) {
        let help = "give the origin's own port, not that of `server.listen`".to_owned();
        section.complain("url", "the gateway would forward to itself", Some(help));
        return None;
    }
    let ca_file = section.text("ca_file").map(|file| base.join(file));
    if ca_file.is_some() && !url.https() {
        section.layers.warn(
            &section.at("ca_file"),
            "roots are never used over plain HTTP",
            "write `https://` in `url`",
        );
    }
    Some(Origin { https: url.https(), host: bare, port: url.port(), ca_file, ..base_origin(name, section) })
}

/// A server behind a Unix socket.
fn unix_origin(name: &str, section: &Section<'_>, base: &Path, server: Option<&Server>, path: &str) -> Option<Origin> {
    let path = listen::unix_path(section, &section.at("url"), path, base)?;
    if server.is_some_and(|server| server.places().any(|listen| *listen == Listen::Unix(path.clone()))) {
        let help = "give the origin's own socket, not that of `server.listen`".to_owned();
        section.complain("url", "the gateway would forward to itself", Some(help));
        return None;
    }
    if section.has("ca_file") {
        let help = "leave it out";
        section.layers.warn(&section.at("ca_file"), "roots are never used over a Unix socket", help);
    }
    Some(Origin { socket: Some(path), ..base_origin(name, section) })
}

/// What every origin has, wherever it is.
fn base_origin(name: &str, section: &Section<'_>) -> Origin {
    Origin {
        name: Arc::from(name),
        https: false,
        socket: None,
        host: "localhost".to_owned(),
        port: 80,
        ca_file: None,
        host_header: match section.text("host_header") {
            Some("origin") => HostHeader::Origin,
            _ => HostHeader::Client,
        },
        case_insensitive: section.flag("case_insensitive"),
        connect: section.seconds("connect_seconds"),
        head: section.seconds("head_seconds"),
        body_idle: section.seconds("body_idle_seconds"),
        idle_connections: section.number("idle_connections"),
        idle: section.seconds("idle_seconds"),
    }
}
