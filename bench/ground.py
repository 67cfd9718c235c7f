"""What the benches share: our daemon and nginx side by side with the same certificate, turns, CPU time, the printed line."""
import contextlib
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

SOURCE = pathlib.Path(__file__).resolve().parents[1]
BUILD = pathlib.Path(os.environ.setdefault("QUIESCED_BUILD", str(SOURCE / "build" / "release")))
sys.path.insert(0, str(SOURCE / "tests"))
from daemon import Daemon  # noqa: E402

LIMITS = "connections: 16000, connections_per_address: 16000, address_requests_per_second: 1000000, principal_requests_per_second: 1000000"
# As in daemon/front/tls.c.
SUITES = ("ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384:"
          "ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305")


# --- processes ---

def family(pid):
    """The process and all its descendants."""
    found = [pid]
    for one in found:
        with contextlib.suppress(OSError):
            for task in os.listdir(f"/proc/{one}/task"):
                found += map(int, pathlib.Path(f"/proc/{one}/task/{task}/children").read_text().split())
    return found


def cpu_us(pid):
    """What the process and its descendants have run so far, microseconds (the scheduler's own figure, in nanoseconds)."""
    total = 0
    for one in family(pid):
        with contextlib.suppress(OSError):
            for task in pathlib.Path(f"/proc/{one}/task").iterdir():
                total += int((task / "schedstat").read_text().split()[0])
    return total / 1000


def private_bytes(pid):
    """Memory that the process and its descendants have for themselves."""
    total = 0
    for one in family(pid):
        with contextlib.suppress(OSError):
            for line in pathlib.Path(f"/proc/{one}/smaps_rollup").read_text().splitlines():
                if line.startswith(("Private_Dirty:", "Private_Clean:")):
                    total += int(line.split()[1]) * 1024
    return total


def role(daemon, name):
    """The pid of one of the daemon's roles."""
    for pid in family(daemon.process.pid):
        if f"--role={name}".encode() in pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0"):
            return pid
    raise LookupError(name)


# --- nginx ---

def nginx_binary(place):
    """Debian's nginx: the installed one, else its package unpacked beside the bench. Nothing is installed and no service started."""
    found = shutil.which("nginx", path=os.environ["PATH"] + ":/usr/sbin")
    if found:
        return found
    cache = SOURCE / "build" / "nginx"
    if not (cache / "usr/sbin/nginx").exists():
        with tempfile.TemporaryDirectory(dir=place) as download:
            subprocess.run(["apt-get", "download", "-qq", "nginx"], cwd=download, check=True, stderr=subprocess.DEVNULL)
            (package,) = pathlib.Path(download).glob("nginx_*.deb")
            cache.mkdir(parents=True, exist_ok=True)
            subprocess.run(["dpkg", "-x", package, cache], check=True)
    return cache / "usr/sbin/nginx"


CONFIGURATION = """
daemon off; worker_processes {workers}; worker_rlimit_nofile 20000; pid {place}/nginx.pid; error_log {place}/error.log warn; {user}
events {{ worker_connections 16384; }}
http {{
  access_log off; default_type application/json; server_tokens off; sendfile on; tcp_nopush on; tcp_nodelay on;
  open_file_cache max=100; open_file_cache_valid 3600s;
  keepalive_timeout 3600s; keepalive_requests 1000000000; client_header_timeout 60s;
  client_body_temp_path {place}/t1; proxy_temp_path {place}/t2; fastcgi_temp_path {place}/t3; uwsgi_temp_path {place}/t4; scgi_temp_path {place}/t5;
  upstream api {{ server unix:{socket}; keepalive 64; keepalive_requests 1000000000; keepalive_timeout 3600s; }}
  server {{
    listen 127.0.0.1:{port} ssl backlog=4096;
    ssl_certificate {pki}/server.pem; ssl_certificate_key {pki}/server.key; ssl_client_certificate {pki}/ca.pem; ssl_verify_client optional;
    ssl_protocols TLSv1.2 TLSv1.3; ssl_ciphers {suites}; ssl_ecdh_curve X25519:P-256:P-384;
    ssl_session_cache off; ssl_session_tickets on; ssl_session_timeout 2h;
    location / {{ root {place}/root; add_header Cache-Control no-store; add_header X-Content-Type-Options nosniff; add_header X-Request-Id $request_id; }}
    location /api/ {{ proxy_pass http://api/; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header Host localhost; }}
  }}
}}
"""


class Nginx:
    """nginx beside the daemon: its certificate, its suites; / serves files of place/root, /api/ is the daemon's API through its local socket."""

    def __init__(self, place, daemon, workers):
        self.place = pathlib.Path(place) / "nginx"
        (self.place / "root").mkdir(parents=True)
        state = daemon.place / "state"
        self.port = free_port()
        (self.place / "nginx.conf").write_text(CONFIGURATION.format(
            place=self.place, port=self.port, pki=state / "pki", socket=state / "api.sock", suites=SUITES, workers=workers,
            user="user root;" if os.geteuid() == 0 else ""))
        self.process = subprocess.Popen([nginx_binary(place), "-p", self.place, "-c", self.place / "nginx.conf"], stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 20
        while subprocess.run(["curl", "-sk", "-o", self.place / "probe", f"https://127.0.0.1:{self.port}/"]).returncode != 0:
            assert self.process.poll() is None and time.monotonic() < deadline, (self.place / "error.log").read_text()
            time.sleep(0.05)

    def serve(self, name, body):
        (self.place / "root" / name).write_bytes(body)

    def stop(self):
        self.process.terminate()
        self.process.wait()


def free_port():
    import socket
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


# --- the ground ---

@contextlib.contextmanager
def scratch(where="/var/tmp"):
    with tempfile.TemporaryDirectory(prefix="quiesced-bench-", dir=where) as place:
        os.chmod(place, 0o755)
        yield pathlib.Path(place)


@contextlib.contextmanager
def started(place, config=""):
    """A daemon whose limits do not stand in a bench's way."""
    node = Daemon(place, config if "limits:" in config else f"{config}\nlimits: {{{LIMITS}}}\n")
    try:
        yield node.start()
    finally:
        node.stop()


@contextlib.contextmanager
def beside(place, daemon, workers=2):
    nginx = Nginx(place, daemon, workers)
    try:
        yield nginx
    finally:
        nginx.stop()


def port_of(node):
    return int(node.ready["url"].rsplit(":", 1)[1])


def load(what, port, node, *arguments, certificate=True, **popen):
    """Starts the client; its line of JSON is read with said()."""
    argv = [BUILD / "bench-load", what, port, node.ready["ca"], *arguments]
    if certificate:
        argv += ["--cert", node.ready["cert"], node.ready["key"]]
    return subprocess.Popen(list(map(str, argv)), stdout=subprocess.PIPE, text=True, **popen)


def said(client):
    line = client.stdout.readline()
    assert line, "the client failed"
    client.wait()
    return json.loads(line)


# --- turns, and what is printed ---

def turns(runs, who):
    """Runs each of who {name: function -> dict} `runs` times, in turn and every other time the other way round; {name: [dict]}."""
    found = {name: [] for name in who}
    for number in range(runs):
        for name in (list(who) if number % 2 == 0 else reversed(who)):
            found[name].append(who[name]())
    return found


def median(rows, key):
    return statistics.median(row[key] for row in rows)


class Table:
    """Lines of a bench; over() tells whether a budget is not met."""

    def __init__(self):
        self.missed = False

    def ratio(self, what, ours, anchor, unit, budget, least=False):
        """least: the ratio must reach the budget; else it must not be above it."""
        ratio = ours / anchor
        good = budget is None or (ratio >= budget if least else ratio <= budget)
        self.missed = self.missed or not good
        aim = "" if budget is None else f"   budget {'>=' if least else '<='} {budget:<5} {'met' if good else 'NOT MET'}"
        print(f"{what:58} ours {ours:11.2f} {unit:4} anchor {anchor:11.2f} {unit:4} ratio {ratio:6.2f}{aim}", flush=True)

    def figure(self, what, value, unit, budget=None):
        good = budget is None or value <= budget
        self.missed = self.missed or not good
        aim = "" if budget is None else f"   budget <= {budget} {unit} {'met' if good else 'NOT MET'}"
        print(f"{what:58} {value:10.2f} {unit}{aim}", flush=True)
