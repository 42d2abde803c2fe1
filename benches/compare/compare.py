"""Tollgate beside nginx: CPU per request, rate, memory.

Every contestant runs once per round, on one core of its own; origin and load generator share another. Rounds rotate the
order. A run is measured for --seconds after a warm-up of --warmup. CPU per request is (user + system time of the
contestant's processes) / (requests answered). Noise from neighbours only adds, so the best round counts, and only
ratios within one run compare: absolute figures move from machine to machine and from day to day.

Everything listens on 127.0.0.1, on free ports, in a folder below target/ that is removed at the end.

Environment:
  TOLLGATE   binary, default target/release/tollgate
  PAID_LOAD  command that makes paid requests; without it the scenario `paid` is left out. It gets GATEWAY_URL (a
             priced page), AGENT_URL (the agent, whose directory this script serves), KEY_FILE (its private key as
             JWK), REQUESTS and CONNECTIONS; fetches REQUESTS offers, signs them, prints `ready`, waits for a line on
             standard input, sends them all, and prints `requests N`, N being those answered 200.
  EXACT_LOAD, STUB_FACILITATOR
             commands for the scenario `exact`, which is left out without them: load of token payments (GATEWAY_URL,
             REQUESTS, CONNECTIONS; prints as PAID_LOAD does), and a facilitator that says yes (PORT, NETWORK)
  AXUM_SHOP  a shop made with x402-axum, beside it (PORT, FACILITATOR_URL, PAY_TO): benches/compare/axum
  X402_DIR   folder with tests/interop/x402 installed (`./test interop` makes target/interop/x402): its @x402/express
  VERIFY_US  what one Ed25519 verification costs here (from the micro benchmark), taken off the paid request's surplus
"""

import argparse
import json
import os
import pathlib
import re
import resource
import select
import shlex
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time

import processes
import servers

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
SCENARIOS = ("free-1k", "free-100k", "offer", "paid", "exact", "memory")
MIB = 1024


def arguments():
    parser = argparse.ArgumentParser(
        prog="compare.sh", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("scenario", nargs="*", help=f"of {', '.join(SCENARIOS)}; all by default")
    parser.add_argument("--rounds", type=int, default=5, help="default 5")
    parser.add_argument("--seconds", type=int, default=3, help="length of a measured run, default 3")
    parser.add_argument("--warmup", type=int, default=1, help="before each run, default 1")
    parser.add_argument("--connections", type=int, default=64, help="of the load generator, default 64")
    parser.add_argument("--requests", type=int, default=30_000, help="paid requests a round, default 30000")
    parser.add_argument("--token-requests", type=int, default=3_000, help="token payments a round, default 3000")
    parser.add_argument("--idle", type=int, default=2_000, help="idle connections, default 2000")
    parser.add_argument("--paid-extra", type=pathlib.Path, metavar="FILE",
                        help="TOML after the configuration of a second Tollgate in `paid`, named after the file")
    parser.add_argument("--json", type=pathlib.Path, metavar="FILE", help="also write every figure there")
    parser.add_argument("--check", action="store_true", help="exit code 1 if a figure is over its due value")
    parser.add_argument("--smoke", action="store_true", help="one short round: does everything still run?")
    options = parser.parse_args()
    unknown = set(options.scenario) - set(SCENARIOS)
    if unknown or min(options.rounds, options.seconds, options.connections, options.requests, options.idle) < 1:
        parser.error(f"unknown scenario or a count below 1: {' '.join(unknown)}")
    options.scenario = options.scenario or list(SCENARIOS)
    if options.smoke:
        options.rounds, options.seconds, options.warmup, options.requests, options.idle = 1, 1, 0, 500, 200
        options.token_requests = 100
    return options


class Run:
    """One run of all scenarios, its figures, and the lines over a due value."""

    def __init__(self, options, all_servers):
        self.options, self.servers = options, all_servers
        self.figures, self.over = {}, []

    # --- load ---

    def wrk(self, server, path, seconds, connections, refused=False):
        """Requests answered as they should be, and the rate."""
        url = f"http://127.0.0.1:{server.port}{path}"
        command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "10s", url]
        text = self._on_other_core(command)
        requests = int(re.search(r"(\d+) requests in", text)[1])
        rate = float(re.search(r"Requests/sec:\s*([\d.]+)", text)[1])
        other = int((re.search(r"Non-2xx or 3xx responses: (\d+)", text) or [0, 0])[1])
        if "Socket errors" in text or other != (requests if refused else 0) or requests == 0:
            raise SystemExit(f"compare: {server.name} failed under load:\n{text}")
        return requests, rate

    def _on_other_core(self, command):
        core = self.servers.other_core
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120,
                              preexec_fn=lambda: os.sched_setaffinity(0, {core}))
        if done.returncode != 0:
            raise SystemExit(f"compare: {shlex.join(command)} failed:\n{done.stdout}{done.stderr}")
        return done.stdout

    def measure_wrk(self, server, path, refused):
        if self.options.warmup > 0:
            self.wrk(server, path, self.options.warmup, self.options.connections, refused)
        before = server.cpu_seconds()
        requests, rate = self.wrk(server, path, self.options.seconds, self.options.connections, refused)
        return (server.cpu_seconds() - before) * 1e6 / requests, rate

    def measure_paid(self, server):
        environment = {"KEY_FILE": str(self.servers.folder / "key.json")}
        return self._measure_load(server, "PAID_LOAD", self.options.requests, environment)

    def measure_exact(self, server):
        return self._measure_load(server, "EXACT_LOAD", self.options.token_requests, {})

    def _measure_load(self, server, command, count, environment):
        environment = dict(os.environ, GATEWAY_URL=f"http://127.0.0.1:{server.port}/paid/small", REQUESTS=str(count),
                           CONNECTIONS=str(self.options.connections), **environment)
        core = self.servers.other_core
        with subprocess.Popen(shlex.split(os.environ[command]), env=environment, stdin=subprocess.PIPE,
                              stdout=subprocess.PIPE, text=True, bufsize=1,
                              preexec_fn=lambda: os.sched_setaffinity(0, {core})) as load:
            try:
                self._line(load, r"ready$")
                before, start = server.cpu_seconds(), time.monotonic()
                load.stdin.write("go\n")
                load.stdin.flush()
                requests = int(self._line(load, r"requests (\d+)")[1])
                spent, took = server.cpu_seconds() - before, time.monotonic() - start
            finally:
                load.kill()
        if requests < count * 0.99:
            raise SystemExit(f"compare: {server.name}: only {requests} payments were answered 200")
        return spent * 1e6 / requests, requests / took

    @staticmethod
    def _line(load, pattern):
        if not select.select([load.stdout], [], [], 120)[0]:
            raise SystemExit(f"compare: the load generator printed nothing for 120 s, not even {pattern}")
        line = load.stdout.readline()
        found = re.match(pattern, line.strip())
        if not found:
            raise SystemExit(f"compare: the load generator printed {line!r} instead of {pattern}")
        return found

    # --- scenarios ---

    def compare(self, title, contestants, measure, dues=()):
        """Rounds in rotated order. `dues`: (contestant, compared with, due, aim)."""
        results = {server.name: [] for server in contestants}
        for number in range(self.options.rounds):
            turn = number % len(contestants)
            for server in contestants[turn:] + contestants[:turn]:
                results[server.name].append(measure(server))
        best = {name: min(cpu for cpu, _ in runs) for name, runs in results.items()}
        print(f"\n{title:<38}{'best µs':>9}{'median':>9}{'× nginx':>9}{'req/s':>9}")
        for name, runs in results.items():
            cpu, rate = (statistics.median(column) for column in zip(*runs))
            base = best.get("nginx", best.get("nginx-402"))
            ratio = f"{best[name] / base:>9.2f}" if base else " " * 9
            print(f"  {name:<36}{best[name]:>9.1f}{cpu:>9.1f}{ratio}{rate:>9.0f}")
            self.figures.setdefault(title, {})[name] = [{"cpu_us": cpu, "rate": rate} for cpu, rate in runs]
        for name, against, due, aim in dues:
            self.target(f"{title}: CPU of {name} over {against}", best[name] / best[against], due, aim)
        sys.stdout.flush()
        return best

    def target(self, what, value, due, aim, least=False):
        """Compares a figure with design targets; `least`: more is better."""
        sign = "≥" if least else "≤"
        missed = value < due if least else value > due
        if missed:
            self.over.append(what)
        print(f"  {what}: {value:.2f}, due {sign} {due:g}, aim {sign} {aim:g}{'   OVER' if missed else ''}")
        self.figures.setdefault("targets", {})[what] = {"value": value, "due": due, "aim": aim, "met": not missed}

    def free(self, size, path, names, dues):
        contestants = [self.servers.nginx(name) for name in names] + [self.servers.tollgate()]
        for server in contestants:
            status, _, body, _ = processes.fetch(server.port, path)
            if (status, len(body)) != (200, size):
                raise SystemExit(f"compare: {server.name} answers {path} with {status} and {len(body)} bytes")
        title = f"free, {size // 1024} KiB, {self.options.connections} connections"
        best = self.compare(title, contestants, lambda server: self.measure_wrk(server, path, False), dues)
        self.stop(contestants)
        return best["tollgate"]

    def offer(self):
        tollgate = self.servers.tollgate()
        ours = processes.fetch(tollgate.port, "/paid/small")
        if ours[0] != 402:
            raise SystemExit(f"compare: tollgate answers an unpaid request with {ours[0]}: {ours[2][:500]!r}")
        contestants = [self.servers.nginx_402(ours), tollgate]
        theirs = processes.fetch(contestants[0].port, "/paid/small")
        title = f"offer, {ours[3]} bytes (nginx {theirs[3]})"
        self.compare(title, contestants, lambda server: self.measure_wrk(server, "/paid/small", True),
                     [("tollgate", "nginx-402", 1.25, 1.00)])
        self.stop(contestants)

    def paid(self, free):
        if "PAID_LOAD" not in os.environ:
            print("\npaid: left out, PAID_LOAD is not set")
            return
        contestants = [self.servers.tollgate()]
        if self.options.paid_extra:
            extra = self.options.paid_extra
            contestants.append(self.servers.tollgate(extra.stem, "\n" + extra.read_text()))
        title = f"paid, 1 KiB, {self.options.connections} connections"
        best = self.compare(title, contestants, self.measure_paid)
        runs = self.figures[title]
        rate = {name: max(one["rate"] for one in rounds) for name, rounds in runs.items()}
        self.target("paid requests a second, best round", rate["tollgate"], 12_000, 18_000, least=True)
        for server in contestants[1:]:
            self.target(f"that rate over {server.name}'s", rate["tollgate"] / rate[server.name], 0.8, 0.92, least=True)
        if free is not None:
            over, verify = best["tollgate"] - free, os.environ.get("VERIFY_US")
            if verify is None:
                print(f"  paid over free: {over:.1f} µs, one Ed25519 verification among them (VERIFY_US takes it off)")
            else:
                self.target("paid over free, beyond one verification, µs", over - float(verify), 15, 8)
        self.stop(contestants)

    def exact(self):
        if not {"EXACT_LOAD", "STUB_FACILITATOR"} <= os.environ.keys():
            print("\nexact: left out, EXACT_LOAD or STUB_FACILITATOR is not set")
            return
        contestants = self.servers.token_shops()
        title = f"paid by a token, 1 KiB, {self.options.connections} connections"
        best = self.compare(title, contestants, self.measure_exact)
        for server in contestants[1:]:
            print(f"  {server.name} over tollgate: {best[server.name] / best['tollgate']:.2f}")
        self.stop(contestants)

    def memory(self):
        print(f"\n{'memory':<38}{'start MiB':>11}{'busy MiB':>11}{'idle KiB':>11}")
        rows = {}
        for name, start in (("nginx", lambda: self.servers.nginx("nginx")), ("tollgate", self.servers.tollgate)):
            server = start()
            fresh = server.rss_kib() / MIB
            self.wrk(server, "/small", self.options.seconds, 512)
            busy = server.rss_kib() / MIB
            self.stop([server])
            # Idle connections cost what they cost in a process that was never busy.
            server = start()
            idle = self.idle_kib(server)
            self.stop([server])
            rows[name] = {"start_mib": fresh, "busy_mib": busy, "idle_kib": idle}
            print(f"  {name:<36}{fresh:>11.1f}{busy:>11.1f}{idle:>11.2f}")
        self.figures["memory"] = rows
        ours = rows["tollgate"]
        self.target("resident after start, MiB", ours["start_mib"], 12, 6)
        self.target("resident after 512 busy connections, MiB", ours["busy_mib"], 40, 15)
        self.target(f"PSS per idle connection of {self.options.idle}, KiB", ours["idle_kib"], 12, 2)

    def idle_kib(self, server):
        request = f"GET /small HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n\r\n".encode()

        def connect():
            stream = socket.create_connection(("127.0.0.1", server.port), timeout=10)
            stream.sendall(request)
            processes.read_answer(stream)
            return stream

        streams = [connect() for _ in range(8)]  # what the first requests set up once
        try:
            before = server.pss_kib()
            streams += [connect() for _ in range(self.options.idle)]
            return (server.pss_kib() - before) / self.options.idle
        finally:
            for stream in streams:
                stream.close()

    def stop(self, contestants):
        for server in contestants:
            self.servers.stop(server)

    def all(self):
        free = None
        for scenario in self.options.scenario:
            if scenario == "free-1k":
                free = self.free(servers.SMALL, "/small", ["nginx"], [("tollgate", "nginx", 1.05, 0.90)])
            elif scenario == "free-100k":
                dues = [("tollgate", "nginx", 0.45, 0.38), ("tollgate", "nginx-64k", 1.30, 1.10)]
                self.free(servers.LARGE, "/large", ["nginx", "nginx-64k"], dues)
            elif scenario == "offer":
                self.offer()
            elif scenario == "paid":
                self.paid(free)
            elif scenario == "exact":
                self.exact()
            else:
                self.memory()


def main():
    options = arguments()
    binary = os.path.realpath(os.environ["TOLLGATE"])
    if not os.access(binary, os.X_OK):
        raise SystemExit(f"compare: no binary {binary}; cargo build --release, or set TOLLGATE")
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, 65536), most))
    # A stop from outside ends through `finally`, as does a run that hangs.
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGALRM):
        signal.signal(number, lambda *_: sys.exit("compare: stopped"))
    signal.alarm(3600)

    target = REPOSITORY / "target"
    target.mkdir(exist_ok=True)
    # On the repository's disk: a temporary file system would make durable payments free.
    folder = pathlib.Path(tempfile.mkdtemp(prefix="compare-", dir=target))
    all_servers = None
    try:
        all_servers = servers.Servers(folder, binary)
        one, other = processes.cores()
        print(f"contestants on core {one}, origin and load on core {other}; ", end="")
        print(f"{options.rounds} rounds of {options.seconds} s", flush=True)
        run = Run(options, all_servers)
        run.all()
        if options.json:
            options.json.write_text(json.dumps(run.figures, indent=1) + "\n")
        if run.over:
            print(f"\n{len(run.over)} over the due value: {'; '.join(run.over)}")
        return 1 if run.over and options.check else 0
    finally:
        if all_servers:
            all_servers.stop_all()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
