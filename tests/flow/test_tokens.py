"""Tokens of POST /tokens: what they allow, how long, and who may make and revoke which."""
import hashlib
import json
import signal
import time

import pytest

from test_access import ROLES, Caller, node, token_of  # noqa: F401

ABOVE = {"viewer": {"auditor", "restorer", "operator", "admin"}, "auditor": {"restorer", "operator", "admin"},
         "restorer": {"auditor", "operator", "admin"}, "operator": {"auditor", "restorer", "admin"}, "admin": set()}


class Api:
    """Calls on one connection; replies are held against the contract by Caller."""

    def __init__(self, node):
        self.caller = Caller(node)

    def __call__(self, method, path, body=None, token=None):
        status, payload = self.caller.call(method, path, body, token)
        return status, json.loads(payload) if payload.strip() else None

    def make(self, token, name="t", role="viewer", **more):
        status, made = self("POST", "/tokens", {"name": name, "role": role, **more}, token)
        assert status == 201, made
        return made


@pytest.fixture
def api(node):  # noqa: F811
    return Api(node)


def test_a_token_lives_until_it_is_revoked_and_its_secret_is_kept_nowhere(node, api):  # noqa: F811
    admin = token_of("admin")
    made = api.make(admin, "nightly", "operator", expires_in_seconds=3600, scopes=[])
    secret, path = made["token"], "/tokens/" + made["id"]
    assert (made["name"], made["principal"], made["role"], made["scopes"], made["state"]) == ("nightly", "nightly", "operator", [], "active")
    assert made["last_used_at"] is None and made["made_by"] == "admin-1"
    status, who = api("GET", "/whoami", token=secret)
    assert status == 200 and (who["principal"], who["role"], who["token_id"]) == ("nightly", "operator", made["id"])
    status, seen = api("GET", path, token=admin)
    assert status == 200 and "token" not in seen and seen["last_used_from"] == "127.0.0.1" and seen["last_used_at"] >= seen["created_at"]
    assert seen["id"] in [row["id"] for row in api("GET", "/tokens", token=admin)[1]["items"]]
    # Over a restart: hashed in the store, in the log not at all; the last use is remembered.
    before = api("GET", path, token=admin)[1]
    node.stop()
    node.start()
    api = Api(node)
    assert api("GET", path, token=admin)[1] == before
    for file in [*(node.place / "state" / "store").iterdir(), node.place / "daemon.log"]:
        assert secret.encode() not in file.read_bytes() and secret[5:].encode() not in file.read_bytes(), file
    assert any(hashlib.sha256(secret.encode()).hexdigest().encode() in file.read_bytes() for file in (node.place / "state" / "store").iterdir())
    assert api("GET", "/whoami", token=secret)[0] == 200
    assert api("DELETE", path, token=admin)[0] == 204
    assert api("GET", "/whoami", token=secret)[0] == 401
    assert api("GET", path, token=admin)[0] == 404 and api("DELETE", path, token=admin)[0] == 404
    node.stop(signal.SIGKILL)
    node.start()
    assert Api(node)("GET", "/whoami", token=secret)[0] == 401


def test_an_expired_token_is_refused_and_shown(api):
    admin = token_of("admin")
    made = api.make(admin, "short", expires_in_seconds=1)
    deadline = time.monotonic() + 30
    while api("GET", "/whoami", token=made["token"])[0] == 200:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert api("GET", "/whoami", token=made["token"])[0] == 401
    assert api("GET", "/tokens/" + made["id"], token=admin)[1]["state"] == "expired"


def test_nobody_makes_or_revokes_a_token_above_his_role(api):
    for role in ROLES:
        for wanted in ROLES:
            status, made = api("POST", "/tokens", {"name": "t", "role": wanted}, token_of(role))
            if wanted in ABOVE[role]:
                assert status == 403 and made["hresult"] == "E_ACCESSDENIED", (role, wanted)
                continue
            assert status == 201 and made["role"] == wanted, (role, wanted, made)
            assert made["principal"] == ("t" if role == "admin" else role + "-1")
            who = api("GET", "/whoami", token=made["token"])[1]
            assert (who["principal"], who["role"]) == (made["principal"], wanted)
    operator = api.make(token_of("operator"), "mine", "operator")
    reader = api.make(token_of("operator"), "mine", "viewer")
    path = "/tokens/" + operator["id"]
    for other in ("viewer", "restorer"):
        assert api("GET", path, token=token_of(other))[0] == 404
        assert api("DELETE", path, token=token_of(other))[0] == 404
        assert operator["id"] not in [row["id"] for row in api("GET", "/tokens?limit=500", token=token_of(other))[1]["items"]]
    assert api("GET", path, token=token_of("auditor"))[0] == 200
    assert api("DELETE", path, token=token_of("auditor"))[0] == 403
    # The same principal, a lesser role: seen, not revoked.
    assert api("GET", path, token=reader["token"])[0] == 200
    assert api("DELETE", path, token=reader["token"])[0] == 403
    assert api("DELETE", "/tokens/" + reader["id"], token=reader["token"])[0] == 204, "a token may end itself"
    assert api("DELETE", path, token=token_of("operator"))[0] == 204


def test_scopes_narrow_what_the_role_allows(api):
    admin = token_of("admin")

    def allowed(scopes, method, path, body=None, role="operator"):
        made = api.make(admin, "scoped", role, scopes=scopes)
        status, reply = api(method, path, body, made["token"])
        assert api("GET", "/whoami", token=made["token"])[1]["scopes"] == scopes
        if status == 403:
            assert reply["reason"] == "scope" and "scopes" in reply["detail"]
        return status != 403

    assert allowed([], "POST", "/sessions", {"kind": "backup"})
    assert allowed(["read"], "GET", "/sessions") and allowed(["read"], "GET", "/jobs")
    assert not allowed(["read"], "POST", "/sessions", {"kind": "backup"})
    assert not allowed(["read"], "DELETE", "/sessions/x")
    assert allowed(["/sessions"], "POST", "/sessions", {"kind": "backup"}) and allowed(["/sessions"], "GET", "/sessions/x")
    assert not allowed(["/sessions"], "GET", "/jobs")
    assert not allowed(["/jobs"], "GET", "/sessions")
    assert allowed(["read:/sessions"], "GET", "/sessions/x/writers") and not allowed(["read:/sessions"], "POST", "/sessions", {"kind": "backup"})
    assert not allowed(["read:/sessions"], "GET", "/jobs")
    assert allowed(["jobCancel", "read:/jobs"], "DELETE", "/jobs/x") and not allowed(["jobCancel"], "GET", "/jobs/x")
    made = api.make(admin, "scoped", "operator", scopes=["/"])
    status, problem = api("DELETE", "/backups/x", token=made["token"])
    assert status == 403 and "needs admin" in problem["detail"], "a scope gives nothing that the role does not"
    for scopes, at in ((["read", "nonsense"], 1), (["/backup"], 0), (["/session"], 0), (["Read"], 0), (["read:jobs"], 0), (["read:jobCancel"], 0)):
        status, problem = api("POST", "/tokens", {"name": "x", "role": "viewer", "scopes": scopes}, admin)
        assert status == 400 and [fault["pointer"] for fault in problem["errors"]] == [f"/scopes/{at}"], problem


def test_a_token_hands_on_no_more_than_it_has(api):
    operator = token_of("operator")
    parent = api.make(operator, "parent", "operator", expires_in_seconds=600, scopes=["read", "tokenCreate", "tokenDelete"])

    def child(token, **more):
        return api("POST", "/tokens", {"name": "child", "role": "operator", **more}, token)

    assert child(parent["token"])[0] == 403, "without scopes it could do everything"
    assert child(parent["token"], scopes=["read", "backupCreate"])[0] == 403
    status, problem = child(parent["token"], scopes=["read"], expires_in_seconds=601)
    assert status == 400 and problem["errors"][0]["pointer"] == "/expires_in_seconds"
    status, first = child(parent["token"], scopes=["read", "tokenCreate"])
    assert status == 201 and first["expires_at"] == parent["expires_at"], "no longer life than its maker"
    status, second = child(first["token"], scopes=["read"])
    assert status == 201 and second["principal"] == "operator-1"
    other = api.make(operator, "other", "operator")
    for made in (first, second, other):
        assert api("GET", "/jobs", token=made["token"])[0] == 200
    assert api("DELETE", "/tokens/" + parent["id"], token=operator)[0] == 204
    for made in (parent, first, second):
        assert api("GET", "/jobs", token=made["token"])[0] == 401, "they end with their maker"
        assert api("GET", "/tokens/" + made["id"], token=operator)[0] == 404
    assert api("GET", "/jobs", token=other["token"])[0] == 200
    # What an administrator made stands by itself: that is how a token is replaced.
    old = api.make(token_of("admin"), "root", "admin", expires_in_seconds=60)
    new = api.make(old["token"], "root", "admin")
    assert api("DELETE", "/tokens/" + old["id"], token=new["token"])[0] == 204
    assert api("GET", "/whoami", token=old["token"])[0] == 401 and api("GET", "/whoami", token=new["token"])[0] == 200


def test_who_is_no_longer_in_the_configuration_has_no_tokens_either(node, api):  # noqa: F811
    own = api.make(token_of("operator"), "own", "operator")
    grandchild = api.make(own["token"], "own", "viewer")
    given = api.make(token_of("admin"), "operator-1", "viewer")
    config = node.place / "quiesced.yaml"
    config.write_text(config.read_text().replace("{name: operator-1, role: operator", "{name: operator-1, role: auditor"))
    node.process.send_signal(signal.SIGHUP)
    deadline = time.monotonic() + 30
    while api("GET", "/whoami", token=own["token"])[0] == 200:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert api("GET", "/whoami", token=grandchild["token"])[0] == 200, "a viewer's role is within an auditor's"
    assert api("GET", "/whoami", token=given["token"])[0] == 200


def test_one_principal_does_not_use_up_the_room_of_all(api):
    for _ in range(100):
        api.make(token_of("viewer"))
    status, problem = api("POST", "/tokens", {"name": "t", "role": "viewer"}, token_of("viewer"))
    assert status == 503 and problem["hresult"] == "E_OUTOFMEMORY"
    api.make(token_of("operator"))


def test_a_store_that_refuses_leaves_the_token_as_it_was(node, api):  # noqa: F811
    admin = token_of("admin")
    made = api.make(admin, "kept", "operator")
    api("GET", "/whoami", token=made["token"])
    (node.faults / "store.commit").write_text("fail")
    try:
        assert api("DELETE", "/tokens/" + made["id"], token=admin)[0] == 503
        assert api("POST", "/tokens", {"name": "lost", "role": "viewer"}, admin)[0] == 503
    finally:
        (node.faults / "store.commit").unlink()
    assert api("GET", "/whoami", token=made["token"])[0] == 200
    assert [row["name"] for row in api("GET", "/tokens", token=admin)[1]["items"]] == ["kept"]
    assert api("DELETE", "/tokens/" + made["id"], token=admin)[0] == 204
