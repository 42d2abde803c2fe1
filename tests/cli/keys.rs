//! `tollgate keygen` and `tollgate directory`

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use tollgate::wire::directory::{Directory, WELL_KNOWN};
use tollgate::wire::jwk::{signing_key, thumbprint};

use crate::support::gateway::{binary, tollgate};
use crate::support::{Answer, exchange};

#[test]
fn a_key_is_private_and_never_overwritten_by_accident() {
    let dir = tempfile::tempdir().unwrap();
    let (code, out, err) = tollgate(dir.path(), &["keygen", "-o", "k.jwk"]);
    assert_eq!(code, 0, "{err}");
    let path = dir.path().join("k.jwk");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let first = fs::read_to_string(&path).unwrap();
    let key = signing_key(&first).unwrap();
    assert!(out.contains(&thumbprint(&key.verifying_key())), "{out}");
    let d = serde_json::from_str::<serde_json::Value>(&first).unwrap()["d"].as_str().unwrap().to_owned();
    assert!(!out.contains(&d) && !err.contains(&d), "the private half is shown");
    assert!(err.contains("tollgate directory --key k.jwk"), "{err}");

    let (code, _, err) = tollgate(dir.path(), &["keygen", "-o", "k.jwk"]);
    assert!(code == 1 && err.contains("--force"), "{err}");
    assert_eq!(fs::read_to_string(&path).unwrap(), first);

    // Replaced, a file that anybody could read is private.
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    assert_eq!(tollgate(dir.path(), &["keygen", "-o", "k.jwk", "--force"]).0, 0);
    assert_ne!(fs::read_to_string(&path).unwrap(), first);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);

    let (code, _, err) = tollgate(dir.path(), &["keygen", "-o", "no/such/folder/k.jwk"]);
    assert!(code == 1 && err.contains("can't be written"), "{err}");
}

/// A served directory; killed when dropped.
struct Served {
    child: Child,
    addr: SocketAddr,
    shown: String,
}

impl Served {
    fn start(dir: &Path) -> Served {
        assert_eq!(tollgate(dir, &["keygen"]).0, 0);
        let mut child = Command::new(binary())
            .args(["directory", "--key", "agent.jwk"])
            .current_dir(dir)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
        let url = lines.next().unwrap();
        let addr = url.strip_prefix("http://").and_then(|url| url.strip_suffix(WELL_KNOWN)).unwrap().parse().unwrap();
        let shown = lines.take_while(|line| !line.contains("credit")).collect::<Vec<_>>().join("\n");
        Served { child, addr, shown }
    }

    fn ask(&self, method: &str, path: &str, fields: &str) -> Answer {
        let head = format!("{method} {path} HTTP/1.1\r\nHost: {}\r\n{fields}Connection: close\r\n\r\n", self.addr);
        exchange(self.addr, head)
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_directory_is_served_as_verifiers_want_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut served = Served::start(dir.path());
    let answer = served.ask("GET", WELL_KNOWN, "");
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-type"), Some("application/http-message-signatures-directory+json"));
    assert_eq!(answer.header("cache-control"), Some("max-age=86400"));
    assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
    assert!(!answer.text().contains("\"d\""), "{}", answer.text());
    let keys = Directory::parse(&answer.body, 1, false, |_, error| panic!("{error}")).unwrap();
    assert_eq!(keys[0].jwk.kid.as_deref(), Some(keys[0].public.thumbprint()));
    assert!(served.shown.contains(&format!("agents = [\"http://{}\"]", served.addr)), "{}", served.shown);

    let head = served.ask("HEAD", WELL_KNOWN, "");
    assert_eq!((head.status, head.header("content-length")), (200, Some(answer.body.len().to_string().as_str())));
    assert_eq!(head.header("etag"), answer.header("etag"));
    let known = format!("If-None-Match: {}\r\n", answer.header("etag").unwrap());
    let known = served.ask("GET", WELL_KNOWN, &known);
    assert_eq!((known.status, known.body.len(), known.header("etag")), (304, 0, answer.header("etag")));

    assert_eq!(served.ask("GET", "/", "").status, 404);
    assert_eq!(served.ask("GET", &format!("{WELL_KNOWN}/"), "").status, 404);
    let post = served.ask("POST", WELL_KNOWN, "Content-Length: 0\r\n");
    assert_eq!((post.status, post.header("allow")), (405, Some("GET, HEAD")));

    assert!(Command::new("kill").args(["-TERM", &served.child.id().to_string()]).status().unwrap().success());
    assert_eq!(served.child.wait().unwrap().code(), Some(0));
}

#[test]
fn a_directory_can_be_printed_for_several_keys() {
    let dir = tempfile::tempdir().unwrap();
    for key in ["old.jwk", "new.jwk"] {
        assert_eq!(tollgate(dir.path(), &["keygen", "-o", key]).0, 0);
    }
    let (code, out, err) = tollgate(dir.path(), &["directory", "--key", "old.jwk", "--key", "new.jwk", "--print"]);
    assert_eq!((code, err.as_str()), (0, ""));
    assert_eq!(Directory::parse(out.as_bytes(), 2, false, |_, error| panic!("{error}")).unwrap().len(), 2);
}

#[test]
fn a_public_key_is_no_private_key() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("public.jwk"), r#"{"kty":"OKP","crv":"Ed25519","x":"AAAA"}"#).unwrap();
    let (code, _, err) = tollgate(dir.path(), &["directory", "--key", "public.jwk", "--print"]);
    assert!(code == 2 && err.contains("public.jwk is not a private key: the private member `d` is missing"), "{err}");
}

#[test]
fn a_port_in_use_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let served = Served::start(dir.path());
    let (code, _, err) =
        tollgate(dir.path(), &["directory", "--key", "agent.jwk", "--listen", &served.addr.to_string()]);
    assert!(code == 2 && err.contains("in use"), "{err}");
}
