//! Unix sockets and sockets that are passed.

use std::io::{BufReader, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::Command;

use crate::support::client::{Answer, get, read_answer};
use crate::support::gateway::{binary, tollgate};
use crate::support::*;

fn over_unix(path: &std::path::Path, request: &str) -> Option<Answer> {
    let mut socket = UnixStream::connect(path).unwrap();
    socket.write_all(request.as_bytes()).unwrap();
    read_answer(&mut BufReader::new(socket), false)
}

const GET: &str = "GET /a HTTP/1.1\r\nHost: site.example\r\n\r\n";

fn toml(origin: &Origin, agent: &Agent, listen: &str) -> String {
    site_toml(origin, agent, "").replace("listen = [\"127.0.0.1:0\"]", listen)
}

#[test]
fn a_unix_socket_is_served_replaced_and_taken_away() {
    let (origin, agent, dir) = (Origin::start(), Agent::start(), tempfile::tempdir().unwrap());
    let path = dir.path().join("http.sock");
    // What a process has left behind that was killed.
    drop(UnixListener::bind(&path).unwrap());
    let gateway = Gateway::start_in(dir, &toml(&origin, &agent, "listen = [\"unix:http.sock\"]"));
    assert_eq!(over_unix(&path, GET).unwrap().text(), "content of /a");
    assert_eq!(origin.last().header("x-forwarded-for"), Some("unknown"));
    for _ in 0..20 {
        assert_eq!(over_unix(&path, GET).unwrap().status, 200, "whichever core accepts");
    }
    // A socket that somebody listens on is not taken from him.
    let (code, _, err) = tollgate(gateway.dir.path(), &["run", "-c", "tollgate.toml"]);
    assert_eq!(code, 2, "{err}");
    assert!(err.contains("cannot listen on unix:") && err.contains("another process has it"), "{err}");
    let (status, dir) = gateway.stop();
    assert!(status.success());
    assert!(!path.exists(), "it is taken away: {}", dir.path().display());
}

#[test]
fn a_file_that_is_no_socket_is_left_alone() {
    let (origin, agent, dir) = (Origin::start(), Agent::start(), tempfile::tempdir().unwrap());
    std::fs::write(dir.path().join("http.sock"), "mine").unwrap();
    std::fs::write(dir.path().join("tollgate.toml"), toml(&origin, &agent, "listen = [\"unix:http.sock\"]")).unwrap();
    let (code, _, err) = tollgate(dir.path(), &["run", "-c", "tollgate.toml"]);
    assert_eq!(code, 2, "{err}");
    assert_eq!(std::fs::read_to_string(dir.path().join("http.sock")).unwrap(), "mine");
}

#[test]
fn a_site_behind_a_unix_socket_is_an_origin() {
    let dir = tempfile::tempdir().unwrap();
    let listener = UnixListener::bind(dir.path().join("app.sock")).unwrap();
    std::thread::spawn(move || {
        for socket in listener.incoming() {
            let Ok(socket) = socket else { return };
            std::thread::spawn(move || {
                let mut reader = BufReader::new(socket.try_clone().unwrap());
                let mut socket = socket;
                while crate::support::origin::read_request(&mut reader).is_some() {
                    let _ = socket.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi");
                }
            });
        }
    });
    let gateway = Gateway::start_in(dir, "[server]\nlisten = [\"127.0.0.1:0\"]\n[origin]\nurl = \"unix:app.sock\"\n");
    for _ in 0..3 {
        assert_eq!(get(gateway.addr, "/a").text(), "hi");
    }
}

/// `systemd-socket-activate` needs systemd; what it does is a few lines of shell.
#[test]
fn sockets_that_a_service_manager_passes_are_served() {
    let (origin, agent, dir) = (Origin::start(), Agent::start(), tempfile::tempdir().unwrap());
    let path = dir.path().join("passed.sock");
    let script = "import os, socket, sys\n\
        unix = socket.socket(socket.AF_UNIX); unix.bind(sys.argv[1]); unix.listen()\n\
        tcp = socket.socket(); tcp.bind(('127.0.0.1', 0)); tcp.listen()\n\
        os.dup2(tcp.fileno(), 30); os.dup2(unix.fileno(), 31)\n\
        os.dup2(30, 3); os.dup2(31, 4)\n\
        env = dict(os.environ, LISTEN_FDS='2', LISTEN_PID=str(os.getpid()), LISTEN_FDNAMES='web:local')\n\
        os.execve(sys.argv[2], sys.argv[2:], env)\n";
    let mut command = Command::new("python3");
    command.args(["-c", script]).arg(&path).arg(binary());
    let listen = "listen = [\"systemd:web\", \"systemd:local\"]";
    let gateway = Gateway::start_by(dir, &toml(&origin, &agent, listen), command);
    for _ in 0..10 {
        assert_eq!(get(gateway.addr, "/a").text(), "content of /a");
        assert_eq!(over_unix(&path, GET).unwrap().text(), "content of /a");
    }
    let (status, _dir) = gateway.stop();
    assert!(status.success());
    assert!(path.exists(), "what was passed is the service manager's");
}

#[test]
fn without_a_service_manager_its_sockets_are_missing() {
    let (origin, agent, dir) = (Origin::start(), Agent::start(), tempfile::tempdir().unwrap());
    std::fs::write(dir.path().join("tollgate.toml"), toml(&origin, &agent, "listen = [\"systemd\"]")).unwrap();
    let (code, _, err) = tollgate(dir.path(), &["run", "-c", "tollgate.toml"]);
    assert_eq!(code, 2, "{err}");
    assert!(err.contains("cannot listen on systemd: the service manager passed no such socket"), "{err}");
}
