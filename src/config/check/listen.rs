//! `server.listen`, `[server.tls]`, and who is believed about clients.

use std::{
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
};

use ipnet::IpNet;

use crate::config::{
    Admin, Certificate, ForwardedFields, Listen, Server, ServerTls, Trust, read::Section, walk::quote,
};

/// Longest path of a Unix socket (`sockaddr_un`).
const UNIX_BYTES_MAX: usize = 107;

type Placed = (String, Listen);

/// `server.listen` and `[server.tls]`, which must not name one place twice.
pub(super) fn places(section: &Section<'_>, base: &Path) -> Option<(Vec<Listen>, Option<ServerTls>)> {
    let mut found: Vec<Placed> = Vec::new();
    let plain = listen(section, base, &mut found);
    let tls = section.section("tls");
    let has_tls = section.has("tls") || tls.has("listen") || tls.has("certificates");
    let tls = if has_tls { Some(server_tls(&tls, base, &mut found)) } else { None };
    let plain = plain?;
    let tls = match tls {
        None => None,
        Some(tls) => Some(tls?),
    };
    if plain.is_empty() && tls.is_none() {
        section.complain("listen", "expected at least one address", Some("leave it out for the default".to_owned()));
        return None;
    }
    Some((plain, tls))
}

/// `[admin]`, at places that clients are not served at.
pub(super) fn admin(section: &Section<'_>, server: Option<&Server>, base: &Path) -> Option<Admin> {
    let mut found: Vec<Placed> = Vec::new();
    let listen = listen(section, base, &mut found)?;
    let token_file = section.text("token_file").map(|file| base.join(file));
    for (path, place) in &found {
        if server.is_some_and(|server| server.places().any(|other| is_one_place(other, place))) {
            section.layers.complain(path, format!("`{place}` is where clients are served"), None);
            return None;
        }
        let from_elsewhere = match place {
            Listen::Tcp(address) => !address.ip().is_loopback(),
            Listen::Unix(_) => false,
            Listen::Passed(_) => true,
        };
        if from_elsewhere && token_file.is_none() {
            let help = "set `token_file`, or listen on `127.0.0.1` or `unix:PATH`".to_owned();
            section.layers.complain(path, "others could read what is sold", Some(help));
            return None;
        }
    }
    Some(Admin { listen, token_file })
}

fn is_one_place(one: &Listen, other: &Listen) -> bool {
    match (one, other) {
        (Listen::Tcp(a), Listen::Tcp(b)) => a == b && a.port() != 0,
        (Listen::Passed(a), Listen::Passed(b)) => a == b || a.is_none() || b.is_none(),
        (a, b) => a == b,
    }
}

fn server_tls(section: &Section<'_>, base: &Path, found: &mut Vec<Placed>) -> Option<ServerTls> {
    let listen = listen(section, base, found);
    let certificates: Vec<Option<Certificate>> = section
        .list("certificates")
        .iter()
        .map(|one| {
            let (cert, key) = (one.text("cert_file"), one.text("key_file"));
            Some(Certificate { cert_file: base.join(cert?), key_file: base.join(key?) })
        })
        .collect();
    if certificates.is_empty() {
        let help = "add `[[server.tls.certificates]]` with `cert_file` and `key_file`".to_owned();
        section.complain("certificates", "no certificate, so nobody can be served", Some(help));
        return None;
    }
    if listen.as_ref().is_some_and(Vec::is_empty) {
        section.complain("listen", "expected at least one address", Some("leave it out for the default".to_owned()));
        return None;
    }
    Some(ServerTls { listen: listen?, certificates: certificates.into_iter().collect::<Option<_>>()? })
}

fn listen(section: &Section<'_>, base: &Path, found: &mut Vec<Placed>) -> Option<Vec<Listen>> {
    let mut places = Vec::new();
    let mut whole = true;
    for (path, text) in section.texts("listen") {
        let Some(place) = place(section, &path, text, base) else {
            whole = false;
            continue;
        };
        match found.iter().find(|(_, other)| is_one_place(other, &place)) {
            Some((other, _)) => {
                section.layers.clash(&path, other, format!("`{place}` is listed twice"), None);
                whole = false;
            }
            None => {
                found.push((path, place.clone()));
                places.push(place);
            }
        }
    }
    whole.then_some(places)
}

fn place(section: &Section<'_>, at: &str, text: &str, base: &Path) -> Option<Listen> {
    if text == "systemd" {
        return Some(Listen::Passed(None));
    }
    if let Some(name) = text.strip_prefix("systemd:") {
        if name.is_empty() {
            let help = "write `\"systemd\"`, or the socket unit's `FileDescriptorName` behind the colon".to_owned();
            section.layers.complain(at, "expected a name behind `systemd:`", Some(help));
            return None;
        }
        return Some(Listen::Passed(Some(name.to_owned())));
    }
    if let Some(path) = text.strip_prefix("unix:") {
        return unix_path(section, at, path, base).map(Listen::Unix);
    }
    let Ok(address) = text.parse::<SocketAddr>() else {
        let help = match (text.strip_prefix("localhost:"), text.strip_prefix(':'), text.parse::<u16>()) {
            (Some(port), ..) => Some(format!("write `\"127.0.0.1:{port}\"`")),
            (_, Some(port), _) => Some(format!("write `\"[::]:{port}\"`")),
            (_, _, Ok(port)) => Some(format!("write `\"127.0.0.1:{port}\"`")),
            _ if text.parse::<IpAddr>().is_ok() => Some("add a port".to_owned()),
            _ if text.starts_with('/') => Some(format!("write `{}`", quote(&format!("unix:{text}")))),
            _ => None,
        };
        let message = format!(
            "expected an address with port such as `127.0.0.1:8402`, `unix:PATH` or `systemd`, found `{}`",
            quote(text)
        );
        section.layers.complain(at, message, help);
        return None;
    };
    Some(Listen::Tcp(address))
}

/// What stands behind `unix:`.
pub(super) fn unix_path(section: &Section<'_>, at: &str, path: &str, base: &Path) -> Option<PathBuf> {
    let full = base.join(path);
    if path.is_empty() || full.as_os_str().len() > UNIX_BYTES_MAX {
        let message = format!("expected a path of 1 to {UNIX_BYTES_MAX} bytes behind `unix:`, found `{}`", quote(path));
        section.layers.complain(at, message, None);
        return None;
    }
    Some(full)
}

/// `trusted_proxies`, `forwarded_fields`, `proxy_protocol`.
pub(super) fn trust(section: &Section<'_>) -> Option<Trust> {
    let mut trust = Trust {
        fields: match section.text("forwarded_fields") {
            Some("forwarded") => ForwardedFields::Forwarded,
            _ => ForwardedFields::XForwarded,
        },
        proxy_protocol: section.flag("proxy_protocol"),
        ..Trust::default()
    };
    let mut whole = true;
    for (path, text) in section.texts("trusted_proxies") {
        if text == "unix" {
            trust.unix = true;
            continue;
        }
        match network(section, &path, text, ", or `unix`") {
            Some(net) => {
                if net.prefix_len() == 0 {
                    let message =
                        format!("`{net}` is everybody: each client is believed about its address, host and scheme");
                    section.layers.warn(&path, message, "name the addresses of the proxies in front of the gateway");
                }
                trust.nets.push(net);
            }
            None => whole = false,
        }
    }
    if trust.proxy_protocol && trust.nets.is_empty() && !trust.unix && whole {
        let help = "name whose headers are believed in `trusted_proxies`".to_owned();
        section.complain("proxy_protocol", "nobody is trusted to send it", Some(help));
        return None;
    }
    whole.then_some(trust)
}

/// An address or a network, `or` what else could stand there.
pub(super) fn network(section: &Section<'_>, path: &str, text: &str, or: &str) -> Option<IpNet> {
    match text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from)) {
        Ok(net) if net.trunc() == net => Some(net),
        Ok(net) => {
            let help = format!("write `\"{}\"`", net.trunc());
            section.layers.complain(path, format!("`{net}` has bits behind its prefix"), Some(help));
            None
        }
        Err(_) => {
            let message = format!("expected an address, a network such as `10.0.0.0/8`{or}, found `{}`", quote(text));
            section.layers.complain(path, message, None);
            None
        }
    }
}
