"""Processes under measurement: started on one core, read through /proc, stopped by pid."""

import os
import pathlib
import socket
import subprocess
import time

TICKS = os.sysconf("SC_CLK_TCK")
PROC = pathlib.Path("/proc")


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def cores():
    """Where contestants run, and where origin and load generator run; one core if there is no other."""
    usable = sorted(os.sched_getaffinity(0))
    return usable[0], usable[min(1, len(usable) - 1)]


class Process:
    """A server, ready once it accepts on `port`."""

    def __init__(self, name, command, port, core, folder, settings=None):
        self.name, self.port = name, port
        self.log = folder / "output.log"
        with self.log.open("wb") as log:
            self.child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=folder,
                env={**os.environ, **(settings or {})},
                preexec_fn=lambda: os.sched_setaffinity(0, {core}),
            )
        deadline = time.monotonic() + 15
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                return
            except OSError:
                if self.child.poll() is not None or time.monotonic() > deadline:
                    self.stop()
                    raise SystemExit(f"compare: {name} does not serve on port {port}:\n{self.log.read_text()}")
                time.sleep(0.02)

    def tree(self):
        """Pids of the process and of everything below it."""
        parents = {}
        for entry in PROC.iterdir():
            if entry.name.isdigit():
                try:
                    parents[int(entry.name)] = int(_stat(int(entry.name))[1])
                except OSError:
                    continue
        pids = [self.child.pid]
        for pid in pids:
            pids += [child for child, parent in parents.items() if parent == pid]
        return pids

    def cpu_seconds(self):
        return sum(int(field) for pid in self.tree() for field in _stat(pid)[11:13]) / TICKS

    def rss_kib(self):
        return sum(_kib(PROC / str(pid) / "status", "VmRSS") for pid in self.tree())

    def pss_kib(self):
        return sum(_kib(PROC / str(pid) / "smaps_rollup", "Pss") for pid in self.tree())

    def stop(self):
        if self.child.poll() is None:
            self.child.terminate()
            try:
                self.child.wait(timeout=15)
            except subprocess.TimeoutExpired:
                self.child.kill()
                self.child.wait()


def _stat(pid):
    """Fields of /proc/PID/stat after the command's name, which may hold spaces: [0] is the state, [1] the parent."""
    return (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()


def _kib(path, label):
    for line in path.read_text().splitlines():
        if line.startswith(label + ":"):
            return int(line.split()[1])
    raise SystemExit(f"compare: {path} has no {label}")


def fetch(port, path, headers=()):
    """One request on a connection of its own: status, header lines, body, size of the whole answer in bytes."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as stream:
        lines = [f"GET {path} HTTP/1.1", f"Host: 127.0.0.1:{port}", *headers, "", ""]
        stream.sendall("\r\n".join(lines).encode())
        return read_answer(stream)


def read_answer(stream):
    data = b""
    while b"\r\n\r\n" not in data:
        chunk = stream.recv(65536)
        if not chunk:
            raise SystemExit(f"compare: connection closed inside a head: {data!r}")
        data += chunk
    head, _, body = data.partition(b"\r\n\r\n")
    status, *fields = head.decode("latin-1").split("\r\n")
    fields = [tuple(part.strip() for part in field.split(":", 1)) for field in fields]
    length = next((int(value) for name, value in fields if name.lower() == "content-length"), None)
    if length is None:
        raise SystemExit(f"compare: an answer without Content-Length: {head!r}")
    while len(body) < length:
        chunk = stream.recv(65536)
        if not chunk:
            raise SystemExit("compare: connection closed inside a body")
        body += chunk
    return int(status.split()[1]), fields, body, len(head) + 4 + len(body)
