"""What every operation of the contract has: sparse fields, bound cursors, filters, Accept, Allow, HEAD, OPTIONS, 413, 415."""
import json
import pathlib
import shutil
import tempfile

import pytest

from conduct import Session, Wire, Writer, configuration
from daemon import CONTRACT, SOURCE, Daemon

UNKNOWN = "0193a8f0-0000-7000-8000-000000000000"


@pytest.fixture(scope="module")
def ground():
    """One node for all that only look, with something of every kind."""
    place = pathlib.Path(tempfile.mkdtemp(prefix="quiesced-test-", dir="/var/tmp"))
    place.chmod(0o755)
    node = Daemon(place, configuration(place, [Writer(place, "app")])).start()
    session = Session(node, label="nightly").to("snapshotted")
    backup = session.copy()
    node.ids = {"session_id": session.id, "component_id": session.components["app"]["id"], "backup_id": backup, "name": "main",
                "job_id": node.call("GET", "/jobs").json["items"][0]["id"], "set_id": session.view()["snapshot_set_id"],
                "snapshot_id": node.call("GET", "/snapshots").json["items"][0]["id"], "hresult": "E_NOTIMPL"}
    for label in ("a", "b", "nightly"):
        node.call("POST", "/sessions", {"kind": "backup", "label": label})
    for kind in ("token", "enrolment"):
        node.ids[kind + "_id"] = node.call("POST", f"/{kind}s", {"name": "someone", "role": "viewer"}).json["id"]
    yield node
    status, reports = node.stop(), node.sanitized()
    shutil.rmtree(place)
    assert status == 0 and not reports, reports


def paths(ground, method, of=lambda operation: True):
    """(path, operation) of each operation whose ids the ground knows."""
    for found, template, operation in CONTRACT.operations():
        if found == method and of(operation):
            try:
                yield template.format(**ground.ids), operation
            except KeyError:
                yield template.format_map(Known(ground.ids)), operation


class Known(dict):
    def __missing__(self, name):
        return UNKNOWN


def takes(name):
    return lambda operation: any(CONTRACT.resolve(p)["name"] == name for p in operation.get("parameters", []))


# --- fields ----------------------------------------------------------------------------------------------------------

def test_fields_gives_the_named_members_of_items_and_lists(ground):
    looked = 0
    for path, _ in paths(ground, "GET", takes("fields")):
        query = "?path=%2F" if path.endswith("/files") else "?"
        whole = ground.call("GET", path + query)
        if whole.status != 200:
            continue
        items = whole.json["items"] if isinstance(whole.json.get("items"), list) and "next_cursor" in whole.json else [whole.json]
        if not items:
            continue
        names = list(items[0])[:2]
        some = ground.call("GET", f"{path}{query}&fields={','.join(names)}")
        assert some.status == 200, (path, some)
        shown = some.json["items"] if items != [whole.json] else [some.json]
        if path == "/volumes":  # other tests mount and unmount meanwhile
            items = items[:1] * len(shown)
        assert [list(item) for item in shown] == [[name for name in item if name in names] for item in items], path
        if items != [whole.json]:
            assert set(some.json) == set(whole.json), path
        assert some.headers["etag"] != whole.headers["etag"] or len(items[0]) <= 2, path
        refused = ground.call("GET", f"{path}{query}&fields={names[0]},surprise")
        assert refused.status == 400 and [f["pointer"] for f in refused.json["errors"]] == ["?fields"] and "surprise" in refused.json["detail"], path
        looked += 1
    assert looked >= 15


@pytest.mark.parametrize("fields", ("", ",", "id,", ",id", "id,,state", "ID", "id;state", "items", "next_cursor"))
def test_bad_fields(ground, fields):
    reply = ground.call("GET", f"/sessions?fields={fields}")
    assert reply.status == 400 and [fault["pointer"] for fault in reply.json["errors"]] == ["?fields"], reply


def test_fields_of_a_job_that_is_waited_for(ground):
    reply = ground.call("GET", f"/jobs/{ground.ids['job_id']}?wait=5&fields=state,id")
    assert reply.json == {"id": ground.ids["job_id"], "state": "succeeded"}


# --- cursors ---------------------------------------------------------------------------------------------------------

def follow(reply):
    link = reply.headers.get("link")
    if link is None:
        assert reply.json["next_cursor"] is None
        return None
    assert link.startswith("<") and link.endswith('>; rel="next"') and reply.json["next_cursor"] in link, link
    return link[1:link.index(">")]


def walk(node, path):
    """Every item, page by page along Link."""
    found = []
    while path:
        reply = node.call("GET", path)
        assert reply.status == 200, reply
        found += reply.json["items"]
        path = follow(reply)
    return found


@pytest.mark.parametrize("path", ("/sessions", "/jobs", "/sessions?state=initialized", "/sessions?label=nightly", "/jobs?state=succeeded"))
def test_pages_together_are_the_list(ground, path):
    query = "&" if "?" in path else "?"
    whole = ground.call("GET", f"{path}{query}limit=500").json["items"]
    assert len(whole) > 1 and [row["id"] for row in walk(ground, f"{path}{query}limit=1")] == [row["id"] for row in whole]
    assert [row["id"] for row in walk(ground, f"{path}{query}limit=1&fields=id")] == [row["id"] for row in whole]


@pytest.fixture(scope="module")
def another(ground):
    """So that there is more than one snapshot and one backup."""
    session = Session(ground, label="another").to("snapshotted")
    session.copy()
    yield session
    ground.call("DELETE", session.path)


@pytest.mark.parametrize("path", ("/sessions", "/jobs", "/snapshots", "/backups", "/sessions?label=nightly", "/jobs?state=succeeded"))
def test_oldest_first_is_newest_first_backwards(ground, another, path):
    query = "&" if "?" in path else "?"
    newest = [row["id"] for row in walk(ground, f"{path}{query}limit=1&sort=-id")]
    oldest = [row["id"] for row in walk(ground, f"{path}{query}limit=1&sort=id")]
    assert len(newest) > 1 and len(set(newest)) == len(newest) and oldest == newest[::-1]
    assert newest == [row["id"] for row in walk(ground, f"{path}{query}limit=2")], "newest first is the default"


def test_what_comes_in_between_is_at_the_end_of_oldest_first(ground):
    first = ground.call("GET", "/sessions?limit=2&sort=id&state=initialized")
    new = ground.call("POST", "/sessions", {"kind": "backup", "label": "late"}).json["id"]
    found = [row["id"] for row in first.json["items"] + walk(ground, follow(first))]
    assert found[-1] == new and len(set(found)) == len(found) and sorted(found) == found
    ground.call("DELETE", f"/sessions/{new}")


@pytest.mark.parametrize("path", ("/sessions", "/jobs", "/snapshots", "/backups", "/errors"))
@pytest.mark.parametrize("sort", ("created_at", "ID", "%2Bid", "id,state", ""))
def test_an_order_that_there_is_not(ground, path, sort):
    reply = ground.call("GET", f"{path}?sort={sort}")
    (fault,) = reply.json["errors"]
    assert reply.status == 400 and fault["pointer"] == "?sort" and "-id, id" in fault["detail"], reply


def test_files_have_pages_whatever_their_names(ground):
    names = ["a b", "c&d", "e+f", "g\u00e4", "h%20"]
    (ground.place / "data" / "names").mkdir()
    for name in names:
        (ground.place / "data" / "names" / name).write_text(name)
    session = Session(ground, label="names").to("snapshotted")
    snapshot = next(row["id"] for row in ground.call("GET", f"/snapshots?session={session.id}").json["items"])
    where = f"/snapshots/{snapshot}/files?path={ground.place}/data/names&limit=1"
    listed = ground.call("GET", where)
    if listed.status == 200:
        assert sorted(row["name"] for row in walk(ground, where)) == sorted(names)
    else:
        assert listed.status in (400, 404), listed
        assert sorted(row["name"] for row in walk(ground, f"/snapshots/{snapshot}/files?path=/names&limit=1")) == sorted(names)
    ground.call("DELETE", session.path)


def test_a_cursor_goes_on_in_its_own_list_only(ground):
    page = ground.call("GET", "/sessions?limit=1&state=initialized")
    cursor = page.json["next_cursor"]
    assert cursor and ground.call("GET", f"/sessions?limit=2&state=initialized&fields=id&cursor={cursor}").status == 200, "another limit, other fields"
    for other in ("/sessions?", "/sessions?state=aborted&", "/sessions?state=initialized&kind=backup&", "/jobs?state=pending&", "/errors?", "/sessions?state=initialized&sort=id&"):
        reply = ground.call("GET", f"{other}cursor={cursor}")
        assert reply.status == 400 and [fault["pointer"] for fault in reply.json["errors"]] == ["?cursor"], (other, reply)


@pytest.mark.parametrize("cursor", (UNKNOWN, "x", "AAAA", "AAAAAAAAAAAAAAAA", "!!!!", "A" * 512, "caf%C3%A9"))
def test_what_is_no_cursor(ground, cursor):
    reply = ground.call("GET", f"/sessions?cursor={cursor}")
    assert reply.status == 400 and reply.json["errors"], reply


# --- filters ---------------------------------------------------------------------------------------------------------

def test_filters_give_what_has_that_value_and_nothing_else(ground):
    for path, member in (("/sessions?kind=backup", "kind"), ("/sessions?label=nightly", "label"), ("/sessions?state=snapshotted", "state"),
                         ("/sessions?label=nightly&state=initialized", "label"), ("/jobs?operation=Copy", "operation"),
                         (f"/jobs?session={ground.ids['session_id']}", "session_id"), (f"/backups?session={ground.ids['session_id']}", "session_id"),
                         ("/backups?label=nightly", "label"), ("/backups?repository=main", "repository")):
        value = path.rsplit("=", 1)[1] if "&" not in path else "nightly"
        rows = ground.call("GET", path).json["items"]
        whole = ground.call("GET", path.split("?")[0] + "?limit=500").json["items"]
        assert rows and {row[member] for row in rows} == {value}, path
        if "&" not in path:
            assert len(rows) == len([row for row in whole if row[member] == value]), path
    assert ground.call("GET", "/sessions?label=nobody").json["items"] == []
    assert ground.call("GET", "/backups?repository=other").json["items"] == []


# --- negotiation -----------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("accept, status", (
    ("application/json", 200), ("*/*", 200), ("application/*", 200), ("text/html, */*;q=0.1", 200), ("APPLICATION/JSON; charset=utf-8", 200), ("nonsense", 200),
    ("", 200), ("text/html", 406), ("application/json;q=0", 406), ("application/json;q=0.000, */*", 406), ("text/*, image/png", 406),
    ("application/problem+json", 406), ("application/*;q=0, application/json", 200)))
def test_accept(ground, accept, status):
    reply = ground.call("GET", "/whoami", headers=[f"Accept: {accept}" if accept else "Accept;"])
    assert reply.status == status, reply
    if status == 406:
        assert reply.json["hresult"] == "E_INVALIDARG" and "application/json" in reply.json["detail"], reply


def test_nothing_is_done_for_who_could_not_read_the_answer(ground):
    before = len(ground.call("GET", "/sessions?limit=500").json["items"])
    assert ground.call("POST", "/sessions", {"kind": "backup"}, headers=["Accept: text/html"]).status == 406
    assert len(ground.call("GET", "/sessions?limit=500").json["items"]) == before


def test_every_operation_with_a_body_in_its_answer_negotiates():
    for method, template, operation in CONTRACT.operations():
        contents = [CONTRACT.resolve(answer).get("content") for status, answer in operation["responses"].items() if status.startswith("2")]
        if any(contents):
            assert "406" in operation["responses"], (method, template)


def test_both_forms_of_the_contract_are_the_contract(ground):
    assert ground.call("GET", "/openapi.json").json == CONTRACT.document
    assert ground.call("GET", "/openapi.yaml").raw == (SOURCE / "openapi.yaml").read_bytes()


# --- what belongs to every operation ---------------------------------------------------------------------------------

def test_head_is_get_without_its_body(ground):
    for path, operation in paths(ground, "GET"):
        if "text/event-stream" in CONTRACT.resolve(operation["responses"]["200"]).get("content", {}):
            continue  # it does not end
        get, head = ground.call("GET", path), ground.call("HEAD", path)
        assert head.status == get.status and not head.raw, path
        for name in ("content-type", "etag", "content-length"):
            if path not in ("/metrics", "/health/ready", "/volumes") and get.status == 200: # which change by themselves: other tests mount
                assert head.headers.get(name) == get.headers.get(name), (path, name)


def test_options_and_allow_on_every_path(ground):
    for template, item in CONTRACT.document["paths"].items():
        path = template.format_map(Known(ground.ids))
        assert ground.call("OPTIONS", path).status == 204, path  # held against the contract: Allow
        for method in {"GET", "POST", "PUT", "PATCH", "DELETE"} - {name.upper() for name in item}:
            assert ground.call(method, path).status == 405, (method, path)


def test_413_and_415_of_every_body(ground):
    for method in ("POST", "PUT", "PATCH"):
        for path, operation in paths(ground, method, lambda operation: "requestBody" in operation):
            most = operation["x-max-body"]
            if most <= 65536:
                large = ground.call(method, path, json.dumps({"x": "y" * most}))
                assert large.status == 413, (method, path, large)
            wire = Wire(ground)
            wire.asked = (method, path)
            wire.connection.request(method, path, body="{}", headers={"Content-Type": "text/plain"})
            other = wire.hear()
            wire.close()
            assert other.status == 415, (method, path, other)
