"""Enrolment: a one-time code and a certificate request give a client certificate, until it is revoked."""
import concurrent.futures
import http.client
import json
import ssl
import subprocess
import time
import urllib.parse

import pytest

from conftest import CONTRACT
from test_access import Caller, node, token_of  # noqa: F401
from test_throttle import From, serve


def request_for(place, name, *key):
    """A key and a certificate request as any tool makes them; its subject is nobody's business."""
    options = key or ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256")
    subprocess.run(["openssl", "req", "-new", *options, "-nodes", "-subj", "/CN=admin", "-addext", "subjectAltName=URI:urn:quiesced:principal:admin",
                    "-keyout", place / f"{name}.key", "-out", place / f"{name}.csr"], check=True, capture_output=True)
    return (place / f"{name}.csr").read_text()


class Api:
    def __init__(self, node):
        self.caller = Caller(node)

    def __call__(self, method, path, body=None, token=token_of("admin")):
        status, payload = self.caller.call(method, path, body, token)
        return status, json.loads(payload) if payload.strip() else None

    def enrol(self, name="console", role="operator", **more):
        status, made = self("POST", "/enrolments", {"name": name, "role": role, **more})
        assert status == 201, made
        return made

    def redeem(self, code, csr):
        return self("POST", "/certificates", {"code": code, "csr": csr}, None)


@pytest.fixture
def api(node):  # noqa: F811
    return Api(node)


class Holder:
    """Calls on one connection with that certificate and key."""

    def __init__(self, node, pem, key):
        (node.place / "held.pem").write_text(pem)
        context = ssl.create_default_context(cafile=node.ready["ca"])
        context.load_cert_chain(node.place / "held.pem", key)
        where = urllib.parse.urlsplit(node.ready["url"])
        self.connection = http.client.HTTPSConnection(where.hostname, where.port, context=context, timeout=60)
        self.connection.connect()
        self.socket = self.connection.sock

    def __call__(self, path="/whoami", method="GET", body=None):
        headers = {"Content-Type": "application/json"} if body is not None else {}
        self.connection.request(method, path, json.dumps(body) if body is not None else None, headers)
        reply = self.connection.getresponse()
        payload = reply.read()
        CONTRACT.check(method, path, reply.status, dict(reply.getheaders()), payload)
        assert self.connection.sock is self.socket, "the connection was dropped"
        return reply.status, json.loads(payload)


def test_a_code_gives_one_certificate_and_its_revocation_is_felt_at_once(node, api):  # noqa: F811
    made = api.enrol(certificate_days=7)
    assert made["code"].startswith("qse1_") and made["state"] == "active" and made["principal"] == "console"
    status, seen = api("GET", "/enrolments/" + made["id"])
    assert status == 200 and "code" not in seen
    csr = request_for(node.place, "console")
    status, issued = api.redeem(made["code"], csr)
    assert status == 201 and (issued["principal"], issued["role"], issued["made_by"]) == ("console", "operator", "admin-1"), issued
    assert api("GET", "/enrolments/" + made["id"])[0] == 404
    status, problem = api.redeem(made["code"], csr)
    assert status == 403 and problem["hresult"] == "E_ACCESSDENIED", "once"

    (node.place / "console.pem").write_text(issued["certificate"])
    text = subprocess.run(["openssl", "x509", "-noout", "-text", "-fingerprint", "-sha256", "-in", node.place / "console.pem"], check=True, capture_output=True, text=True).stdout
    assert "URI:urn:quiesced:principal:console" in text and "principal:admin" not in text, "the request's own names do not count"
    assert "TLS Web Client Authentication" in text and "CA:FALSE" in text
    assert issued["fingerprint"].upper() in text.replace(":", "") and issued["serial"].lower() in text.replace(":", "").lower()
    assert subprocess.run(["openssl", "verify", "-purpose", "sslclient", "-CAfile", node.ready["ca"], node.place / "console.pem"], capture_output=True).returncode == 0
    left = time.time() + 7 * 86400 - ssl.cert_time_to_seconds(text.split("Not After : ")[1].split("\n")[0])
    assert -60 < left - 3600 < 600, left

    holder, path = Holder(node, issued["certificate"], node.place / "console.key"), "/certificates/" + issued["id"]
    status, who = holder()
    assert status == 200 and (who["principal"], who["role"], who["authentication"]) == ("console", "operator", "certificate")
    assert holder(path)[1]["last_used_from"] == "127.0.0.1"
    assert api("GET", path, token=token_of("operator"))[0] == 404 and api("GET", path, token=token_of("auditor"))[0] == 200
    assert api("DELETE", path, token=token_of("auditor"))[0] == 403
    node.stop()
    node.start()
    api.__init__(node)
    holder = Holder(node, issued["certificate"], node.place / "console.key")
    assert holder()[0] == 200, "it outlives the daemon"
    assert api("DELETE", path)[0] == 204
    assert holder()[0] == 401, "on the connection that was open, which stays"
    assert holder("/health/live")[0] == 200
    assert Holder(node, issued["certificate"], node.place / "console.key")()[0] == 401
    words = node.words()
    assert made["code"] not in words and "PRIVATE KEY" not in words


def test_lists_of_credentials_are_newest_first(node, api):  # noqa: F811
    """By when each was made, whatever its hash; after a restart, and page by page, too."""
    csr = request_for(node.place, "console")
    codes = [api.enrol(f"console-{n}")["code"] for n in range(4)]
    certificates = []
    for n in (2, 0, 3, 1):
        status, issued = api.redeem(codes[n], csr)
        assert status == 201, issued
        certificates.append(issued["id"])
    enrolments = [api.enrol(f"later-{n}")["id"] for n in range(4)]
    tokens = [api("POST", "/tokens", {"name": f"t{n}", "role": "viewer"})[1]["id"] for n in range(4)]

    def pages(path, limit):
        found, cursor = [], ""
        while cursor is not None:
            status, page = api("GET", f"{path}?limit={limit}{cursor}")
            assert status == 200, page
            found += page["items"]
            cursor = f"&cursor={page['next_cursor']}" if page["next_cursor"] else None
        return found

    for restarted in (False, True):
        if restarted:
            node.stop()
            node.start()
            api.__init__(node)
        for path, made in (("/certificates", certificates), ("/enrolments", enrolments), ("/tokens", tokens)):
            for limit in (1, 3, 50):
                found = pages(path, limit)
                assert [one["id"] for one in found if one["id"] in made] == made[::-1], (path, limit)
                times = [one["created_at"] for one in found]
                assert times == sorted(times, reverse=True), (path, times)


def test_a_token_made_with_a_certificate_works_and_ends_with_it(node, api):  # noqa: F811
    """Its maker is enrolled and nowhere in the configuration."""
    status, issued = api.redeem(api.enrol()["code"], request_for(node.place, "console"))
    assert status == 201
    holder = Holder(node, issued["certificate"], node.place / "console.key")
    made = [holder("/tokens", "POST", {"name": name, "role": "viewer"}) for name in ("script", "kept")]
    assert [status for status, _ in made] == [201, 201], made
    first, kept = (body for _, body in made)
    for _ in range(12):  # as a wrong credential it would have locked the address by now
        status, who = api("GET", "/whoami", token=first["token"])
        assert (status, who["principal"], who["role"]) == (200, "console", "viewer"), who
    status, child = api("POST", "/tokens", {"name": "child", "role": "viewer"}, first["token"])
    assert status == 201 and api("GET", "/whoami", token=child["token"])[0] == 200
    node.stop()
    node.start()
    api.__init__(node)
    assert api("DELETE", "/tokens/" + first["id"])[0] == 204
    assert [api("GET", "/whoami", token=one["token"])[0] for one in (first, child, kept)] == [401, 401, 200]
    (node.faults / "store.commit").write_text("fail")
    try:
        assert api("DELETE", "/certificates/" + issued["id"])[0] == 503
    finally:
        (node.faults / "store.commit").unlink()
    assert api("GET", "/whoami", token=kept["token"])[0] == 200, "a revocation that failed takes nothing along"
    assert api("DELETE", "/certificates/" + issued["id"])[0] == 204
    assert api("GET", "/whoami", token=kept["token"])[0] == 401
    assert api("GET", "/tokens")[1]["items"] == []


def test_what_is_refused_leaves_the_code_as_it_is(node, api):  # noqa: F811
    made = api.enrol()
    good = request_for(node.place, "good")
    weak = request_for(node.place, "weak", "-newkey", "rsa:1024")
    middle = len(good) // 2
    damaged = good[:middle] + ("A" if good[middle] != "A" else "B") + good[middle + 1:]
    certificate = (node.place / "state" / "ca.pem").read_text()
    for csr in ("nonsense", "-----BEGIN CERTIFICATE REQUEST-----\n-----END CERTIFICATE REQUEST-----\n", weak, damaged, certificate, (node.place / "good.key").read_text()):
        status, problem = api.redeem(made["code"], csr)
        assert status == 400 and [fault["pointer"] for fault in problem["errors"]] == ["/csr"], (csr, problem)
    for code in (made["code"][:-1], made["code"] + "x", made["code"].upper(), "x"):
        assert api.redeem(code, good)[0] == 403
    for body in ({"code": made["code"]}, {"csr": good}, {"code": made["code"], "csr": good, "role": "admin"}):
        assert api("POST", "/certificates", body, None)[0] == 400
    for key in (("-newkey", "rsa:2048"), ("-newkey", "ed25519")):
        status, issued = api.redeem(api.enrol()["code"], request_for(node.place, "other", *key))
        assert status == 201, issued
        assert Holder(node, issued["certificate"], node.place / "other.key")()[0] == 200
    assert api.redeem(made["code"], good)[0] == 201


def test_a_code_ends_by_time_by_revocation_and_by_its_first_use(node, api):  # noqa: F811
    csr = request_for(node.place, "late")
    short = api.enrol(expires_in_seconds=1)
    deadline = time.monotonic() + 30
    while api("GET", "/enrolments/" + short["id"])[1]["state"] == "active":
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert api.redeem(short["code"], csr)[0] == 403
    gone = api.enrol()
    assert api("DELETE", "/enrolments/" + gone["id"], token=token_of("auditor"))[0] == 403
    assert api("DELETE", "/enrolments/" + gone["id"])[0] == 204
    assert api.redeem(gone["code"], csr)[0] == 403
    once = api.enrol()
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        callers = [Api(node) for _ in range(4)]
        seen = sorted(status for status, _ in pool.map(lambda caller: caller.redeem(once["code"], csr), callers))
    assert seen == [201, 403, 403, 403]
    status, problem = api("POST", "/enrolments", {"name": "admin", "role": "viewer"})
    assert status == 409 and problem["hresult"] == "VSS_E_OBJECT_ALREADY_EXISTS", "the first start's own certificate has that name"
    for role in ("viewer", "auditor", "restorer", "operator"):
        assert api("POST", "/enrolments", {"name": "x", "role": "viewer"}, token_of(role))[0] == 403
    assert [row["name"] for row in api("GET", "/enrolments")[1]["items"]] == ["console"], "the expired one is still shown"


def test_wrong_codes_lock_their_address(daemon):
    node = serve(daemon, "wrong_credentials: 3")  # noqa: F811
    here, there = From(node, "127.0.0.1"), From(node, "127.0.0.2")
    assert there(token_of("admin"), "/enrolments", "POST", {"name": "x", "role": "viewer"}) == 201
    code, csr = there.json["code"], request_for(node.place, "x")
    seen = [here(None, "/certificates", "POST", {"code": "wrong", "csr": csr}) for _ in range(4)]
    assert seen == [403, 403, 403, 429]
    assert here(None, "/certificates", "POST", {"code": code, "csr": csr}) == 429, "a right one could be a guess"
    assert there(None, "/certificates", "POST", {"code": code, "csr": csr}) == 201


def test_a_store_that_refuses_gives_no_certificate_and_keeps_the_code(node, api):  # noqa: F811
    made, csr = api.enrol(), request_for(node.place, "x")
    (node.faults / "store.commit").write_text("fail")
    try:
        assert api.redeem(made["code"], csr)[0] == 503
    finally:
        (node.faults / "store.commit").unlink()
    assert api("GET", "/certificates")[1]["items"] == []
    assert api.redeem(made["code"], csr)[0] == 201
    (node.place / "state" / "pki" / "ca.key").rename(node.place / "kept-elsewhere.key")
    again = api.enrol()
    status, problem = api.redeem(again["code"], csr)
    assert status == 500 and "ca.key" in problem["hint"], problem
    (node.place / "kept-elsewhere.key").rename(node.place / "state" / "pki" / "ca.key")
    assert api.redeem(again["code"], csr)[0] == 201
