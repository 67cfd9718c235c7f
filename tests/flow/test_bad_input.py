"""Bad JSON for every POST, PUT and PATCH of the contract, over HTTPS: 400 with the member's pointer, and nothing changes."""
import json
import pathlib
import shutil
import tempfile

import pytest
from jsonschema import Draft202012Validator

from conduct import Session, Wire, Writer, configuration
from daemon import CONTRACT, Daemon

UNKNOWN = "0193a8f0-0000-7000-8000-000000000000"
OPERATIONS = [(method, template, operation) for method, template, operation in CONTRACT.operations() if "requestBody" in operation]
# The lease runs on with every call of its owner, accepted or not: it is no change of the session.
MOVING = ("lease_expires_at",)


@pytest.fixture(scope="module")
def ground():
    """One node for all, with something of every kind that a call could change."""
    place = pathlib.Path(tempfile.mkdtemp(prefix="quiesced-test-", dir="/var/tmp"))
    place.chmod(0o755)
    node = Daemon(place, configuration(place, [Writer(place, "first")]) + "expose: {roots: [/mnt]}\n")
    node.start()
    session = Session(node, label="before").to("snapshotted")
    session.copy()
    job = session.done("status")
    names = {"session_id": session.id, "component_id": session.components["first"]["id"], "job_id": job["id"], "backup_id": session.backup,
             "snapshot_id": session.wire.get("/snapshots")["items"][0]["id"], "set_id": session.view()["snapshot_set_id"], "name": "main", "certificate_id": UNKNOWN, "delivery_id": UNKNOWN, "hresult": "E_NOTIMPL"}
    for kind in ("token", "enrolment"):
        names[kind + "_id"] = session.wire.call("POST", f"/{kind}s", {"name": "someone", "role": "viewer"}).json["id"]
    names["webhook_id"] = session.wire.call("POST", "/webhooks", {"url": "https://example.org/", "enabled": False}).json["id"]
    yield node, Wire(node), names
    status, reports = node.stop(), node.sanitized()
    shutil.rmtree(place)
    assert status == 0 and not reports, reports


def state_of(wire):
    """All that a call could have changed, as the API tells it."""
    told = {}
    for path in ("/sessions", "/jobs", "/backups", "/repositories", "/snapshots", "/errors", "/tokens", "/enrolments", "/certificates", "/webhooks"):
        told[path] = wire.get(path)["items"]
        for item in told[path]:
            for member in MOVING:
                item.pop(member, None)
    for session in told["/sessions"]:
        told[session["id"]] = wire.get(f"/sessions/{session['id']}/components")["items"]
    return told


def schema_of(operation):
    content = CONTRACT.resolve(operation["requestBody"])["content"]
    return CONTRACT.resolve(content["application/json"]["schema"])


def members(schema):
    """Every member that the body may have, through allOf, oneOf and anyOf."""
    schema = CONTRACT.resolve(schema)
    found = dict(schema.get("properties", {}))
    for word in ("allOf", "oneOf", "anyOf"):
        for part in schema.get(word, []):
            found.update(members(part))
    return found


def of_wrong_type(schema):
    """A value that the member's schema cannot take; None when it takes everything."""
    validator = Draft202012Validator(schema, resolver=CONTRACT.resolver)
    return next((value for value in (17.5, [[]], {"wrong": {}}, "\u0001") if not validator.is_valid(value)), None)


def bad_bodies(operation):
    """(text, the pointers that the problem must name, or None for the document as a whole)"""
    schema = schema_of(operation)
    known = members(schema)
    first = next(iter(known), "member")
    yield "unknown member", json.dumps({"no_such_member": 1}), "/no_such_member"
    yield "duplicate key", f'{{"{first}": 1, "{first}": 2}}', None
    yield "cut off", "{", None
    yield "no JSON", "BackupComplete", None
    yield "two documents", "{} {}", None
    yield "not an object", "[]", None
    yield "a text", '"x"', None
    yield "not UTF-8", b'{"\xff\xfe": 1}', None
    yield "a NUL", '{"a\\u0000b": 1}', None
    yield "too deep", '{"' + first + '":' + "[" * 200 + "]" * 200 + "}", None
    for name, member in known.items():
        wrong = of_wrong_type(member)
        if wrong is not None:
            yield f"wrong type of {name}", json.dumps({name: wrong}), "/" + name


def target(template, names):
    return template.format(**names)


@pytest.mark.parametrize("method, template, operation", OPERATIONS, ids=[f"{m} {t}" for m, t, _ in OPERATIONS])
def test_a_bad_body_is_refused_by_its_member_and_changes_nothing(ground, method, template, operation):
    _, wire, names = ground
    path = target(template, names)
    before = state_of(wire)
    for what, text, pointer in bad_bodies(operation):
        reply = wire.call(method, path, text)
        assert reply.status == 400 and reply.json["hresult"] == "E_INVALIDARG", (what, reply)
        pointers = [error["pointer"] for error in reply.json["errors"]]
        assert pointers, (what, reply)
        if pointer is not None:
            assert any(p == pointer or p.startswith(pointer + "/") for p in pointers), (what, reply)
        assert reply.json["detail"], reply
    assert state_of(wire) == before


@pytest.mark.parametrize("method, template, operation", OPERATIONS, ids=[f"{m} {t}" for m, t, _ in OPERATIONS])
def test_an_oversized_body_is_413_and_another_media_type_415(ground, method, template, operation):
    node, wire, names = ground
    path, most = target(template, names), operation["x-max-body"]
    before = state_of(wire)
    big = Wire(node)  # a refusal may come before the body has been read, and then ends its connection
    try:
        reply = big.call(method, path, '{"no_such_member": "' + "x" * most + '"}')
        assert reply.status == 413 and reply.json["hresult"] == "E_INVALIDARG", reply
    except (BrokenPipeError, ConnectionResetError):
        pass
    big.close()
    text = Wire(node)
    text.asked = (method, path)
    text.connection.request(method, path, body="{}", headers={"Content-Type": "text/plain"})
    assert text.hear().status == 415
    text.close()
    assert state_of(wire) == before


@pytest.mark.parametrize("query", ["fields=" + "%C3%A9x" * 150, "fields=" + "x" + "%E2%82%AC" * 150, "%E2%82%AC" * 100 + "=1", "x" + "%E2%82%AC" * 100 + "=1", "xx" + "%E2%82%AC" * 100 + "=1"])
def test_a_long_name_is_cut_and_told(ground, query):
    """Cut inside a character it was once no text any more, and its fault null."""
    reply = ground[1].call("GET", "/jobs?" + query)
    assert reply.status == 400 and reply.json["errors"][0]["pointer"].startswith("?") and reply.json["errors"][0]["detail"], reply


# PUT of a repository that is not there makes it; a call without a counterpart here is 501 whatever it names (test_state_matrix.py).
NAMED = [(m, t, o) for m, t, o in CONTRACT.operations() if "{" in t and (m, t) != ("PUT", "/repositories/{name}")
         and any(status.startswith("2") for status in o["responses"])]


@pytest.mark.parametrize("method, template, operation", NAMED, ids=[f"{m} {t}" for m, t, _ in NAMED])
def test_an_unknown_id_is_404_and_a_malformed_one_is_refused(ground, method, template, operation):
    _, wire, names = ground
    before = state_of(wire)
    body = good_body(operation)
    unknown = dict.fromkeys(names, UNKNOWN) | {"name": "no-such-repository"}
    reply = wire.call(method, target(template, unknown), body)
    assert reply.status == 404 and reply.json["hresult"] == "VSS_E_OBJECT_NOT_FOUND", reply
    if "component_id" in template:
        reply = wire.call(method, target(template, dict(names, component_id=UNKNOWN)), body)
        assert reply.status == 404, reply
    for odd in ("%00", "..%2f", "x" * 300, "%ff"):
        reply = wire.call(method, target(template, dict.fromkeys(names, odd)), body)
        assert reply.status in (400, 404) and reply.json["hresult"] in ("E_INVALIDARG", "VSS_E_OBJECT_NOT_FOUND"), reply
    assert state_of(wire) == before


def good_body(operation):
    """A body that the contract takes, from its own example; None where none is needed."""
    if "requestBody" not in operation:
        return None
    request = CONTRACT.resolve(operation["requestBody"])
    content = request["content"]["application/json"]
    example = content.get("example")
    if example is None and content.get("examples"):
        example = CONTRACT.resolve(next(iter(content["examples"].values())))["value"]
    if example is None:
        example = CONTRACT.resolve(content["schema"]).get("example") or next(iter(CONTRACT.resolve(content["schema"]).get("examples", [])), None)
    assert example is not None, f"{operation['operationId']} has no example"
    return example
