"""ETag, If-None-Match, If-Match: who reads again gets 304, who changes what he has not seen gets 412, or 428 where he must have seen it."""
import json
import threading

import pytest

import leftovers
from conduct import BACKUP_STATE, Session, Writer, configuration
from daemon import CONTRACT


@pytest.fixture
def node(daemon):
    return daemon(configuration(daemon.place, [Writer(daemon.place, "app")]))


def match(etag):
    return [f"If-Match: {etag}"]


def tag(node, path):
    reply = node.call("GET", path)
    assert reply.status == 200, reply
    return reply.headers["etag"]


def second(node):
    """A repository of the API's own."""
    body = {"name": "second", "mover": "archive", "path": str(node.place / "second")}
    assert node.call("POST", "/repositories", body).status == 201
    return "/repositories/second"


# --- reading ---------------------------------------------------------------------------------------------------------

def test_every_resource_has_a_tag_and_304(node):
    """Every GET of the contract that there is something for."""
    session = Session(node).to("prepared")
    job = node.call("GET", "/jobs").json["items"][0]
    token = node.call("POST", "/tokens", {"name": "t", "role": "viewer"}).json["id"]
    enrolment = node.call("POST", "/enrolments", {"name": "console", "role": "viewer"}).json["id"]
    ids = {"session_id": session.id, "component_id": session.components["app"]["id"], "job_id": job["id"], "name": "main", "token_id": token,
           "enrolment_id": enrolment}
    seen = set()
    for method, template, operation in CONTRACT.operations():
        if method != "GET" or template in ("/metrics", "/volumes") or template.endswith("/events"):  # which are other ones at each moment
            continue
        try:
            path = template.format(**ids)
        except KeyError:
            continue
        path += "?path=/proc" if template == "/volumes/resolve" else ""  # where no free room changes
        first = node.call("GET", path)
        if first.status != 200:
            assert "etag" not in first.headers, (path, first)
            continue
        etag = first.headers["etag"]
        head = node.call("HEAD", path)
        assert head.status == 200 and head.headers["etag"] == etag, (path, head.headers)
        for given, status in ((etag, 304), (f'W/{etag}, "other"', 304), ("*", 304), ('"other"', 200)):
            reply = node.call("GET", path, headers=[f"If-None-Match: {given}"])
            assert reply.status == status and reply.headers["etag"] == etag and (status == 200) == bool(reply.raw), (path, given, reply)
        assert node.call("HEAD", path, headers=[f"If-None-Match: {etag}"]).status == 304, path
        seen.add(template)
    assert {"/sessions", "/sessions/{session_id}", "/sessions/{session_id}/document", "/sessions/{session_id}/components/{component_id}", "/jobs/{job_id}",
            "/repositories/{name}", "/tokens/{token_id}", "/writers", "/openapi.yaml", "/openapi.json", "/ca.pem", "/version", "/health/ready", "/volumes/resolve"} <= seen


def test_a_tag_changes_with_what_it_is_of(node):
    session = Session(node)
    before = tag(node, session.path)
    changed = session.call("PUT", "/backup-state", BACKUP_STATE)
    assert changed.status == 200 and node.call("GET", session.path, headers=[f"If-None-Match: {before}"]).status == 200
    assert tag(node, session.path) != before


def test_a_long_poll_hands_out_tags(node):
    """One text for all who wait: each gets its tag, and one that has it already gets 304."""
    session = Session(node)
    (node.faults / "worker.metadata").write_text("hold")
    job = session.begin("metadata")
    replies = []

    def wait(headers=()):
        replies.append(node.call("GET", f"/jobs/{job['id']}?wait=30", headers=headers, check=False))
    waiters = [threading.Thread(target=wait, args=(headers,)) for headers in ((), ["If-None-Match: *"])]
    for waiter in waiters:
        waiter.start()
    while not leftovers.hits(node, "worker.metadata"):
        assert waiters[0].is_alive(), replies
    (node.faults / "worker.metadata").unlink()
    for waiter in waiters:
        waiter.join()
    assert sorted(reply.status for reply in replies) == [200, 304], replies
    assert {reply.headers["etag"] for reply in replies} == {tag(node, f"/jobs/{job['id']}")}


# --- changing --------------------------------------------------------------------------------------------------------

def test_a_session_and_its_parts_are_guarded(node):
    session = Session(node)
    old = tag(node, session.path)
    put = node.call("PUT", session.path + "/backup-state", BACKUP_STATE, headers=match(old))
    assert put.status == 200, put
    late = node.call("PUT", session.path + "/backup-state", {**BACKUP_STATE, "type": "copy"}, headers=match(old))
    assert late.status == 412 and (late.json["hresult"], late.json["reason"]) == ("VSS_E_BAD_STATE", "precondition_failed"), late
    assert node.call("GET", session.path).json["backup_state"]["type"] == "full"
    session.done("metadata")
    session.add_all()
    component = f"{session.path}/components/{session.components['app']['id']}"
    had = tag(node, component)
    first = node.call("PATCH", component, {"backup_options": "a"}, headers=match(had))
    assert first.status == 200 and first.headers["etag"] == tag(node, component) != had, "the reply is what GET answers"
    assert node.call("PATCH", component, {"backup_options": "b"}, headers=match(had)).status == 412
    assert node.call("PATCH", component, {"backup_options": "b"}, headers=match(f'{had}, {first.headers["etag"]}')).status == 200
    assert node.call("DELETE", session.path, headers=match(old)).status == 412
    assert node.call("DELETE", session.path, headers=match("W/" + tag(node, session.path))).status == 412, "a weak tag never matches"
    assert node.call("DELETE", session.path, headers=match("*")).status in (202, 204)


def test_a_delete_that_cancels_a_job_is_looked_at_once(node):
    """The session changes by the call itself: its job ends."""
    session = Session(node)
    (node.faults / "worker.metadata").write_text("hold")
    session.begin("metadata")
    while not leftovers.hits(node, "worker.metadata"):
        pass
    reply = node.call("DELETE", session.path, headers=match(tag(node, session.path)))
    assert reply.status in (202, 204), reply


def test_jobs_and_credentials_are_guarded(node):
    session = Session(node)
    (node.faults / "worker.metadata").write_text("hold")
    job = "/jobs/" + session.begin("metadata")["id"]
    assert node.call("DELETE", job, headers=match('"x"')).status == 412
    assert node.call("GET", job).json["state"] in ("pending", "running")
    (node.faults / "worker.metadata").unlink()
    assert node.wait(job.removeprefix("/jobs/"))["state"] == "succeeded"
    for etag, status in (('"x"', 412), (tag(node, job), 409), (tag(node, job), 409), ('"x"', 412)):  # an ended one is written out once
        assert node.call("DELETE", job, headers=match(etag)).status == status
    token = "/tokens/" + node.call("POST", "/tokens", {"name": "t", "role": "viewer"}).json["id"]
    assert node.call("DELETE", token, headers=match('"x"')).status == 412
    assert node.call("DELETE", token, headers=match(tag(node, token))).status == 204
    assert node.call("DELETE", token, headers=match("*")).status == 404, "what is not there is not there"


def test_configuration_is_not_changed_blindly(node):
    path, moved = second(node), {"mover": "archive", "path": str(node.place / "third")}
    for method, body in (("PUT", moved), ("DELETE", None)):
        blind = node.call(method, path, body)
        assert blind.status == 428 and (blind.json["hresult"], blind.json["reason"]) == ("E_INVALIDARG", "precondition_required"), blind
        assert "If-Match" in blind.json["hint"]
        assert node.call(method, path, body, headers=match('"x"')).status == 412
    had = tag(node, path)
    put = node.call("PUT", path, moved, headers=match(had))
    assert put.status == 200 and put.headers["etag"] == tag(node, path) != had
    assert node.call("DELETE", path, headers=match(had)).status == 412
    assert node.call("GET", path).json["path"].endswith("third")
    assert node.call("DELETE", path, headers=match(put.headers["etag"])).status == 204
    assert node.call("DELETE", path).status == 404
    assert node.call("PUT", path, moved, headers=match("*")).status == 412, "there is nothing that could match"
    made = node.call("PUT", path, moved, headers=["If-None-Match: *"])
    assert made.status == 201 and made.headers["etag"] == tag(node, path)
    assert node.call("PUT", path, moved, headers=["If-None-Match: *"]).status == 412


def test_of_two_who_saw_the_same_one_is_told(node):
    """Both repositories are opened; the second to come to the store has lost."""
    path = second(node)
    had, replies = tag(node, path), []

    def put(place):
        replies.append(node.call("PUT", path, {"mover": "archive", "path": str(node.place / place)}, headers=match(had), check=False))
    (node.faults / "worker.open_repository").write_text("hold")
    both = [threading.Thread(target=put, args=(place,)) for place in ("a", "b")]
    for one in both:
        one.start()
    while len(leftovers.hits(node, "worker.open_repository")) < 2:
        assert all(one.is_alive() for one in both), replies
    (node.faults / "worker.open_repository").unlink()
    for one in both:
        one.join()
    assert sorted(reply.status for reply in replies) == [200, 412], replies
    won = next(reply for reply in replies if reply.status == 200)
    assert node.call("GET", path).json["path"] == won.json["path"]


@pytest.mark.parametrize("method, name", (("GET", "If-None-Match"), ("DELETE", "If-Match")))
@pytest.mark.parametrize("value", ("bare", '"open', '*, "a"', '"a" "b"', ","))
def test_a_bad_list_is_named(node, method, name, value):
    session = node.call("POST", "/sessions", {"kind": "backup"}).json["id"]
    reply = node.call(method, f"/sessions/{session}", headers=[f"{name}: {value}"])
    assert reply.status == 400 and [fault["pointer"] for fault in reply.json["errors"]] == [name], reply
    assert node.call("GET", f"/sessions/{session}").status == 200


def test_who_may_not_see_it_is_told_nothing(node):
    stranger = node.call("POST", "/tokens", {"name": "other", "role": "operator"}).json["token"]
    session = node.call("POST", "/sessions", {"kind": "backup"}).json["id"]
    for etag in ("*", '"x"', tag(node, f"/sessions/{session}")):
        reply = node.call("DELETE", f"/sessions/{session}", headers=match(etag), token=stranger)
        assert reply.status == 404, (etag, reply)
    assert json.loads(node.call("GET", f"/sessions/{session}").raw)["state"] == "initialized"
