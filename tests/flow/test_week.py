"""A week in a minute: backups in a row and side by side, random cancels and kills among them. At the end nothing has grown: descriptors
and memory of core and agent, processes, snapshots, mounts, staging, half-written backups, and jobs beyond their retention."""
import concurrent.futures
import http.client
import json
import os
import random
import signal
import ssl
import time

import pytest

import leftovers
from conftest import BUILD, SOURCE

# What users run: a sanitizer keeps freed memory back, and takes five times as long.
RELEASE = SOURCE / "build" / "release"

KEEP = 100  # retention.jobs: rows beyond it go at the next housekeeping, once a minute
SIDE_BY_SIDE = 4


def configuration(place):
    return f"""
writers:
  - {{name: app, type: exec, command: [{SOURCE}/tests/writers/quick], environment: {{FILES: {place}/data}}}}
repositories:
  - {{name: main, mover: archive, path: {place}/backups}}
retention: {{jobs: {KEEP}}}
"""


class Client:
    """One kept-alive connection: curl per call would be most of the work."""

    def __init__(self, node):
        self.node, self.connection = node, None

    def call(self, method, path, body=None):
        for _ in range(200):
            try:
                if self.connection is None:
                    ready = json.loads((self.node.place / "ready.json").read_text())
                    context = ssl.create_default_context(cafile=ready["ca"])
                    context.load_cert_chain(ready["cert"], ready["key"])
                    host, _, port = ready["url"].removeprefix("https://").rpartition(":")
                    self.connection = http.client.HTTPSConnection(host, int(port), context=context, timeout=120)
                self.connection.request(method, path, json.dumps(body) if body is not None else None, {"Content-Type": "application/json"})
                reply = self.connection.getresponse()
                return reply.status, json.loads(reply.read() or b"null")
            except (OSError, http.client.HTTPException, ValueError):
                self.connection = None
                if method == "POST":
                    return 0, None  # whether it was taken is not known: the jobs tell at the end
                assert self.node.process.poll() is None, self.node.words()[-3000:]
                time.sleep(0.1)
        raise AssertionError(f"{method} {path}: no answer")

    def end(self, id):
        while True:
            status, job = self.call("GET", f"/jobs/{id}?wait=30")
            if status == 404:
                return None  # beyond retention
            assert status == 200, (status, job)
            if job["state"] in ("succeeded", "failed", "cancelled"):
                return job


def measure(node):
    """Descriptors and resident memory (KiB) of core and agent, when nothing runs."""
    found = {}
    for name in ("core", "agent"):
        pid = leftovers.role(node, name)
        rss = next(int(line.split()[1]) for line in leftovers.read(f"/proc/{pid}/status").splitlines() if line.startswith("VmRSS:"))
        found[name] = (pid, len(os.listdir(f"/proc/{pid}/fd")), rss)
    return found


def one(node, client, dice, tally):
    status, job = client.call("POST", "/backups", {"components": [{"writer": "app", "name": "main"}], "repository": "main"})
    if status != 202:
        tally.append("refused")
        return
    fate = dice.random()
    if fate < 0.15:
        time.sleep(dice.random() * 0.3)
        status, answer = client.call("DELETE", f"/jobs/{job['id']}")
        promised = status == 202
        job = client.end(job["id"])
        assert not promised or job is None or job["state"] == "cancelled" or job["error"]["reason"] == "interrupted", job
    elif fate < 0.20:
        time.sleep(dice.random() * 0.3)
        for pid in list(leftovers.running(node)):
            if {"--role=worker", "--role=mover"} & set(leftovers.command(pid)) or "/quick" in " ".join(leftovers.command(pid)):
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
                break
        job = client.end(job["id"])
    else:
        job = client.end(job["id"])
    tally.append(job["state"] if job else "forgotten")


def run(node, sessions, seed):
    tally = []

    def lane(number):
        dice, client = random.Random(seed + number), Client(node)
        for _ in range(sessions // SIDE_BY_SIDE):
            one(node, client, dice, tally)

    with concurrent.futures.ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
        for done in [pool.submit(lane, number) for number in range(SIDE_BY_SIDE)]:
            done.result()
    return {state: tally.count(state) for state in set(tally)}


def week(daemon, sessions):
    for name in ("data", "backups"):
        (daemon.place / name).mkdir()
    (daemon.place / "data" / "one").write_text("1")
    node = daemon(configuration(daemon.place), binaries=RELEASE if (RELEASE / "quiesced").exists() else BUILD)
    seed = int(os.environ.get("QUIESCED_SEED", random.randrange(1 << 30)))
    print("seed", seed)
    warm = run(node, sessions // 5, seed)  # pools, statements and arenas fill once
    leftovers.settle(lambda: leftovers.processes(node), 60)
    before = measure(node)
    tally = run(node, sessions, seed + 1000)
    print(warm, tally)
    assert tally.get("succeeded", 0) > sessions / 2, tally
    assert tally.get("cancelled", 0) > 0 and tally.get("failed", 0) > 0, tally
    leftovers.assert_nothing_left(node, node.place / "backups")
    assert not leftovers.settle(lambda: len(node.call("GET", "/jobs?limit=200").json["items"]) > KEEP, 150), "jobs beyond retention stay"
    after = measure(node)
    for name, (pid, files, memory) in after.items():
        assert pid == before[name][0], f"{name} died"
        assert files <= before[name][1] + SIDE_BY_SIDE, (name, before, after)
        # A leak of 20 KiB a session shows here, of 3 KiB in the long run; the allocator's own ups and downs (4 MiB before it levels off)
        # do not. (A sanitizer keeps back what is freed.)
        assert node.binaries != RELEASE or memory - before[name][2] < 6144, (name, before, after)


@pytest.mark.full
def test_three_hundred_backups_leave_no_growth(daemon):
    week(daemon, 300)


@pytest.mark.full
@pytest.mark.timeout(3600)
def test_two_thousand_backups_leave_no_growth(daemon):
    week(daemon, 2000)
