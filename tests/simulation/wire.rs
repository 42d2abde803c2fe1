//! What lies between a gateway and its server: each connection passes here, message by message, so that a commit can be held,
//! swallowed, or let through without its answer, and a gateway can be cut off or stand still.
//!
//! A transaction of the claims' thread is told from one of the writer by its `SET LOCAL synchronous_commit = off`. A gateway
//! stands still between two transactions, never in one: one that has begun goes on to its end.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, BufRead as _, BufReader, BufWriter, Read as _, Write as _},
    net::Shutdown,
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
    sync::{Arc, Condvar, Mutex, MutexGuard},
    thread::{self, Thread},
    time::Duration,
};

use super::stores::{Answer, Fate};

/// Longer than any machine needs to end a connection.
const STUCK: Duration = Duration::from_secs(20);

/// The way of one process to its server.
pub struct Wire {
    shared: Arc<Shared>,
    folder: tempfile::TempDir,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    /// Who steps the simulation.
    driver: Thread,
    server: PathBuf,
}

#[derive(Default)]
pub struct State {
    /// Its process is gone.
    dead: bool,
    /// The server is out of reach.
    pub cut: bool,
    pub frozen: bool,
    /// Of the writer's next commit.
    pub armed: Option<Fate>,
    /// Of the next commit in which something is claimed.
    pub armed_claim: Option<Fate>,
    /// Something was done that may have led to more: the writer has posted, a turn was given back, a connection has ended.
    pub busy: bool,
    /// The connection whose commit hangs.
    pub held: Option<u64>,
    answer: Option<Answer>,
    /// A commit that hung is on its way to the server.
    committing: bool,
    lines: BTreeMap<u64, Line>,
    last: u64,
}

/// A connection.
struct Line {
    client: UnixStream,
    server: UnixStream,
    /// The server's process.
    pid: Option<i32>,
    /// Nothing has been asked that is not answered, and no transaction is open.
    idle: bool,
    /// What the server says until it is ready again reaches nobody, and then the connection ends.
    swallows: bool,
}

impl Wire {
    /// To the server with this socket.
    pub fn new(server: &Path) -> Wire {
        let folder = tempfile::Builder::new().prefix("wire").tempdir().unwrap();
        let listener = UnixListener::bind(folder.path().join(".s.PGSQL.5432")).unwrap();
        let (state, changed) = (Mutex::default(), Condvar::new());
        let shared = Arc::new(Shared { state, changed, driver: thread::current(), server: server.to_owned() });
        let accepting = shared.clone();
        thread::spawn(move || {
            for client in listener.incoming() {
                if accepting.lock().dead {
                    return;
                }
                // Refused by whatever is in the way: the client is hung up on.
                let _ = client.and_then(|client| accepting.connect(client));
            }
        });
        Wire { shared, folder }
    }

    /// Where its process finds it.
    pub fn url(&self) -> String {
        let host = self.folder.path().to_str().unwrap().replace('/', "%2F");
        format!("postgres://books@{host}/books?sslmode=disable")
    }

    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.shared.lock()
    }

    /// The server's processes that work for it.
    pub fn pids(&self) -> Vec<i32> {
        self.lock().lines.values().filter_map(|line| line.pid).collect()
    }

    /// Ends a commit that hangs; when this returns, the server has done its part.
    pub fn answer(&self, answer: Answer) {
        let mut state = self.lock();
        if state.held.is_none() {
            return;
        }
        (state.answer, state.committing) = (Some(answer), answer != Answer::Fail);
        self.shared.changed.notify_all();
        self.wait("commit", state, |state| state.held.is_some() || state.committing);
    }

    /// Nothing passes until [`Wire::thaw`], once what has begun is over.
    pub fn freeze(&self) {
        let mut state = self.lock();
        state.frozen = true;
        self.wait("answer what has begun", state, |state| {
            state.lines.iter().any(|(id, line)| !line.idle && state.held != Some(*id))
        });
    }

    pub fn thaw(&self) {
        self.lock().frozen = false;
        self.shared.changed.notify_all();
    }

    /// The server is out of reach, or is no longer.
    pub fn cut(&self, cut: bool) {
        let mut state = self.lock();
        state.cut = cut;
        if cut {
            state.end_all();
            self.shared.changed.notify_all();
            self.wait("hang up", state, |state| !state.lines.is_empty());
        }
    }

    /// The process is dead: nothing more comes from it. A commit that hangs does not take place.
    pub fn die(&self) {
        let mut state = self.lock();
        state.dead = true;
        state.end_all();
        drop(state);
        self.shared.changed.notify_all();
        // Wakes who accepts.
        let _ = UnixStream::connect(self.folder.path().join(".s.PGSQL.5432"));
    }

    /// Waits until the server has let go of every connection.
    pub fn buried(&self) {
        self.wait("let go", self.lock(), |state| !state.lines.is_empty());
    }

    fn wait(&self, what: &str, state: MutexGuard<'_, State>, condition: impl Fn(&State) -> bool) {
        let waited = self.shared.changed.wait_timeout_while(state, STUCK, |state| condition(state)).unwrap();
        let late = waited.1.timed_out();
        drop(waited);
        assert!(!late, "the server does not {what}");
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.die();
    }
}

impl State {
    fn end_all(&self) {
        for line in self.lines.values() {
            let _ = line.server.shutdown(Shutdown::Write);
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn connect(self: &Arc<Self>, client: UnixStream) -> io::Result<()> {
        let server = UnixStream::connect(&self.server)?;
        let mut state = self.lock();
        if state.cut || state.dead {
            return Ok(());
        }
        state.last += 1;
        let (id, mine) = (state.last, (client.try_clone()?, server.try_clone()?));
        let (theirs, back) = ((client.try_clone()?, server.try_clone()?), self.clone());
        let line = Line { client, server, pid: None, idle: true, swallows: false };
        state.lines.insert(id, line);
        drop(state);
        let there = self.clone();
        thread::spawn(move || {
            let _ = there.up(id, mine.0, mine.1);
            // The server hears that nobody is there, ends what was begun, and hangs up.
            if let Some(line) = there.lock().lines.get(&id) {
                let _ = line.server.shutdown(Shutdown::Write);
            }
        });
        thread::spawn(move || {
            let _ = back.down(id, theirs.1, theirs.0);
            back.end(id);
        });
        Ok(())
    }

    /// The server has hung up.
    fn end(&self, id: u64) {
        let mut state = self.lock();
        if state.held == Some(id) {
            state.held = None;
        }
        (state.committing, state.busy) = (false, true);
        let swallows = state.lines.get(&id).is_some_and(|line| line.swallows);
        if let Some(line) = state.lines.get_mut(&id) {
            line.idle = true;
        }
        self.changed.notify_all();
        // Who stands still does not notice.
        let mut state =
            self.changed.wait_while(state, |state| state.frozen && !state.dead && !state.cut && !swallows).unwrap();
        if let Some(line) = state.lines.remove(&id) {
            let _ = line.server.shutdown(Shutdown::Both);
            let _ = line.client.shutdown(Shutdown::Both);
        }
        drop(state);
        self.changed.notify_all();
        self.driver.unpark();
    }

    /// What the gateway says.
    fn up(&self, id: u64, client: UnixStream, server: UnixStream) -> io::Result<()> {
        let (mut client, mut server) = (BufReader::new(client), BufWriter::new(server));
        let (mut claiming, mut giving_back) = (BTreeSet::<Vec<u8>>::new(), BTreeSet::<Vec<u8>>::new());
        let (mut waits, mut claims, mut starts) = (true, false, true);
        while !client.fill_buf()?.is_empty() {
            let message = if starts { read_start(&mut client)? } else { read(&mut client)? };
            self.pass_when_idle(id);
            match (message[0], message.get(5..).unwrap_or_default()) {
                _ if starts => starts = false,
                (b'Q', text) if text.starts_with(b"BEGIN") => (waits, claims) = (true, false),
                (b'Q', text) if text.starts_with(b"SET LOCAL synchronous_commit = off") => waits = false,
                (b'Q', text) if text.starts_with(b"ROLLBACK") => self.lock().busy |= waits,
                (b'P', named) => {
                    let mut parts = named.split(|byte| *byte == 0);
                    let (name, sql) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
                    if sql.starts_with(b"INSERT INTO claims") {
                        claiming.insert(name.to_vec());
                    }
                    if sql.starts_with(b"UPDATE claims SET releases = releases + 1") {
                        giving_back.insert(name.to_vec());
                    }
                }
                (b'B', named) => {
                    let name = named.split(|byte| *byte == 0).nth(1).unwrap_or_default();
                    claims |= claiming.contains(name);
                    if giving_back.contains(name) {
                        self.lock().busy = true;
                    }
                }
                (b'Q', text) if text.starts_with(b"COMMIT") => match self.fate_of_commit(id, waits, claims) {
                    Answer::Commit => {}
                    Answer::Unseen => {
                        if let Some(line) = self.lock().lines.get_mut(&id) {
                            line.swallows = true;
                        }
                    }
                    Answer::Fail => return Ok(()),
                },
                _ => {}
            }
            server.write_all(&message)?;
            if client.buffer().is_empty() {
                server.flush()?;
            }
        }
        Ok(())
    }

    /// What is begun goes on; who stands still begins nothing.
    fn pass_when_idle(&self, id: u64) {
        let state = self.lock();
        let stands = |state: &mut State| {
            let idle = state.lines.get(&id).is_some_and(|line| line.idle);
            idle && state.frozen && !state.dead && !state.cut
        };
        let mut state = self.changed.wait_while(state, stands).unwrap();
        if let Some(line) = state.lines.get_mut(&id) {
            line.idle = false;
        }
    }

    fn fate_of_commit(&self, id: u64, waits: bool, claims: bool) -> Answer {
        let mut state = self.lock();
        state.busy |= waits;
        let fate = match (waits, claims) {
            (true, _) => state.armed.take(),
            (false, true) => state.armed_claim.take(),
            (false, false) => None,
        };
        match fate {
            None | Some(Fate::Row) => Answer::Commit,
            Some(Fate::Fail) => Answer::Fail,
            Some(Fate::Unseen) => Answer::Unseen,
            Some(Fate::Broken) => {
                state.cut = true;
                state.end_all();
                Answer::Fail
            }
            Some(Fate::Hold) => {
                (state.held, state.answer) = (Some(id), None);
                self.changed.notify_all();
                self.driver.unpark();
                let hangs = |state: &mut State| state.held == Some(id) && state.answer.is_none() && !state.dead;
                let mut state = self.changed.wait_while(state, hangs).unwrap();
                state.held = state.held.filter(|held| *held != id);
                let answer = state.answer.take().unwrap_or(Answer::Fail);
                self.changed.notify_all();
                answer
            }
        }
    }

    /// What the server says, an answer at a time.
    fn down(&self, id: u64, server: UnixStream, client: UnixStream) -> io::Result<()> {
        let (mut server, mut client) = (BufReader::new(server), client);
        let mut answer = Vec::new();
        while !server.fill_buf()?.is_empty() {
            let message = read(&mut server)?;
            let mut state = self.lock();
            let Some(line) = state.lines.get_mut(&id) else { return Ok(()) };
            let ready = message[0] == b'Z';
            if message[0] == b'K' {
                line.pid = Some(i32::from_be_bytes(message[5..9].try_into().unwrap()));
            }
            if ready {
                line.idle = message[5] == b'I';
            }
            if line.swallows {
                if ready {
                    return Ok(());
                }
                continue;
            }
            answer.extend_from_slice(&message);
            if !ready {
                continue;
            }
            state.committing = false;
            self.changed.notify_all();
            drop(self.changed.wait_while(state, |state| state.frozen && !state.dead && !state.cut).unwrap());
            client.write_all(&answer)?;
            answer.clear();
        }
        // Its last word.
        client.write_all(&answer)?;
        Ok(())
    }
}

/// The first message has no type.
fn read_start(from: &mut BufReader<UnixStream>) -> io::Result<Vec<u8>> {
    let mut length = [0; 4];
    from.read_exact(&mut length)?;
    body(from, length.to_vec(), length)
}

fn read(from: &mut BufReader<UnixStream>) -> io::Result<Vec<u8>> {
    let mut head = [0; 5];
    from.read_exact(&mut head)?;
    body(from, head.to_vec(), [head[1], head[2], head[3], head[4]])
}

fn body(from: &mut BufReader<UnixStream>, mut message: Vec<u8>, length: [u8; 4]) -> io::Result<Vec<u8>> {
    let (head, rest) = (message.len(), (u32::from_be_bytes(length) as usize).saturating_sub(4));
    message.resize(head + rest, 0);
    from.read_exact(&mut message[head..])?;
    Ok(message)
}
