"""What a caller can make the node start is bounded: looking at what is there is one worker for all, plans are few at a time."""
import concurrent.futures
import time

import leftovers


def until(condition, what):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)



def test_all_who_ask_what_is_there_share_one_worker(daemon):
    node = daemon()
    leftovers.ready(node)
    point = node.faults / "worker.inventory"
    point.write_text("pause")
    with concurrent.futures.ThreadPoolExecutor(24) as pool:
        asked = [pool.submit(node.call, "GET", path) for path in ("/writers", "/providers", "/movers", "/volumes") * 6]
        until(lambda: (node.faults / "worker.inventory.hit").exists(), "a worker looks")
        time.sleep(1)  # the others are on their way in
        hits = (node.faults / "worker.inventory.hit").read_text().splitlines()
        assert not any(future.done() for future in asked)
        assert len(hits) == 1, hits
        point.unlink()
        replies = [future.result() for future in asked]
    assert [reply.status for reply in replies] == [200] * 24
    assert all(reply.json["items"] for reply in replies[1::4]), "providers"


def test_plans_at_once_are_bounded(daemon):
    node = daemon("repositories: [{name: main, mover: archive, path: %s/backups}]\n" % daemon.place)
    leftovers.ready(node)
    point = node.faults / "worker.metadata"
    point.write_text("pause")
    body = {"paths": ["/etc/hostname"], "repository": "main", "validate_only": True}
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        asked = [pool.submit(node.call, "POST", "/backups", body) for _ in range(16)]
        hit = node.faults / "worker.metadata.hit"
        until(lambda: hit.exists() and len(hit.read_text().splitlines()) == 16, "sixteen plans are in hand")
        refused = node.call("POST", "/backups", body)
        point.unlink()
        assert (refused.status, refused.json["hresult"]) == (503, "E_OUTOFMEMORY") and refused.headers["retry-after"], refused
        assert [future.result().status for future in asked] == [200] * 16
    assert node.call("POST", "/backups", body).status == 200


def test_open_sessions_are_bounded(daemon):
    node = daemon("limits: {sessions: 2}\nrepositories: [{name: main, mover: archive, path: %s/backups}]\n" % daemon.place)
    first, second = (node.call("POST", "/sessions", {"kind": "backup"}) for _ in range(2))
    assert (first.status, second.status) == (201, 201)
    for path, body in (("/sessions", {"kind": "backup"}), ("/backups", {"paths": ["/etc/hostname"], "repository": "main"})):
        refused = node.call("POST", path, body)
        assert (refused.status, refused.json["hresult"]) == (503, "E_OUTOFMEMORY") and refused.headers["retry-after"], refused
        assert "limits.sessions" in refused.json["hint"], refused
    assert node.call("DELETE", f"/sessions/{first.json['id']}").status == 204
    assert node.job("POST", "/backups", {"paths": ["/etc/hostname"], "repository": "main"})["state"] == "succeeded"
    # its worker ends a moment after its job
    assert not leftovers.settle(lambda: node.call("POST", "/sessions", {"kind": "backup"}).status != 201, 10)
