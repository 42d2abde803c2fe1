"""What is compared, and the origin behind it: nginx and Tollgate with settings that mean the same work."""

import functools
import http.server
import json
import os
import pathlib
import shlex
import threading

import processes

SMALL, LARGE = 1024, 100 * 1024

# A key for measurements only. Not one of RFC 9421: the gateway refuses those.
KEY = {
    "kty": "OKP",
    "crv": "Ed25519",
    "x": "h1XK4E7iDLjZOHzAtLsrjTHJ8LLYSGd-X3fFTHlnM6c",
    "d": "LvpM6TijGPrG9vrZEz_5VrpYg0VBhmVwmRaKqiktcgo",
}

NGINX = """\
{user}
daemon off;
worker_processes 1;
worker_rlimit_nofile 65536;
pid {folder}/{name}.pid;
error_log stderr warn;
events {{ worker_connections 16384; }}
http {{
    access_log off;
    server_tokens off;
    sendfile on;
    tcp_nopush on;
    keepalive_requests 1000000000;
    keepalive_timeout 300s;
    open_file_cache max=16 inactive=600s;
    open_file_cache_valid 600s;
    client_body_temp_path {folder}/{name}-body;
    proxy_temp_path {folder}/{name}-proxy;
    fastcgi_temp_path {folder}/{name}-fastcgi;
    uwsgi_temp_path {folder}/{name}-uwsgi;
    scgi_temp_path {folder}/{name}-scgi;
{http}
}}
"""

ORIGIN = """\
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        default_type application/octet-stream;
        location / {{ root {folder}/site; }}
        # From memory: cheaper than a file.
        location ~ small$ {{ return 200 "{small}"; }}
    }}
"""

PROXY = """\
    upstream origin {{
        server 127.0.0.1:{origin};
        keepalive 512;
        keepalive_requests 1000000000;
        keepalive_timeout 300s;
    }}
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        location / {{
            proxy_pass http://origin;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Host $http_host;
            proxy_max_temp_file_size 0;
            {buffers}
        }}
    }}
"""

BUFFERS = {
    "nginx": "",
    "nginx-64k": "proxy_buffering off; proxy_buffer_size 64k; proxy_buffers 8 64k;",
}

OFFER = """\
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        location / {{
            default_type "{content_type}";
            {headers}
            return 402 "{body}";
        }}
    }}
"""

# One account and one priced prefix; everything outside /paid/ is free.
TOLLGATE = """\
[server]
listen = ["127.0.0.1:{port}"]
cores = 1
[origin]
url = "http://127.0.0.1:{origin}"
[deferred]
network = "tollgate:deferred"
[[accounts]]
name = "bench"
agents = ["http://127.0.0.1:{directory}"]
credit = "1000000 USD"
[[routes]]
path = "/paid/*"
price = "0.01 USD"
"""

# Who is paid in tokens, and where.
PAY_TO, NETWORK = "0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC", "eip155:84532"

# The same prefix, paid in tokens.
TOKENS = """\
[server]
listen = ["127.0.0.1:{port}"]
cores = 1
[origin]
url = "http://127.0.0.1:{origin}"
[facilitators.stub]
url = "http://127.0.0.1:{facilitator}"
[[exact.assets]]
network = "{network}"
pay_to = "{pay_to}"
[[routes]]
path = "/paid/*"
price = "0.01 USD"
accept = ["exact"]
"""


class Servers:
    """Starts servers below one folder, and stops all of them."""

    def __init__(self, folder, binary):
        self.folder, self.binary = folder, binary
        self.contestant_core, self.other_core = processes.cores()
        self.running, self.started = [], 0
        (folder / "site" / "paid").mkdir(parents=True)
        for name, size in (("large", LARGE), ("paid/large", LARGE)):
            (folder / "site" / name).write_bytes(b"x" * size)
        (folder / "key.json").write_text(json.dumps(KEY))
        self.directory = self._directory()
        self.origin = self._nginx("origin", ORIGIN, core=self.other_core, small="x" * SMALL)

    def nginx(self, name):
        return self._nginx(name, PROXY, origin=self.origin.port, buffers=BUFFERS[name])

    def nginx_402(self, like):
        """`return 402` with the body and the header fields of Tollgate's answer `like`."""
        _, fields, body, size = like

        def quoted(text):
            # A $ would be a variable.
            text = text.replace("\\", "\\\\").replace('"', '\\"').replace("$", "S")
            if len(text) > 4000:
                raise SystemExit("compare: Tollgate's offer has a field or body too long for nginx's configuration")
            return text

        own = {"date", "server", "connection", "content-length", "content-type", "transfer-encoding"}
        content_type = next((value for name, value in fields if name.lower() == "content-type"), "text/plain")
        headers = [f'add_header {name} "{quoted(value)}" always;' for name, value in fields if name.lower() not in own]
        values = {"content_type": content_type, "body": quoted(body.decode())}
        start = functools.partial(self._nginx, "nginx-402", OFFER, **values)
        server = start(headers="\n".join(headers))
        lacking = size - processes.fetch(server.port, "/")[3] - len("X-Pad: \r\n")
        if lacking <= 0:
            return server
        self.stop(server)
        return start(headers="\n".join([*headers, f'add_header X-Pad "{"x" * lacking}" always;']))

    def tollgate(self, name="tollgate", extra=""):
        port, folder = processes.free_port(), self._own_folder(name)
        config = folder / "tollgate.toml"
        settings = TOLLGATE.format(port=port, origin=self.origin.port, directory=self.directory.server_port)
        config.write_text(settings + extra)
        command = [self.binary, "run", "-c", str(config)]
        return self._started(processes.Process(name, command, port, self.contestant_core, folder))

    def token_shops(self):
        """Tollgate before the origin, and those peers that are installed; they answer from memory, without an origin."""
        facilitator = processes.free_port()
        stub = self._spawn("stub-facilitator", os.environ["STUB_FACILITATOR"], facilitator, self.other_core,
                           NETWORK=NETWORK)
        port, folder = processes.free_port(), self._own_folder("tokens")
        config = folder / "tollgate.toml"
        values = {"origin": self.origin.port, "facilitator": stub.port, "network": NETWORK, "pay_to": PAY_TO}
        config.write_text(TOKENS.format(port=port, **values))
        command = [self.binary, "run", "-c", str(config)]
        shops = [self._started(processes.Process("tollgate", command, port, self.contestant_core, folder))]
        settings = {"FACILITATOR_URL": f"http://127.0.0.1:{stub.port}", "PAY_TO": PAY_TO}
        if "AXUM_SHOP" in os.environ:
            shops.append(self._spawn("x402-axum", os.environ["AXUM_SHOP"], processes.free_port(), **settings))
        if "X402_DIR" in os.environ:
            script = pathlib.Path(__file__).with_name("express.mjs")
            shops.append(self._spawn("@x402/express", f"node {shlex.quote(str(script))}", processes.free_port(), **settings))
        return shops

    def _spawn(self, name, command, port, core=None, **settings):
        folder = self._own_folder(name.rpartition("/")[2])
        core = self.contestant_core if core is None else core
        settings["PORT"] = str(port)
        return self._started(processes.Process(name, shlex.split(command), port, core, folder, settings))

    def stop(self, server):
        self.running.remove(server)
        server.stop()

    def stop_all(self):
        while self.running:
            self.running.pop().stop()
        self.directory.shutdown()

    def _nginx(self, name, http, core=None, **values):
        port, folder = processes.free_port(), self._own_folder(name)
        config = folder / "nginx.conf"
        http = http.format(port=port, folder=self.folder, **values)
        # Started by root, workers would run as a user who may not read our folder.
        user = "user root;" if os.getuid() == 0 else ""
        config.write_text(NGINX.format(folder=folder, name=name, http=http, user=user))
        command = ["nginx", "-e", "stderr", "-p", str(folder), "-c", str(config)]
        core = self.contestant_core if core is None else core
        return self._started(processes.Process(name, command, port, core, folder))

    def _own_folder(self, name):
        self.started += 1
        folder = self.folder / f"{self.started}-{name}"
        folder.mkdir()
        return folder

    def _started(self, server):
        self.running.append(server)
        return server

    def _directory(self):
        """The agent's key directory."""
        public = {name: KEY[name] for name in ("kty", "crv", "x")}
        content = json.dumps({"keys": [public]}).encode()

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                known = self.path == "/.well-known/http-message-signatures-directory"
                self.send_response(200 if known else 404)
                self.send_header("Content-Type", "application/http-message-signatures-directory+json")
                self.send_header("Content-Length", str(len(content) if known else 0))
                self.end_headers()
                if known:
                    self.wfile.write(content)

            def log_message(self, *_):
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        os.environ["AGENT_URL"] = f"http://127.0.0.1:{server.server_port}"
        return server
