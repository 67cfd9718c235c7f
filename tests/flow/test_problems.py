"""Where `type` of a problem leads: a page for people, JSON for programs, for every code, without a credential."""
import html
import re

import pytest

from daemon import CONTRACT

CODES = CONTRACT.document["components"]["schemas"]["HResult"]["enum"]
BROWSER = "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"


@pytest.fixture
def node(daemon):
    return daemon()


def test_every_code_has_cause_and_cure(node):
    listed = node.call("GET", "/problems", token="")
    assert [item["hresult"] for item in listed.json["items"]] == CODES
    page = node.call("GET", "/problems", headers=[BROWSER], token="")
    assert page.headers["content-type"] == "text/html; charset=utf-8" and page.headers["vary"] == "Accept"
    for item in listed.json["items"]:
        assert item["type"] == "/problems/" + item["hresult"] and f'href="{item["type"]}"' in page.raw.decode()
        assert all(len(item[member]) > 10 and item[member].endswith(".") for member in ("title", "cause", "cure")), item
    assert len({item["cause"] for item in listed.json["items"]}) == len({item["cure"] for item in listed.json["items"]}) == len(CODES)


def test_a_problem_leads_to_its_page(node):
    refused = node.call("GET", "/sessions/none")
    assert refused.status == 404 and refused.json["type"] == "/problems/VSS_E_OBJECT_NOT_FOUND"
    told = node.call("GET", refused.json["type"], token="")
    assert (told.json["hresult"], told.json["code"], told.json["status"], told.json["title"]) == (
        refused.json["hresult"], refused.json["code"], refused.status, refused.json["title"])
    page = node.call("GET", refused.json["type"], headers=[BROWSER], token="")
    text = html.unescape(re.sub(r"<[^>]*>", "", page.raw.decode()))
    assert told.json["cause"] in text and told.json["cure"] in text and "<script" not in page.raw.decode()
    assert page.headers["content-security-policy"].startswith("default-src 'none'") and page.headers["etag"] != told.headers["etag"]
    for headers, status in ((["Accept: text/html", f"If-None-Match: {page.headers['etag']}"], 304), (["Accept: image/png"], 406),
                            (["Accept: application/json, text/html;q=0"], 200)):
        reply = node.call("GET", refused.json["type"], headers=headers, token="")
        assert reply.status == status and (status != 200 or reply.json == told.json), reply


def test_titles_and_hints_fit_whatever_was_asked_for(node):
    """A repository is no session; and nobody is left without a word on what to do."""
    viewer = node.call("POST", "/tokens", {"name": "watcher", "role": "viewer"}).json["token"]
    place = node.place / "backups"
    place.mkdir()
    made = node.call("PUT", "/repositories/r", {"mover": "archive", "path": str(place)}, headers=["If-None-Match: *"])
    assert made.status == 201, made
    hook = node.call("POST", "/webhooks", {"url": "https://example.org/"}).json["id"]
    job = node.job("POST", f"/sessions/{node.call('POST', '/sessions', {'kind': 'backup'}).json['id']}/metadata")["id"]
    assert node.call("POST", f"/jobs/{job}/release").status == 204
    refused = [node.call(*call, **more) for call, more in (
        (("PUT", "/repositories/r", {"mover": "archive", "path": str(place)}), {"headers": ["If-None-Match: *"]}),
        (("DELETE", "/repositories/r"), {"headers": ['If-Match: "AAAAAAAAAAAAAAAAAAAAAAAA"']}),
        (("DELETE", f"/webhooks/{hook}"), {"headers": ['If-Match: "AAAAAAAAAAAAAAAAAAAAAAAA"']}),
        (("POST", "/sessions", {"kind": "backup"}), {"token": viewer}), (("PUT", "/jobs", {}), {}), (("GET", f"/jobs/{job}"), {}),
        (("POST", "/sessions", {"kind": "backup", "label": "x" * 600000}), {}), (("GET", "/nowhere"), {}))]
    assert [reply.status for reply in refused] == [412, 412, 412, 403, 405, 410, 413, 404]
    for reply in refused:
        assert len(reply.json["hint"]) > 10 and "session" not in reply.json["title"], reply


@pytest.mark.parametrize("name", ("NONE", "vss_e_bad_state", "%3Cscript%3E"))
def test_what_is_no_problem(node, name):
    reply = node.call("GET", f"/problems/{name}", headers=[BROWSER], token="")
    assert reply.status == 404 and reply.headers["content-type"] == "application/problem+json"
