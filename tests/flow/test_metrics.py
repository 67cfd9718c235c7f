"""GET /metrics: read by Prometheus's own parsers, and held against what really happened."""
import datetime
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import sqlite3
import ssl
import subprocess
import tempfile
import time
import urllib.parse
import urllib.request

import pytest
import yaml
from prometheus_client import parser as prometheus

import leftovers
import manual_blocks
from conftest import SOURCE
from daemon import Daemon
from metrics import OPENMETRICS, PROMETHEUS, Metrics, scrape


def configuration(place, freeze="", more=""):
    return f"""
writers:
  - {{name: app, type: exec, command: [{SOURCE}/tests/writers/recorder], environment: {{FILES: {place}/data{freeze}}}}}
repositories:
  - {{name: main, mover: archive, path: {place}/backups}}
{more}
"""


@pytest.fixture
def place(daemon):
    for name in ("data", "backups"):
        (daemon.place / name).mkdir()
    (daemon.place / "data" / "file").write_text("data")
    return daemon.place


@pytest.fixture(scope="module")
def one():
    """A node for those that only look."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix="quiesced-test-", dir="/var/tmp"))
    folder.chmod(0o755)
    node = Daemon(folder).start()
    yield node
    status, reports = node.stop(), node.sanitized()
    shutil.rmtree(folder)
    assert status == 0 and not reports, reports


def backup(node, label=None):
    body = {"components": [{"writer": "app", "name": "main"}], "repository": "main"}
    return node.job("POST", "/backups", body if label is None else body | {"label": label})


@pytest.mark.parametrize("accept, answer", (
    ("*/*", OPENMETRICS), ("text/plain", PROMETHEUS), ("text/*", PROMETHEUS), ("application/openmetrics-text;q=0, */*", PROMETHEUS),
    ("application/openmetrics-text;version=1.0.0;q=0.5,application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.1", OPENMETRICS),
    ("application/openmetrics-text;q=0.2, text/plain;q=0.3", PROMETHEUS), ("application/*", OPENMETRICS),
    ("application/json", None), ("text/html", None), ("application/openmetrics-text;q=0, text/plain;q=0", None)))
def test_the_format_is_one_that_was_asked_for(one, accept, answer):
    reply = one.call("GET", "/metrics", headers=[f"Accept: {accept}"])
    assert reply.status == (200 if answer else 406), reply
    if answer:
        assert reply.headers["content-type"].split(";")[0] == answer.split(";")[0] and reply.headers["vary"] == "Accept"
        assert (b"# EOF" in reply.raw) == (answer == OPENMETRICS)


def test_numbers_follow_a_backup(daemon, place):
    node = daemon(configuration(place))
    before = scrape(node)
    assert before.value("quiesced_job_seconds_count", operation="Backup", outcome="succeeded") is None
    assert before.with_labels("quiesced_last_success_timestamp_seconds") == []
    began = time.time()
    job = backup(node, "nightly")
    assert job["state"] == "succeeded"
    after = scrape(node)
    assert after.value("quiesced_job_seconds_count", operation="Backup", outcome="succeeded") == 1
    assert 0 < after.value("quiesced_job_seconds_sum", operation="Backup", outcome="succeeded") <= time.time() - began
    assert after.value("quiesced_freeze_seconds_count", provider="copy", outcome="succeeded") == 1
    assert after.value("quiesced_freeze_seconds_sum", provider="copy", outcome="succeeded") == pytest.approx(job["result"]["freeze"]["window_ms"] / 1000)
    assert after.value("quiesced_writer_freeze_seconds_count", writer="app", outcome="succeeded") == 1
    assert began - 1 <= after.value("quiesced_last_success_timestamp_seconds", label="nightly") <= time.time() + 1
    assert after.value("quiesced_http_requests_total", operation="backupCreate", status="2xx") == 1
    assert after.value("quiesced_store_transactions_total") > before.value("quiesced_store_transactions_total")
    assert after.value("quiesced_store_commit_seconds_count") > before.value("quiesced_store_commit_seconds_count")
    assert after.value("quiesced_store_refusals_total") == 0 and after.value("quiesced_errors_total") == 0
    assert after.value("quiesced_jobs", state="running") == 0 and after.value("quiesced_applications_frozen_seconds") == 0
    assert after.value("quiesced_build_info", version=node.call("GET", "/version").json["version"]) == 1
    assert after.value("process_resident_memory_bytes") > 1e6 and after.value("process_open_fds") > 3
    assert abs(after.value("process_start_time_seconds") - began) < 600 and after.value("process_cpu_seconds_total") > 0


def test_the_phases_of_a_session_count_each(daemon, place):
    node = daemon(configuration(place))
    session = node.call("POST", "/sessions", {"kind": "backup", "label": "by hand"}).json["id"]
    path = f"/sessions/{session}"
    assert scrape(node).value("quiesced_sessions", state="initialized") == 1
    node.job("POST", f"{path}/metadata")
    node.call("PUT", f"{path}/backup-state", {"component_mode": True, "bootable_system_state": False, "type": "full", "partial_files": False})
    writer = node.call("GET", f"{path}/writers").json["items"][0]
    component = node.call("POST", f"{path}/components", {"instance_id": writer["instance_id"], "logical_path": "", "name": "main"}).json["id"]
    node.call("POST", f"{path}/snapshot-set", {})
    node.call("POST", f"{path}/snapshot-set/volumes", {"path": str(place / "data"), "provider": "copy"})
    for call in ("prepare", "snapshot"):
        assert node.job("POST", f"{path}/{call}")["state"] == "succeeded"
    node.call("PATCH", f"{path}/components/{component}", {"succeeded": True})
    assert scrape(node).value("quiesced_sessions", state="snapshotted") == 1
    assert node.job("POST", f"{path}/complete")["state"] == "succeeded"
    metrics = scrape(node)
    for operation in ("GatherWriterMetadata", "PrepareForBackup", "DoSnapshotSet", "BackupComplete"):
        assert metrics.value("quiesced_job_seconds_count", operation=operation, outcome="succeeded") == 1
    assert metrics.value("quiesced_freeze_seconds_count", provider="copy", outcome="succeeded") == 1
    assert metrics.value("quiesced_last_success_timestamp_seconds", label="by hand")
    assert metrics.value("quiesced_sessions", state="completed") == 1


def test_failures_and_leases_count_as_such(daemon, place):
    node = daemon(configuration(place))
    (node.faults / "worker.snapshot.create").write_text("fail")
    assert backup(node, "nightly")["state"] == "failed"
    metrics = scrape(node)
    assert metrics.value("quiesced_job_seconds_count", operation="Backup", outcome="failed") == 1
    assert metrics.value("quiesced_freeze_seconds_count", provider="copy", outcome="failed") == 1
    assert metrics.value("quiesced_writer_freeze_seconds_count", writer="app", outcome="succeeded") == 1
    assert metrics.with_labels("quiesced_last_success_timestamp_seconds") == []
    session = node.call("POST", "/sessions", {"kind": "backup", "lease_seconds": 5}).json["id"]
    deadline = time.monotonic() + 60
    while node.call("GET", f"/sessions/{session}").json["state"] != "aborted":
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert scrape(node).value("quiesced_leases_expired_total") == 1


def test_a_last_success_survives_a_restart(daemon, place):
    node = daemon(configuration(place))
    assert backup(node, 'odd "label"\\ ')["state"] == "succeeded"
    assert backup(node)["state"] == "succeeded"
    before = scrape(node)
    assert {labels["label"] for labels in before.with_labels("quiesced_last_success_timestamp_seconds")} == {'odd "label"\\ ', ""}
    node.stop(signal.SIGKILL)
    node.start()
    after = scrape(node)
    for label in ('odd "label"\\ ', ""):
        name = "quiesced_last_success_timestamp_seconds"
        assert after.value(name, label=label) == before.value(name, label=label)


def test_an_older_store_knows_last_successes_by_its_catalog(daemon, place):
    node = daemon(configuration(place))
    for label in ("nightly", None, "nightly"):
        assert backup(node, label)["state"] == "succeeded"
    (node.faults / "worker.complete").write_text("fail")
    assert backup(node, "never")["state"] == "failed"
    newest = {item["label"] or "": item["created_at"] for item in reversed(node.call("GET", "/backups").json["items"]) if item["complete"]}
    node.stop()
    store = sqlite3.connect(node.place / "state" / "store" / "quiesced.db")
    store.executescript("DROP TABLE successes;" + (SOURCE / "daemon/store/migrations/0008-successes.sql").read_text())
    store.close()
    node.start()
    metrics, name = scrape(node), "quiesced_last_success_timestamp_seconds"
    assert {labels["label"] for labels in metrics.with_labels(name)} == {"nightly", ""}
    for label, created in newest.items():
        assert metrics.value(name, label=label) == datetime.datetime.fromisoformat(created).timestamp()


def test_a_store_that_refuses_is_seen(daemon, place):
    node = daemon(configuration(place))
    (node.faults / "store.commit").write_text("fail")
    assert node.call("POST", "/sessions", {"kind": "backup"}).status == 500
    (node.faults / "store.commit").unlink(missing_ok=True)
    metrics = scrape(node)
    assert metrics.value("quiesced_store_refusals_total") >= 1 and metrics.value("quiesced_errors_total") >= 1
    assert metrics.value("quiesced_http_requests_total", operation="sessionCreate", status="5xx") == 1


def scrape_until(node, condition):
    """Figures of other roles come with the rounds of serve's watchdog."""
    deadline = time.monotonic() + 60
    while not condition(metrics := scrape(node)):
        assert time.monotonic() < deadline, sorted(map(str, metrics.samples))
        time.sleep(0.05)
    return metrics


QUICK = "limits: {watchdog_seconds: 5}"


def test_front_counts_connections_handshakes_and_refusals(daemon, place):
    node = daemon(configuration(place, more=QUICK))
    before = scrape_until(node, lambda m: m.value("quiesced_connections_accepted_total"))
    assert before.value("quiesced_refusals_total", what="request") == 0 and before.value("quiesced_connections_limit") > 100
    host, port = node.ready["url"].removeprefix("https://").split(":")
    context = ssl.create_default_context(cafile=node.ready["ca"])
    held = [context.wrap_socket(socket.create_connection((host, int(port))), server_hostname=host) for _ in range(5)]
    held[0].sendall(b"GET / HTTP/1.1\nHost: x\n\n")  # bare line feeds
    assert held[0].recv(100).startswith(b"HTTP/1.1 400")
    with socket.create_connection((host, int(port))) as plain:
        plain.sendall(b"GET / HTTP/1.1\r\n\r\n")
        plain.recv(100)
    after = scrape_until(node, lambda m: m.value("quiesced_refusals_total", what="request") == 1 and m.value("quiesced_connections") >= 4
                         and m.value("quiesced_handshakes_total", outcome="failed") == before.value("quiesced_handshakes_total", outcome="failed") + 1)
    assert after.value("quiesced_handshakes_total", outcome="full") >= before.value("quiesced_handshakes_total", outcome="full") + 5
    resumed = ssl.create_default_context(cafile=node.ready["ca"])
    resumed.maximum_version = ssl.TLSVersion.TLSv1_2  # whose session is there at the end of the handshake
    with resumed.wrap_socket(socket.create_connection((host, int(port))), server_hostname=host) as first:
        session = first.session
    with resumed.wrap_socket(socket.create_connection((host, int(port))), server_hostname=host, session=session) as second:
        assert second.session_reused
    for connection in held:
        connection.close()
    scrape_until(node, lambda m: m.value("quiesced_handshakes_total", outcome="resumed") >= 1 and m.value("quiesced_connections") < 4)


def test_the_expiry_of_certificates_is_told(daemon, place):
    node = daemon(configuration(place, more=QUICK))
    metrics = scrape_until(node, lambda m: m.value("quiesced_certificate_expiry_timestamp_seconds", certificate="server"))
    host, port = node.ready["url"].removeprefix("https://").split(":")
    context = ssl.create_default_context(cafile=node.ready["ca"])
    with context.wrap_socket(socket.create_connection((host, int(port))), server_hostname=host) as connection:
        expiry = ssl.cert_time_to_seconds(connection.getpeercert()["notAfter"])
    assert metrics.value("quiesced_certificate_expiry_timestamp_seconds", certificate="server") == expiry
    assert metrics.value("quiesced_certificate_expiry_timestamp_seconds", certificate="private_ca") > expiry
    assert metrics.value("quiesced_certificate_expiry_timestamp_seconds", certificate="client_ca") is None


def test_a_role_that_dies_is_counted(daemon, place):
    node = daemon(configuration(place, more=QUICK))
    assert scrape_until(node, lambda m: m.value("quiesced_role_failures_total", role="front") is not None).value("quiesced_role_failures_total", role="front") == 0
    children = pathlib.Path(f"/proc/{node.process.pid}/task/{node.process.pid}/children").read_text().split()
    front = next(int(pid) for pid in children if b"--role=front" in pathlib.Path(f"/proc/{pid}/cmdline").read_bytes())
    os.kill(front, signal.SIGKILL)
    leftovers.ready(node)
    metrics = scrape_until(node, lambda m: m.value("quiesced_role_failures_total", role="front") is not None)
    assert [metrics.value("quiesced_role_failures_total", role=role) for role in ("front", "core", "agent")] == [1, 0, 0]


@pytest.mark.parametrize("accept, expected", [
    (None, OPENMETRICS), ("*/*", OPENMETRICS), ("application/openmetrics-text", OPENMETRICS), ("text/plain", PROMETHEUS),
    ("application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1", OPENMETRICS),
    ("text/plain;version=0.0.4;q=0.5, application/openmetrics-text;q=0.2", PROMETHEUS), ("text/plain;q=0, */*", OPENMETRICS), ("TEXT/PLAIN", PROMETHEUS),
    (";,;q=,text/plain;q", PROMETHEUS), ("text/plainer, */*;q=0.1", OPENMETRICS)])
def test_both_formats(served, accept, expected):
    reply = served.call("GET", "/metrics", headers=[] if accept is None else [f"Accept: {accept}"])
    assert (reply.status, reply.headers["content-type"]) == (200, expected)
    if expected == OPENMETRICS:
        assert reply.raw.endswith(b"# EOF\n")
        metrics = Metrics(reply.raw.decode())
    else:
        assert b"# EOF" not in reply.raw and b"# TYPE quiesced_errors_total counter" in reply.raw
        metrics = Metrics(reply.raw.decode(), prometheus)
    assert metrics.value("quiesced_errors_total") == 0
    assert metrics.value("quiesced_store_commit_seconds_bucket", le="+Inf") == metrics.value("quiesced_store_commit_seconds_count")


def test_who_may_scrape(served):
    token = served.call("POST", "/tokens", {"name": "prometheus", "role": "viewer", "scopes": ["metrics"]}).json["token"]
    assert scrape(served, token=token).families["quiesced_last_success_timestamp_seconds"]
    assert served.call("GET", "/sessions", token=token).status == 403
    assert served.call("GET", "/metrics", token="").status == 401
    operator = served.call("POST", "/tokens", {"name": "operator", "role": "operator"}).json["token"]
    assert "quiesced_last_success_timestamp_seconds" not in scrape(served, token=operator).families
    assert served.call("HEAD", "/metrics").status == 200
    assert served.call("GET", "/metrics?x=1").status == 400


@pytest.fixture(scope="module")
def served():
    with tempfile.TemporaryDirectory(prefix="quiesced-test-", dir="/var/tmp") as place:
        os.chmod(place, 0o755)
        one = Daemon(place).start()
        yield one
        one.stop()
        assert not one.sanitized()


def test_the_alerts_of_the_manual_name_what_is_there(served):
    rules = manual_blocks.of("monitoring.md", __file__)[1]
    metrics = scrape(served)
    names = {family + suffix for family in metrics.families for suffix in ("", "_total", "_info", "_bucket", "_count", "_sum")}
    alerts = [rule for group in yaml.safe_load(rules)["groups"] for rule in group["rules"]]
    assert len(alerts) >= 5
    for alert in alerts:
        used = set(re.findall(r"\b(?:quiesced|process)_\w+", alert["expr"]))
        assert used and used <= names, (alert["alert"], used - names)


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@pytest.mark.skipif(not shutil.which("prometheus"), reason="prometheus is not installed (scripts/install-dependencies)")
def test_prometheus_scrapes_with_the_manuals_configuration_and_evaluates_its_rules(served, tmp_path):
    """Its texts as they stand, with this daemon's places in those of the manual, read by Prometheus itself."""
    shown = [("backup1.example.org:8877", served.ready["url"].removeprefix("https://")), ("/etc/prometheus/quiesced.token", served.ready["token_file"]),
             ("/etc/prometheus/quiesced-ca.pem", served.ready["ca"])]
    scraping, rules = manual_blocks.of("monitoring.md", __file__, shown)
    (tmp_path / "rules.yml").write_text(rules)
    (tmp_path / "prometheus.yml").write_text(f"global: {{scrape_interval: 1s, evaluation_interval: 1s}}\nrule_files: [rules.yml]\n{scraping}")
    done = subprocess.run(["promtool", "check", "config", tmp_path / "prometheus.yml"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and f"{len(yaml.safe_load(rules)['groups'][0]['rules'])} rules found" in done.stdout, done
    port = free_port()
    with open(tmp_path / "log", "wb") as log:
        server = subprocess.Popen(["prometheus", f"--config.file={tmp_path}/prometheus.yml", f"--storage.tsdb.path={tmp_path}/data", f"--web.listen-address=127.0.0.1:{port}"],
                                  stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=tmp_path)
    try:
        def ask(path):
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v1/{path}", timeout=60) as reply:
                return json.load(reply)["data"]

        def evaluated():
            try:
                up = ask("query?query=" + urllib.parse.quote('up{job="quiesced"} == 1 and on() quiesced_build_info'))["result"]
                found = ask("rules")["groups"]
            except OSError:
                assert server.poll() is None, (tmp_path / "log").read_text()
                return None
            rows = [rule for group in found for rule in group["rules"]]
            return rows if up and rows and all(rule["health"] != "unknown" for rule in rows) else None
        deadline = time.monotonic() + 120
        while not (rows := evaluated()):
            assert time.monotonic() < deadline, (ask("targets"), (tmp_path / "log").read_text()[-3000:])
            time.sleep(0.2)
        assert {rule["health"] for rule in rows} == {"ok"}, rows
        by_name = {rule["name"]: rule["state"] for rule in rows}
        assert by_name["NoBackupAtAll"] == "pending" and by_name["ApplicationsFrozen"] == "inactive", by_name
    finally:
        server.terminate()
        server.wait(60)


def test_the_manual_describes_every_family(served):
    manual = (SOURCE / "docs" / "monitoring.md").read_text()
    missing = [name for name, family in scrape(served).families.items()
               if not name.startswith("process_") and f"`{name}{'_total' if family.type == 'counter' else '_info' if family.type == 'info' else ''}`" not in manual]
    assert missing == []
