"""Wrong credentials and too many requests: 429 for whoever sends them, and for nobody else."""
import hashlib
import http.client
import json
import ssl
import time
import urllib.parse

from conftest import CONTRACT
from test_access import token_of

WRONG = "qsd1_" + "A" * 43


class From:
    """Calls from an address of one's own on the loopback network."""

    def __init__(self, node, address, certificate=False):
        context = ssl.create_default_context(cafile=node.ready["ca"])
        if certificate:
            context.load_cert_chain(node.ready["cert"], node.ready["key"])
        where = urllib.parse.urlsplit(node.ready["url"])
        self.connection = http.client.HTTPSConnection(where.hostname, where.port, context=context, timeout=60, source_address=(address, 0))

    def __call__(self, token=None, path="/whoami", method="GET", body=None):
        headers = {"Authorization": f"Bearer {token}"} if token is not None else {}
        if body is not None:
            headers["Content-Type"] = "application/json"
        self.connection.request(method, path, json.dumps(body) if body is not None else None, headers)
        reply = self.connection.getresponse()
        payload = reply.read()
        CONTRACT.check(method, path, reply.status, dict(reply.getheaders()), payload)
        self.wait = int(reply.getheader("Retry-After", "0"))
        self.json = json.loads(payload) if payload.strip() else None
        return reply.status


def serve(daemon, limits):
    rows = "".join(f"  - {{name: {role}-1, role: {role}, token_sha256: {hashlib.sha256(token_of(role).encode()).hexdigest()}}}\n"
                   for role in ("viewer", "operator", "admin"))
    return daemon(f"limits: {{{limits}}}\nprincipals:\n{rows}")


def test_wrong_credentials_lock_their_address_and_nobody_elses(daemon):
    node = serve(daemon, "wrong_credentials: 3")
    here, there = From(node, "127.0.0.1"), From(node, "127.0.0.2")
    assert here(token_of("operator")) == 200
    for _ in range(10):
        assert here() == 401, "no credential is no wrong one"
    assert [here(WRONG) for _ in range(3)] == [401] * 3
    assert here(WRONG) == 429 and here.json["reason"] == "locked_out" and here.json["hresult"] == "E_ACCESSDENIED" and 1 <= here.wait <= 2
    assert here(token_of("viewer")) == 429, "a right one that was never seen here could be a guess"
    assert here(token_of("operator")) == 200, "who has come in from here before is not locked out by others' mistakes"
    assert From(node, "127.0.0.1", certificate=True)() == 200, "a certificate is no guess"
    assert here(path="/health/live") == 200
    for token in ("viewer", "operator"):
        assert there(token_of(token)) == 200, "nobody is locked out of his own address"
    assert there(WRONG) == 401


def test_the_lock_ends_and_comes_back_longer(daemon):
    node = serve(daemon, "wrong_credentials: 1")
    here = From(node, "127.0.0.1")
    waits = []
    for _ in range(2):
        assert here(WRONG) == 401
        assert here(WRONG) == 429
        waits.append(here.wait)
        time.sleep(here.wait)
        deadline = time.monotonic() + 20
        if len(waits) == 2:
            while here(token_of("viewer")) != 200:
                assert time.monotonic() < deadline
                time.sleep(0.1)
    assert waits == sorted(waits) and waits[0] < waits[1] <= 2, waits


def test_wrong_ones_of_one_principal_are_counted_wherever_they_come_from(daemon):
    node = serve(daemon, "wrong_credentials: 4")
    admin = From(node, "127.0.0.9")
    assert admin(token_of("admin"), "/tokens", "POST", {"name": "gone", "role": "viewer", "expires_in_seconds": 1}) == 201
    expired = admin.json["token"]
    assert admin(token_of("admin"), "/tokens", "POST", {"name": "gone", "role": "viewer"}) == 201
    valid = admin.json["token"]
    deadline = time.monotonic() + 30
    while From(node, "127.0.0.10")(expired) == 200:
        assert time.monotonic() < deadline
        time.sleep(0.2)
    seen = [From(node, f"127.0.0.{last}")(expired) for last in range(11, 16)]
    assert seen[0] == 401 and seen[-1] == 429, "each from an address that was never wrong before"
    assert From(node, "127.0.0.20")(valid) == 200, "the principal's own good credential is taken all the same"


def until_refused(client, token, path="/whoami"):
    for count in range(500):
        if client(token, path) == 429:
            assert client.json["reason"] == "rate_limit" and client.json["hresult"] == "E_OUTOFMEMORY" and client.wait == 1
            return count
    raise AssertionError("never refused")


def test_a_principal_that_asks_too_often_waits_from_wherever_it_asks(daemon):
    node = serve(daemon, "principal_requests_per_second: 1, address_requests_per_second: 0")
    here, there = From(node, "127.0.0.1"), From(node, "127.0.0.2")
    assert until_refused(here, token_of("viewer")) >= 2, "two seconds' worth may come at once"
    assert here(token_of("operator")) == 200, "another principal of the same address goes on"
    until_refused(there, token_of("viewer"))
    assert there(token_of("admin")) == 200
    deadline = time.monotonic() + 30
    while here(token_of("viewer")) != 200:
        assert time.monotonic() < deadline
        time.sleep(0.2)


def test_an_address_that_asks_too_often_waits_whoever_asks(daemon):
    node = serve(daemon, "principal_requests_per_second: 0, address_requests_per_second: 2")
    here, there = From(node, "127.0.0.1"), From(node, "127.0.0.2")
    assert until_refused(here, None, "/health/live") >= 4
    until_refused(here, token_of("operator"))
    assert "this address" in here.json["detail"]
    assert there(token_of("operator")) == 200


def test_the_default_lets_a_busy_client_be(daemon):
    node = serve(daemon, "freeze_seconds: 60")
    here = From(node, "127.0.0.1")
    assert all(here(token_of("viewer")) == 200 for _ in range(500))
