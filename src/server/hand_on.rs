//! Another process takes over: it gets this one's sockets, and this one ends when the other serves. No connection is refused,
//! since the sockets never close.

use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use command_fds::{CommandFdExt as _, FdMapping};

use crate::proxy::listener::Bound;

/// Tells the other process that somebody waits for its word, on its standard input.
const WAITED_FOR: &str = "TOLLGATE_SUCCEEDS";
/// How long the other process may take to serve.
const PATIENCE: Duration = Duration::from_secs(60);
/// The first descriptor that is passed (`sd_listen_fds(3)`).
const FIRST: i32 = 3;
const READY: &str = "ready";

/// Why the other process does not take over; this one goes on.
#[derive(Debug, thiserror::Error)]
pub enum HandOnError {
    /// The books are still with the process before this one, and would go past it.
    #[error("the ledger is not open here yet; try again when it is")]
    NoBooks,
    /// It could not be started, or its sockets not be passed.
    #[error("it can't be started: {0}")]
    Start(#[from] io::Error),
    /// It ended before it served.
    #[error("it ended before it served; its messages are above")]
    Ended,
    /// It did not serve in time, and was ended.
    #[error("it did not serve within {} s, and was ended", PATIENCE.as_secs())]
    Late,
}

/// Starts a command with these sockets, and waits until it serves. Returns its process id.
///
/// # Errors
/// [`HandOnError`]
pub(super) fn start(mut command: Command, sockets: &[(String, Bound)]) -> Result<u32, HandOnError> {
    let mappings = sockets.iter().zip(FIRST..).map(|((_, socket), child_fd)| {
        let parent_fd = OwnedFd::from(socket.again()?);
        Ok(FdMapping { parent_fd, child_fd })
    });
    command.fd_mappings(mappings.collect::<io::Result<_>>()?).map_err(io::Error::other)?;
    let names: Vec<&str> = sockets.iter().map(|(name, _)| name.as_str()).collect();
    let (word, end) = io::pipe()?;
    command
        .env_remove("LISTEN_PID")
        .env_remove("LISTEN_FDS_FIRST_FD")
        .env("LISTEN_FDS", sockets.len().to_string())
        .env("LISTEN_FDNAMES", names.join(":"))
        .env(WAITED_FOR, "1")
        .stdin(Stdio::from(end));
    let child = command.spawn()?;
    // It holds the pipe's other end as long as it lives.
    drop(command);
    wait(child, word)
}

fn wait(mut child: Child, word: io::PipeReader) -> Result<u32, HandOnError> {
    let (said, hears) = channel();
    std::thread::spawn(move || {
        let mut line = String::new();
        let read = BufReader::new(word).read_line(&mut line);
        let _ = said.send(read.is_ok() && line.trim() == READY);
    });
    match hears.recv_timeout(PATIENCE) {
        Ok(true) => Ok(child.id()),
        Ok(false) | Err(RecvTimeoutError::Disconnected) => {
            let _ = child.wait();
            Err(HandOnError::Ended)
        }
        Err(RecvTimeoutError::Timeout) => {
            let _ = child.kill();
            let _ = child.wait();
            Err(HandOnError::Late)
        }
    }
}

/// Tells the process before, if there is one that waits for it, that this one serves.
pub fn tell_ready() {
    if std::env::var_os(WAITED_FOR).is_none() {
        return;
    }
    // Its standard input is the end of a pipe that is written to.
    if let Ok(fd) = io::stdin().as_fd().try_clone_to_owned() {
        let _ = writeln!(io::PipeWriter::from(fd), "{READY}");
    }
}
