"""Who may call what: generated from openapi.yaml, so that an operation that is added is held against it too."""
import hashlib
import http.client
import json
import pathlib
import ssl
import urllib.parse

import pytest

import journey
from conftest import CONTRACT

ROLES = ("viewer", "auditor", "restorer", "operator", "admin")
INCLUDES = {role: {"viewer", role} for role in ROLES} | {"admin": set(ROLES)}  # design, section 8; restorer and operator do not include each other
UNKNOWN = "0197b0c2-7c1e-7d10-9d0b-5a0f6a1a2b3c"
PUBLIC = {("GET", "/"): 200, ("GET", "/health/live"): 200, ("GET", "/ca.pem"): 200, ("GET", "/problems"): 200, ("GET", "/problems/E_NOTIMPL"): 200, ("POST", "/certificates"): 403, ("POST", "/login"): 401}  # the last two have their own credentials


def token_of(role):
    return "qsd1_" + hashlib.sha256(role.encode()).hexdigest()[:43]


def operations(place="/nonexistent"):
    """(method, path, body or None, least roles: one of them is enough, none for a public one): ids that nobody has, bodies that the contract itself gives as examples, beneath place."""
    for method, template, operation in CONTRACT.operations():
        path = template
        for parameter in ("session_id", "job_id", "component_id", "snapshot_id", "set_id", "backup_id", "token_id", "enrolment_id", "certificate_id", "webhook_id", "delivery_id"):
            path = path.replace("{%s}" % parameter, UNKNOWN)
        path = path.replace("{name}", "nowhere").replace("{hresult}", "E_NOTIMPL")
        assert "{" not in path, path
        needed = [p for p in map(CONTRACT.resolve, operation.get("parameters", [])) if p["in"] == "query" and p.get("required")]
        if needed:
            path += "?" + urllib.parse.urlencode({p["name"]: p["example"] for p in needed})
        body = None
        if "requestBody" in operation:
            media = CONTRACT.resolve(operation["requestBody"])["content"]["application/json"]
            schema = CONTRACT.resolve(media["schema"])
            text = json.dumps(media.get("example", schema.get("example", {}))).replace('"/', f'"{place}/')
            body = json.loads(text)
        least = operation.get("x-role")
        yield method, path, body, {least} if isinstance(least, str) else set(least or ())


class Caller:
    """One connection for many calls, with a client certificate or without."""

    def __init__(self, node, certificate=False):
        context = ssl.create_default_context(cafile=node.ready["ca"])
        if certificate:
            context.load_cert_chain(node.ready["cert"], node.ready["key"])
        address = urllib.parse.urlsplit(node.ready["url"])
        self.connection = http.client.HTTPSConnection(address.hostname, address.port, context=context, timeout=60)

    def call(self, method, path, body=None, token=None):
        headers = {"Content-Type": "application/json"} if body is not None else {}
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        self.connection.request(method, path, json.dumps(body) if body is not None else None, headers)
        reply = self.connection.getresponse()
        stream = reply.getheader("Content-Type") == "text/event-stream"
        payload = reply.readline() if stream else reply.read()
        if stream:  # has no end
            self.connection.close()
        CONTRACT.check(method, path, reply.status, dict(reply.getheaders()), payload)
        return reply.status, payload


@pytest.fixture
def node(daemon):
    rows = "".join(f"  - {{name: {role}-1, role: {role}, token_sha256: {hashlib.sha256(token_of(role).encode()).hexdigest()}}}\n" for role in ROLES)
    return daemon(f"restore: {{roots: [{daemon.place}]}}\nlimits: {{wrong_credentials: 0}}\nprincipals:\n" + rows)


def test_every_operation_but_two_asks_for_a_credential(node):
    assert len(list(operations())) > 50
    assert {(method, path) for method, path, _, roles in operations() if not roles} == set(PUBLIC)
    stranger, admin = Caller(node), Caller(node, certificate=True)
    for method, path, body, roles in operations():
        want = 401 if roles else PUBLIC[method, path]
        for token in (None, "", "qsd1_" + "A" * 43, token_of("admin")[:-1], token_of("admin") + "x"):
            assert stranger.call(method, path, body, token)[0] == want, (method, path, token)
        # A wrong token is not excused by a good certificate.
        assert admin.call(method, path, body, "qsd1_" + "A" * 43)[0] == want, (method, path)
    assert stranger.call("GET", "/nowhere")[0] == 401, "nor is it told what exists"
    own = pathlib.Path(node.ready["token_file"]).read_text().strip()
    assert json.loads(stranger.call("GET", "/whoami", token=own)[1])["principal"] == "admin"
    assert json.loads(admin.call("GET", "/whoami")[1])["principal"] == "admin"


@pytest.mark.parametrize("role", ROLES)
def test_every_operation_takes_its_roles_and_no_others(node, role):
    caller, refused = Caller(node), 0
    for method, path, body, least in operations(node.place):
        status, payload = caller.call(method, path, body, token_of(role))
        kind = body.get("kind") if path == "/sessions" and body else None
        if kind and role in ("operator", "restorer"):
            assert (status == 403) == ((kind, role) != ("backup", "operator")), payload
        elif not least:
            assert status == PUBLIC[method, path]
        elif least & INCLUDES[role]:
            assert status not in (401, 403), (method, path, payload)
        else:
            assert status == 403 and json.loads(payload)["hresult"] == "E_ACCESSDENIED", (method, path, payload)
            refused += 1
    assert (refused > 0) == (role != "admin")
    who = json.loads(caller.call("GET", "/whoami", token=token_of(role))[1])
    assert (who["principal"], who["role"]) == (f"{role}-1", role)


@pytest.fixture
def owned(daemon):
    """A node and, of operator-1: a session with a finished job, and a backup."""
    rows = "".join(f"  - {{name: {role}-1, role: {role}, token_sha256: {hashlib.sha256(token_of(role).encode()).hexdigest()}}}\n" for role in ROLES)
    rows += f"  - {{name: operator-2, role: operator, token_sha256: {hashlib.sha256(token_of('second').encode()).hexdigest()}}}\n"
    node = daemon(journey.lay_out(daemon.place) + "principals:\n" + rows)
    admin = node.call
    node.call = lambda *arguments, **more: admin(*arguments, **{"token": token_of("operator"), **more})
    ids = {"backup_id": journey.back_up(node)}
    ids["session_id"] = node.call("POST", "/sessions", {"kind": "backup"}).json["id"]
    ids["job_id"] = node.job("POST", f"/sessions/{ids['session_id']}/metadata")["id"]
    return node, ids


def owned_operations(ids):
    """(method, path, body, least roles, whose) of every operation on one of these."""
    for (method, path, body, least), (_, template, _) in zip(operations(), CONTRACT.operations()):
        for name, value in ids.items():
            if "{%s}" % name in template:
                yield method, path.replace(UNKNOWN, value, 1), body, least, name


def test_what_belongs_to_one_principal_does_not_exist_for_another_operator_or_restorer(owned):
    node, ids = owned
    caller, tried = Caller(node), 0
    for method, path, body, least, name in owned_operations(ids):
        for role, token in (("operator", token_of("second")), ("restorer", token_of("restorer"))):
            status, payload = caller.call(method, path, body, token)
            if not least & INCLUDES[role]:
                assert status == 403, (method, path, role, payload)
            elif name == "backup_id" and role == "restorer":
                assert status != 404, (method, path, payload)
            elif status == 501:
                assert "E_NOTIMPL" in payload.decode(), "says nothing of the session"
            else:
                assert status == 404, (method, path, role, payload)
                assert json.loads(payload)["hresult"] == "VSS_E_OBJECT_NOT_FOUND" and "operator-1" not in payload.decode()
                tried += 1
    assert tried > 40
    for path in ("/sessions", "/jobs", "/snapshots", "/backups"):
        for role in ("second", "restorer"):
            found = {item["id"] for item in json.loads(caller.call("GET", path, token=token_of(role))[1])["items"]} & set(ids.values())
            assert found == ({ids["backup_id"]} if (path, role) == ("/backups", "restorer") else set()), (path, role, found)
        for role in ("viewer", "auditor", "admin"):
            assert path == "/snapshots" or json.loads(caller.call("GET", path, token=token_of(role))[1])["items"], (path, role)


def test_a_viewer_and_an_auditor_see_what_they_may_not_change(owned):
    node, ids = owned
    caller = Caller(node)
    for method, path, body, least, _ in owned_operations(ids):
        for role in ("viewer", "auditor"):
            status, payload = caller.call(method, path, body, token_of(role))
            assert (status == 403) == (not least & INCLUDES[role]), (method, path, payload)
            assert status != 404 or "{" in path or UNKNOWN in path, (method, path, payload)
    assert caller.call("GET", "/sessions/" + ids["session_id"], token=token_of("operator"))[0] == 200, "and nothing has changed it"
    assert caller.call("DELETE", "/sessions/" + ids["session_id"], token=token_of("admin"))[0] in (202, 204)


def test_a_restorer_restores_what_an_operator_backed_up_and_cancels_only_his_own(owned):
    node, ids = owned
    caller, restorer = Caller(node), token_of("restorer")
    target = {"target": str(node.place / "restored"), "paths": [], "overwrite": True}
    status, payload = caller.call("POST", f"/backups/{ids['backup_id']}/restore", target, restorer)
    assert status == 202, payload
    path = "/jobs/" + json.loads(payload)["id"]
    assert caller.call("DELETE", path, token=token_of("second"))[0] == 404
    assert caller.call("DELETE", path, token=restorer)[0] in (200, 202, 409)
    assert json.loads(caller.call("GET", path + "?wait=60", token=restorer)[1])["state"] in ("cancelled", "succeeded")
    assert caller.call("POST", path + "/release", token=restorer)[0] == 204
    for kind, token, want in (("backup", restorer, 403), ("restore", token_of("operator"), 403), ("restore", restorer, 201)):
        body = {"kind": kind} if kind == "backup" else {"kind": kind, "backup_id": ids["backup_id"]}
        status, payload = caller.call("POST", "/sessions", body, token)
        assert status == want, payload
    assert caller.call("DELETE", "/sessions/" + json.loads(payload)["id"], token=restorer)[0] in (202, 204)
