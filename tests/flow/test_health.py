"""Alive and ready: what each says while something is wrong, and that ready comes back when it is right again."""
import os
import pathlib
import signal
import subprocess
import time

import pytest

from daemon import SOURCE


def reasons(node):
    reply = node.call("GET", "/health/ready")
    assert reply.status == (200 if reply.json["ready"] else 503) and reply.json["ready"] == (reply.json["reasons"] == []), reply
    assert node.call("GET", "/health/live").status == 200
    return reply.json["reasons"]


def until(condition, seconds=90):
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.05)
    return found


def test_who_may_ask(daemon):
    node = daemon()
    assert node.call("GET", "/health/live", token="").json == {"live": True}
    assert node.call("GET", "/health/ready", token="").status == 401
    assert node.call("GET", "/health/ready").json == {"ready": True, "reasons": [], "warnings": []}


def test_a_store_that_refuses(daemon):
    node = daemon()
    (node.faults / "store.commit").write_text("fail")
    assert node.call("POST", "/sessions", {}).status == 500
    assert any("refuses changes" in reason for reason in reasons(node))
    (node.faults / "store.commit").unlink()
    assert node.call("POST", "/sessions", {}).status == 201
    assert reasons(node) == []


def test_a_store_that_cannot_be_read(daemon):
    node = daemon()
    (node.faults / "store.read").write_text("fail")
    assert node.call("GET", "/jobs").status == 500
    assert any("cannot be read" in reason for reason in reasons(node))
    (node.faults / "store.read").unlink()
    assert reasons(node) == []


def test_a_store_that_hangs(daemon):
    node = daemon()
    (node.faults / "store.commit").write_text("pause")
    client = subprocess.Popen(["curl", "-s", "--cacert", node.ready["ca"], "--cert", node.ready["cert"], "--key", node.ready["key"], "-X", "POST",
                               "-w", "%{http_code}", "-o", "/dev/null", node.ready["url"] + "/sessions"], stdout=subprocess.PIPE)
    assert any("writing one change" in reason for reason in until(lambda: reasons(node)))
    (node.faults / "store.commit").unlink()
    assert client.communicate(timeout=60)[0] == b"201"
    until(lambda: reasons(node) == [])


@pytest.fixture
def small_disk():
    place = pathlib.Path(subprocess.run(["mktemp", "-d", "/var/tmp/quiesced-disk-XXXXXX"], capture_output=True, text=True, check=True).stdout.strip())
    place.chmod(0o755)
    if os.geteuid() != 0 or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=32m,mode=755", "small", place], capture_output=True).returncode != 0:
        place.rmdir()
        pytest.skip("cannot mount a tmpfs here")
    yield place
    subprocess.run(["umount", "-l", place], check=True)
    place.rmdir()


def test_a_disk_that_is_full(daemon, small_disk):
    node = daemon(options=("--state-dir", small_disk / "state"))
    assert reasons(node) == []
    filler = small_disk / "filler"
    with open(filler, "wb") as file:
        free = os.statvfs(small_disk).f_bavail * os.statvfs(small_disk).f_frsize
        file.write(b"\0" * (free - 4 * 1024 * 1024))
    assert any("file system is full: " in reason for reason in reasons(node))
    filler.unlink()
    assert reasons(node) == []


def test_limits_that_are_reached(daemon):
    place = daemon.place
    node = daemon(f"""
writers:
  - {{name: app, type: exec, command: [{SOURCE}/tests/writers/recorder], environment: {{FILES: {place}, WAIT_IDENTIFY: {place}/go}}}}
limits: {{jobs: 1, sessions: 2}}
""")
    session = node.call("POST", "/sessions", {}).json["id"]
    job = node.call("POST", f"/sessions/{session}/metadata").json["id"]
    assert reasons(node) == ["the job table is full: 1 jobs are pending"]
    other = node.call("POST", "/sessions", {}).json["id"]
    assert "2 sessions are open, as many as limits.sessions allows" in reasons(node)
    assert node.call("DELETE", f"/sessions/{other}").status == 204
    (place / "go").touch()
    assert node.wait(job)["state"] == "succeeded"
    assert reasons(node) == []


def certificate(place, days):
    for argv in (["ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", place / "key.pem"],
                 ["req", "-x509", "-new", "-key", place / "key.pem", "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1", "-days", str(days),
                  "-out", place / "certificate.pem"]):
        subprocess.run(["openssl", *argv], check=True, capture_output=True)


def test_a_certificate_that_expires(daemon):
    certificate(daemon.place, 10)
    node = daemon(f"tls: {{certificate: {daemon.place}/certificate.pem, key: {daemon.place}/key.pem}}\nlimits: {{watchdog_seconds: 5}}\n")
    until(lambda: node.call("GET", "/health/ready").json["warnings"])
    reply = node.call("GET", "/health/ready").json
    assert reply["ready"] and reply["warnings"] == ["the certificate server expires in 239 hours"]
    certificate(daemon.place, 1)
    node.curl = ("-k",)  # until the reload it is the old one
    node.process.send_signal(signal.SIGHUP)
    assert until(lambda: reasons(node)) == ["the certificate server expires in 23 hours"]


def test_a_reload_that_is_in_the_way_of_a_repository_made_over_the_api_is_told(daemon):
    """The configuration is read by serve, which cannot ask the store: it is not refused, but said."""
    place = daemon.place
    plain = f"repositories: [{{name: main, mover: archive, path: {place}/main}}]\n"
    node = daemon(plain)
    assert node.call("POST", "/repositories", {"name": "second", "mover": "archive", "path": str(place / "second")}).status == 201

    def reload(config):
        (place / "quiesced.yaml").write_text(config)
        node.process.send_signal(signal.SIGHUP)

    def warnings():
        return node.call("GET", "/health/ready").json["warnings"]

    reload(plain.replace("}]", f"}}, {{name: third, mover: archive, path: {place}/second/within}}]"))
    told = until(warnings)
    assert len(told) == 1 and told[0].startswith("repository second, made over the API: ") and f"{place}/second/within, the path of repository third" in told[0], told
    reload(plain + f"restore: {{roots: [{place}/second/restored]}}\n")
    assert "restore.roots" in until(lambda: (found := warnings()) != told and found)[0]
    reload(plain.replace("name: main", "name: second"))
    assert "stands before" in until(lambda: (found := warnings()) and "stands before" in found[0] and found)[0]
    assert node.words().count("stands before") == 1, "logged once"
    (shown,) = node.call("GET", "/repositories").json["items"]
    assert (shown["name"], shown["configured"]) == ("second", True), "and only the one that is in force is shown"
    plan = node.call("POST", "/backups", {"paths": [str(place / "second")], "repository": "second", "validate_only": True}).json
    assert "repository-beneath-source" not in str(plan), "the other one keeps nobody from a backup"
    reload(plain)
    assert until(lambda: not warnings())
    node.stop()
    (place / "quiesced.yaml").write_text(plain.replace("name: main", "name: second"))
    node.start()
    assert "stands before" in warnings()[0], "a start looks, too"
