"""What is packaged runs and is well formed: packaging/ as a user of it would have it.

    check.py BINARY OUT

BINARY is the static one; OUT a folder for images. Prints a line for each check; the first that fails ends it with 1.
Lines that begin with «skip:» name what can't be checked here, and why; with a name of its own where ./test is to list it by that.
"""

import gzip
import hashlib
import json
import os
import re
import shutil
import signal
import struct
import subprocess
import sys
import tarfile
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
UID = 65532


def fail(text):
    sys.exit(f"FAILED: {text}")


def ok(text):
    print(f"ok: {text}", flush=True)


def run(*command, **options):
    return subprocess.run(command, capture_output=True, text=True, **options)


def is_static(path):
    with open(path, "rb") as file:
        data = file.read()
    offset, size, count = struct.unpack_from("<Q", data, 32)[0], *struct.unpack_from("<HH", data, 54)
    kinds = [struct.unpack_from("<I", data, offset + i * size)[0] for i in range(count)]
    if 3 in kinds:
        fail(f"{path} wants a program interpreter, so it is not static")
    ok("the binary is static")


def image(binary, out):
    lines = []
    for n in (1, 2):
        shutil.rmtree(f"{out}/{n}", ignore_errors=True)
        done = run(f"{ROOT}/packaging/oci/image", binary, f"{out}/{n}", "tollgate:test")
        if done.returncode:
            fail(done.stderr)
        lines.append(done.stdout.split()[1])
    if lines[0] != lines[1]:
        fail(f"two images of one binary differ: {lines}")
    layout = f"{out}/1"

    def blob(descriptor):
        algorithm, digest = descriptor["digest"].split(":")
        with open(f"{layout}/blobs/{algorithm}/{digest}", "rb") as file:
            data = file.read()
        if hashlib.sha256(data).hexdigest() != digest or len(data) != descriptor["size"]:
            fail(f"blob {digest} is not what its name says")
        return data

    with open(f"{layout}/oci-layout") as file:
        assert json.load(file) == {"imageLayoutVersion": "1.0.0"}
    with open(f"{layout}/index.json") as file:
        index = json.load(file)
    manifest = json.loads(blob(index["manifests"][0]))
    config = json.loads(blob(manifest["config"]))
    layer = gzip.decompress(blob(manifest["layers"][0]))
    if "sha256:" + hashlib.sha256(layer).hexdigest() != config["rootfs"]["diff_ids"][0]:
        fail("the configuration names another layer")
    if config["config"]["User"] != f"{UID}:{UID}" or config["config"]["Healthcheck"]["Test"][1] != "/usr/bin/tollgate":
        fail("the image does not run as it should")
    with tarfile.open(f"{layout}.tar") as tar:
        if "index.json" not in tar.getnames():
            fail("the tar is no image layout")
    ok("the image is whole, and the same each time")
    root = tempfile.mkdtemp(prefix="tollgate-root-")
    with open(f"{root}.tar", "wb") as file:
        file.write(layer)
    with tarfile.open(f"{root}.tar") as tar:
        tar.extractall(root, numeric_owner=True)
    os.remove(f"{root}.tar")
    return root, config["config"]


CONFIG = """
[server]
listen = ["127.0.0.1:0"]
[origin]
url = "http://127.0.0.1:9"
[offers]
secret_file = "/var/lib/tollgate/secret.json"
[ledger]
url = "sqlite:/var/lib/tollgate/ledger.sqlite"
[admin]
listen = ["unix:/var/lib/tollgate/admin.sock"]
[[accounts]]
name = "a"
agents = ["https://signer.example.com"]
credit = "1 USD"
[[routes]]
path = "/paid/*"
price = "0.01 USD"
"""


def runs_from_image(root, config):
    if os.geteuid() != 0 or not shutil.which("unshare"):
        print("skip: only root can run the image without an engine")
        return
    os.chmod(root, 0o755)
    # As container runtimes do.
    os.makedirs(f"{root}/dev", exist_ok=True)
    with open(f"{root}/etc/tollgate/tollgate.toml", "w") as file:
        file.write(CONFIG)
    # A root that can't be written to, but for the volume; nothing of the machine's is in it.
    enter = (
        f"mount --bind {root} {root} && mount --bind /dev {root}/dev && mount -t tmpfs -o mode=0700,uid={UID},gid={UID} tmpfs {root}/var/lib/tollgate && "
        f"mount -o remount,ro,bind {root} && exec chroot --userspec={UID}:{UID} {root} "
    )
    if run("unshare", "--mount", "sh", "-c", f"mount --bind {root} {root}").returncode:
        print("skip: the image is not run, since nothing can be mounted here")
        return
    command = config["Entrypoint"] + config["Cmd"]
    gateway = subprocess.Popen(
        ["unshare", "--mount", "sh", "-c", enter + " ".join(command)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={},
    )
    try:
        line = gateway.stdout.readline()
        if "listens on" not in line:
            gateway.kill()
            fail(f"the image does not start: {line}{gateway.stderr.read()}")
        check = " ".join(config["Healthcheck"]["Test"][1:])
        ready = " ".join([check, "--ready"])
        for asked in (check, ready):
            done = run("nsenter", "--mount", f"--target={gateway.pid}", "chroot", f"--userspec={UID}:{UID}", root, *asked.split())
            if done.returncode:
                fail(f"{asked}: {done.stdout}{done.stderr}")
        owner = run("nsenter", "--mount", f"--target={gateway.pid}", "stat", "-c", "%u %a", f"{root}/var/lib/tollgate/secret.json")
        if owner.stdout.strip() != f"{UID} 600":
            fail(f"the secret is {owner.stdout}{owner.stderr}")
        gateway.send_signal(signal.SIGTERM)
        if gateway.wait(timeout=30) != 0:
            fail(gateway.stderr.read())
    finally:
        gateway.kill()
    done = run("chroot", f"--userspec={UID}:{UID}", root, *check.split())
    if done.returncode != 3:
        fail(f"a gateway that is gone is well: {done.returncode} {done.stdout}{done.stderr}")
    ok("the image runs as 65532 on a root that is read-only, is healthy, and ends on TERM")


def runs_in_engine(archive, config):
    """Podman loads the image and runs it as an operator would, with nothing of the machine's own containers in reach."""
    name = "skip: packaging-podman:"
    if not shutil.which("podman"):
        print(name, "podman is not installed")
        return
    home = tempfile.mkdtemp(prefix="tollgate-podman-")
    # Without systemd and with the limits of any user: what a machine for tests has.
    own = ["--root", f"{home}/store", "--runroot", f"{home}/run", "--storage-driver", "vfs"]
    own += ["--cgroup-manager", "cgroupfs", "--events-backend", "file"]

    def podman(*command, runtime=()):
        return run("podman", *own, *runtime, *command, env={**os.environ, "XDG_RUNTIME_DIR": home}, timeout=120)

    def done(what, asked):
        if asked.returncode:
            fail(f"podman {what}: {asked.stdout}{asked.stderr}")
        return asked.stdout.strip()

    def why(asked):
        return (asked.stderr.strip().splitlines() or ["no word"])[-1]

    limits = ["--network", "host", "--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024"]
    try:
        about = podman("info")
        if about.returncode:
            print(name, "podman can't work here:", why(about))
            return
        loaded = done("load", podman("load", "--input", archive)).split()[-1]
        if not loaded.endswith("tollgate:test"):
            fail(f"podman has loaded {loaded}")
        for runtime in ([], ["--runtime", "runc"]):
            first = podman("run", "--rm", "--read-only", *limits, loaded, "--version", runtime=runtime)
            if first.returncode == 0:
                break
        else:
            print(name, "podman can't run a container here:", why(first))
            return
        if not first.stdout.startswith("tollgate "):
            fail(f"podman run … --version: {first.stdout}{first.stderr}")
        os.chmod(home, 0o711)
        os.makedirs(f"{home}/etc", mode=0o755)
        with open(f"{home}/etc/tollgate.toml", "w") as file:
            file.write(CONFIG)
        # Podman takes no health check from an image of this form.
        check = config["Healthcheck"]["Test"][1:]
        own_check = ["--health-cmd", json.dumps(check), "--health-interval", "disable"]
        mount = ["--volume", f"{home}/etc:/etc/tollgate:ro"]
        command = ["run", "--detach", "--name", "gateway", "--read-only", *limits, *own_check, *mount, loaded]
        done("run", podman(*command, runtime=runtime))
        until = time.monotonic() + 30
        while "listens on" not in (said := podman("logs", "gateway")).stdout:
            if time.monotonic() > until:
                fail(f"the image does not start: {said.stdout}{said.stderr}")
            time.sleep(0.1)
        done("healthcheck", podman("healthcheck", "run", "gateway", runtime=runtime))
        done("exec", podman("exec", "gateway", *check, "--ready", runtime=runtime))
        seen = json.loads(done("inspect", podman("inspect", "gateway")))[0]
        data = next(mount["Source"] for mount in seen["Mounts"] if mount["Destination"] == "/var/lib/tollgate")
        for path in (data, f"{data}/ledger.sqlite", f"{data}/secret.json"):
            if os.stat(path).st_uid != UID:
                fail(f"{path} is not {UID}'s")
        done("stop", podman("stop", "--time", "30", "gateway", runtime=runtime))
        code = done("inspect", podman("inspect", "--format", "{{.State.ExitCode}}", "gateway"))
        if code != "0":
            fail(f"after TERM the container ended with {code}")
        ok("Podman loads the image, runs it read-only as 65532 with a volume of its own, and stops it")
    finally:
        podman("rm", "--force", "--volumes", "gateway")
        shutil.rmtree(home, ignore_errors=True)


def systemd(binary):
    if not shutil.which("systemd-analyze"):
        print("skip: systemd-analyze is missing")
        return
    folder = tempfile.mkdtemp(prefix="tollgate-units-")
    try:
        for name in ("tollgate.service", "tollgate.socket"):
            with open(f"{ROOT}/packaging/systemd/{name}") as file:
                text = file.read().replace("/usr/bin/tollgate", binary)
            with open(f"{folder}/{name}", "w") as file:
                file.write(text)
        units = [f"{folder}/tollgate.service", f"{folder}/tollgate.socket"]
        done = run("systemd-analyze", "verify", "--man=no", *units)
        said = [line for line in (done.stdout + done.stderr).splitlines() if "tollgate" in line]
        if done.returncode or said:
            fail("systemd-analyze verify: " + "\n".join(said or [done.stderr]))
        done = run("systemd-analyze", "security", "--offline=true", units[0])
        level = re.search(r"exposure level for \S+: ([0-9.]+)", done.stdout)
        if not level:
            print("skip: this systemd-analyze can't judge a unit offline")
        elif float(level[1]) > 2.5:
            fail(f"systemd-analyze security says {level[1]}: " + done.stdout)
        ok(f"the units hold, exposure {level[1] if level else 'unknown'}")
    finally:
        shutil.rmtree(folder)


def kubernetes(binary):
    import yaml

    with open(f"{ROOT}/packaging/kubernetes/sidecar.yaml") as file:
        resources = list(yaml.safe_load_all(file))
    try:
        import kubernetes_validate
    except ImportError:
        print("skip: kubernetes-validate is not installed")
    else:
        for resource in resources:
            kubernetes_validate.validate(resource, "1.29", strict=True)
        ok("the manifest holds against the schema of Kubernetes 1.29")
    config = next(r for r in resources if r["kind"] == "ConfigMap")["data"]["tollgate.toml"]
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/tollgate.toml"
        with open(path, "w") as file:
            file.write(config)
        done = run(binary, "check", "-c", path)
        if done.returncode:
            fail(f"the manifest's configuration: {done.stdout}{done.stderr}")
    ok("the manifest's configuration is usable")
    with open(f"{ROOT}/packaging/compose/compose.yaml") as file:
        text = file.read()
    try:
        import compose_spec
    except ImportError:
        print("skip: compose-spec has no wheel for this Python")
    else:
        compose_spec.PyCompose.from_yaml(text).validate()
        ok("the compose file holds against the specification")


def main():
    binary, out = os.path.abspath(sys.argv[1]), sys.argv[2]
    os.makedirs(out, exist_ok=True)
    is_static(binary)
    root, config = image(binary, out)
    try:
        runs_from_image(root, config)
        runs_in_engine(f"{out}/1.tar", config)
    finally:
        shutil.rmtree(root)
    systemd(binary)
    kubernetes(binary)


main()
