"""The framing gate over HTTPS: raw bytes to the whole daemon, what is refused and how, limits, and clients that are slow or stall."""
import contextlib
import json
import socket
import ssl

import leftovers
import pytest
from daemon import CONTRACT

HOST = b"Host: h\r\n"
GET = b"GET /health/live HTTP/1.1\r\n" + HOST + b"\r\n"
PATIENCE = 120  # a bound for hanging, not an expectation


class Raw:
    """A TLS client that says what it is told to, and reads replies."""

    def __init__(self, node, certificate=False, receive_buffer=None, say=b""):
        context = ssl.create_default_context(cafile=node.ready["ca"])
        if certificate:
            context.load_cert_chain(node.ready["cert"], node.ready["key"])
        host, port = address(node)
        plain = socket.socket()
        if receive_buffer:
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        plain.settimeout(PATIENCE)
        plain.connect((host, port))
        self.socket = context.wrap_socket(plain, server_hostname=host)
        self.bytes = b""
        self.say(say)

    def say(self, text):
        with contextlib.suppress(OSError):  # a server that is done with us may have closed
            self.socket.sendall(text)
        return self

    def more(self):
        got = self.socket.recv(65536)
        self.bytes += got
        return got

    def reply(self, head=False):
        """The next one: status, headers, body."""
        while b"\r\n\r\n" not in self.bytes:
            assert self.more(), f"the connection ended: {self.bytes!r}"
        lines, _, self.bytes = self.bytes.partition(b"\r\n\r\n")
        lines = lines.decode().split("\r\n")
        headers = {name.lower(): value.strip() for name, value in (line.split(":", 1) for line in lines[1:])}
        length = 0 if head else int(headers.get("content-length", 0))
        while len(self.bytes) < length:
            assert self.more()
        body, self.bytes = self.bytes[:length], self.bytes[length:]
        return int(lines[0].split()[1]), headers, body

    def end(self):
        assert not self.bytes and not self.more(), self.bytes

    def refused(self, status, reason):
        got, headers, body = self.reply()
        problem = json.loads(body)
        CONTRACT.check_problem(got, headers, body, reason)
        assert (got, problem["reason"]) == (status, reason), problem
        assert headers["connection"] == "close" and problem["hint"] and headers["x-request-id"] == problem["request_id"]
        self.end()

    def close(self):
        self.socket.close()


def address(node):
    host, _, port = node.ready["url"].removeprefix("https://").rpartition(":")
    return host, int(port)


@pytest.fixture
def node(daemon):
    one = daemon()
    leftovers.ready(one)
    return one


def get(*headers, target=b"/health/live", version=b"HTTP/1.1"):
    return b"GET " + target + b" " + version + b"\r\n" + b"".join(header + b"\r\n" for header in headers) + b"\r\n"


def post(*headers, body=b""):
    return b"POST /sessions HTTP/1.1\r\n" + HOST + b"".join(header + b"\r\n" for header in headers) + b"\r\n" + body


# --- what RFC 9112 and RFC 9110 ask of a server beside that ---

@pytest.mark.parametrize("target", (b"https://h/health/live", b"HTTPS://h:8877/health/live", b"http://other.example/health/live", b"https://[::1]/health/live"))
def test_the_absolute_form_is_taken(node, target):
    client = Raw(node, say=get(b"Host: h", target=target))
    status, _, body = client.reply()
    assert status == 200 and json.loads(body) == {"live": True}
    assert client.say(GET).reply()[0] == 200, "the connection goes on"


def test_the_absolute_form_names_the_same_resource(node):
    client = Raw(node, certificate=True, say=get(b"Host: h", target=b"https://h/sessions?limit=1&state=initialized"))
    status, _, body = client.reply()
    assert status == 200 and json.loads(body)["items"] == []
    status, _, body = client.say(get(b"Host: h", target=b"https://h/sessions/none")).reply()
    assert status == 404 and json.loads(body)["instance"] == "/sessions/none"
    assert json.loads(client.say(get(b"Host: h", target=b"https://h")).reply()[2])["name"] == "quiesced", "no path is the path /"
    for target in (b"https://user@h/health/live", b"ftp://h/health/live", b"https:///health/live"):
        assert client.say(get(b"Host: h", target=target)).reply()[0] in (400, 404), target
        if client.bytes or not is_open(client):
            client = Raw(node, certificate=True)


def is_open(client):
    client.socket.setblocking(False)
    try:
        return client.socket.recv(1) != b""
    except (ssl.SSLWantReadError, BlockingIOError):
        return True
    finally:
        client.socket.settimeout(PATIENCE)


@pytest.mark.parametrize("expect, status", ((b"foo", 417), (b"100-continue, foo", 417), (b"", 417), (b"100-Continue", 200)))
def test_what_is_expected_and_not_done_is_told(node, expect, status):
    client = Raw(node, say=get(b"Host: h", b"Expect: " + expect))
    got, _, body = client.reply()
    if got == 100:
        got, _, body = client.reply()
    assert got == status and (status == 200 or json.loads(body)["hint"]), body
    assert client.say(GET).reply()[0] == 200


def test_the_bare_address_tells_where_things_are(node):
    told = node.call("GET", "/", token="")
    assert told.status == 200 and told.json["name"] == "quiesced" and told.headers["vary"] == "Accept"
    public = ("self", "documentation", "dashboard", "problems", "live")
    for name, link in told.json["_links"].items():
        if name != "events": # it does not end
            reply = node.call("GET", link["href"], token="", check=False)
            assert reply.status == (200 if name in public else 401), (name, reply.status)
    assert node.call("HEAD", "/", token="").status == 200 and node.call("OPTIONS", "/").headers["allow"] == "GET, HEAD, OPTIONS"
    assert node.call("GET", "/", headers=[f"If-None-Match: {told.headers['etag']}"]).status == 304
    assert node.call("POST", "/", {}).status == 405 and node.call("GET", "/", headers=["Accept: image/png"]).status == 406
    page = node.call("GET", "/", headers=["Accept: text/html,*/*;q=0.8"], token="", check=False)
    assert (page.status, page.headers["location"]) == (308, "/ui/")


REFUSED = [
    ("bare_lf", 400, b"GET /health/live HTTP/1.1\nHost: h\n\n"),
    ("bare_cr", 400, get(b"Host: h", b"X: a\rb")),
    ("control", 400, get(b"Host: h", b"X: a\0b")),
    ("fold", 400, get(b"Host: h", b"X: a", b" b")),
    ("repeated", 400, get(b"Host: h", b"Host: h")),
    ("host_missing", 400, get(b"X: h")),
    ("host", 400, get(b"Host: a b")),
    ("repeated", 400, post(b"Content-Length: 2", b"Content-Length: 3", body=b"{}")),
    ("repeated", 400, post(b"Content-Length: 2", b"Content-Length: 2", body=b"{}")),
    ("length_and_encoding", 400, post(b"Content-Length: 2", b"Transfer-Encoding: chunked", body=b"0\r\n\r\n")),
    ("encoding", 400, post(b"Transfer-Encoding: gzip")),
    ("encoding", 400, post(b"Transfer-Encoding: gzip, chunked", body=b"0\r\n\r\n")),
    ("length", 400, post(b"Content-Length: +2", body=b"{}")),
    ("length", 400, post(b"Content-Length: -2", body=b"{}")),
    ("target_nul", 400, get(b"Host: h", target=b"/health/live%00x")),
    ("space_before_colon", 400, get(b"Host : h")),
    ("start_line", 400, get(b"Host: h", target=b" /health/live")),
    ("http09", 400, b"GET /health/live\r\n\r\n"),
    ("http09", 400, get(b"Host: h", version=b"HTTP/0.9")),
    ("version", 400, get(b"Host: h", version=b"HTTP/1.2")),
    ("version", 400, get(b"Host: h", version=b"HTTQ/1.1")),
    ("version_unsupported", 505, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    ("method", 501, b"BREW /health/live HTTP/1.1\r\n" + HOST + b"\r\n"),
    ("headers_many", 431, get(b"Host: h", *(b"X: y" for _ in range(64)))),
    ("head_large", 431, get(b"Host: h", b"X: " + b"y" * 7000)),
    ("head_large", 431, get(b"Host: h", b"X: " + b"y" * 100000)),
    ("head_large", 431, get(b"Host: h", target=b"/health/live?" + b"a&" * 110)),
    ("body_large", 413, post(b"Content-Length: 99999999999999999999")),
    ("chunk_extension", 400, post(b"Transfer-Encoding: chunked", body=b"2;a=b\r\n{}\r\n0\r\n\r\n")),
    ("trailer", 400, post(b"Transfer-Encoding: chunked", body=b"2\r\n{}\r\n0\r\nX: y\r\n\r\n")),
    ("chunk", 400, post(b"Transfer-Encoding: chunked", body=b"2\n{}\r\n0\r\n\r\n")),
]


def test_malformed_requests_are_refused_with_their_reason(node):
    for reason, status, request in REFUSED:
        for before in (b"", GET):  # the first one of a connection, and a further one
            client = Raw(node, certificate=True, say=before)
            if before:
                assert client.reply()[0] == 200
            client.say(request)
            client.refused(status, reason)
            client.close()
    assert node.call("GET", "/sessions").json["items"] == []
    log = node.words()
    assert "request of 127.0.0.1:" in log and "refused: a line of the head ends in LF alone" in log


def test_what_passes_is_answered_by_core_whatever_its_size(node):
    """A head just within the limits finds room in libmicrohttpd: its reply is core's, and the connection goes on."""
    rest = 6656 - 64 * 2 - len(get(b"Host: h", b"X: "))
    heads = [
        get(b"Host: h", b"X: " + b"y" * rest),
        get(b"Host: h", *(b"X: y" for _ in range(63))),
        get(b"Host: h", *(b"X%d: " % i + b"y" * 30 for i in range(60))),
        get(b"Host: h", b"Cookie: " + b"; ".join(b"c%d=v" % i for i in range(300))),
        get(b"Host: h", b"cOOkie: " + b"c=" + b"v" * 6000),
        get(b"Host: h", b'Cookie: a=b c; d="'),
        get(b"Host: h", target=b"/health/live?" + b"&".join(b"a%d=b" % i for i in range(85))),
        get(b"Host: h", target=b"/health/live?" + b"a" * 6000),
        get(b"Host: h", target=b"/" + b"a" * 6000),
        get(b"Host: h", b"Connection: Upgrade", b"Upgrade: h2c"),
        b"\r\n" + GET,
    ]
    client = Raw(node)
    for i, head in enumerate(heads):
        for _ in range(2):
            client.say(head)
            status, headers, body = client.reply()
            assert headers["content-type"].startswith(("application/json", "application/problem+json")), (i, status, headers)
            assert status in (200, 400, 401, 404), (i, status, body)
    client.say(GET)
    assert client.reply()[0] == 200
    client.close()


def test_bodies_of_both_kinds_arrive_whole_in_a_pipeline(node):
    client = Raw(node, certificate=True)
    kinds = [post(b"Content-Type: application/json", b"Content-Length: 2", body=b"{}"),
             post(b"Content-Type: application/json", b"Transfer-Encoding: chunked", body=b"1\r\n{\r\n1\r\n}\r\n0\r\n\r\n"),
             b"HEAD /health/live HTTP/1.1\r\n" + HOST + b"\r\n", GET]
    stream = b"".join(kinds) * 3
    for at in range(0, len(stream), 7):
        client.say(stream[at:at + 7])
    for _ in range(3):
        assert [client.reply()[0], client.reply()[0], client.reply(head=True)[0], client.reply()[0]] == [201, 201, 200, 200]
    client.close()
    assert len(node.call("GET", "/sessions").json["items"]) == 6


SLOW = "limits: {head_seconds: 1, stall_seconds: 1, least_bytes_per_second: 100}\n"


def test_slow_clients_end_and_quick_ones_are_served(daemon):
    node = daemon(SLOW)
    leftovers.ready(node)
    heads = [Raw(node, say=b"GET /health/live HT") for _ in range(30)]
    bodies = [Raw(node, certificate=True, say=post(b"Content-Type: application/json", b"Content-Length: 1000", body=b"{")) for _ in range(30)]
    chunks = Raw(node, certificate=True, say=post(b"Content-Type: application/json", b"Transfer-Encoding: chunked", body=b"5"))
    quick = Raw(node)
    for _ in range(20):
        assert quick.say(GET).reply()[0] == 200
    for client in heads:
        client.refused(408, "head_slow")
    for client in bodies + [chunks]:
        client.refused(408, "body_slow")
    assert quick.say(GET).reply()[0] == 200  # its connection was idle meanwhile
    assert node.call("GET", "/sessions").json["items"] == []


def test_who_takes_no_replies_is_let_go_of_and_quick_ones_are_served(daemon):
    node = daemon(SLOW)
    leftovers.ready(node)
    ask = b"GET /openapi.json HTTP/1.1\r\n" + HOST + b"\r\n"
    slow = [Raw(node, certificate=True, receive_buffer=4096, say=ask * 100) for _ in range(10)]
    quick = Raw(node)
    for _ in range(20):
        assert quick.say(GET).reply()[0] == 200
    for client in slow:  # front's end of it is gone: what the client has to say is answered with a reset
        with pytest.raises(OSError):
            while True:
                client.socket.sendall(b" " * 1024)
                client.socket.unwrap()
    assert quick.say(GET).reply()[0] == 200


def test_stalled_handshakes_stop_nobody(daemon):
    node = daemon("limits: {handshakes: 20, handshake_seconds: 300}\n")
    leftovers.ready(node)
    stalled = []
    for i in range(60):
        one = socket.create_connection(address(node), PATIENCE)
        if i % 2:
            one.sendall(b"\x16\x03\x01\x02")
        stalled.append(one)
    assert Raw(node).say(GET).reply()[0] == 200
    for one in stalled[:40]:
        with contextlib.suppress(ConnectionResetError):  # FIN, or RST where bytes of it lay unread
            assert one.recv(1) == b""
    for one in stalled:
        one.close()


def test_an_address_has_its_share(daemon):
    node = daemon("limits: {connections_per_address: 5}\n")
    first = [Raw(node) for _ in range(5)]
    with pytest.raises(OSError):
        Raw(node)
    for client in first:
        assert client.say(GET).reply()[0] == 200
        client.close()


def test_limits_of_the_configuration_hold(daemon):
    node = daemon("limits: {head_bytes: 2048, headers: 16, body_bytes: 65536}\n")
    leftovers.ready(node)
    Raw(node, say=get(b"Host: h", b"X: " + b"y" * 2000)).refused(431, "head_large")
    Raw(node, say=get(b"Host: h", *(b"X: y" for _ in range(16)))).refused(431, "headers_many")
    Raw(node, say=post(b"Content-Length: 65537")).refused(413, "body_large")
    Raw(node, say=post(b"Transfer-Encoding: chunked", body=b"10001\r\n")).refused(413, "body_large")
    assert Raw(node, say=get(b"Host: h", b"X: " + b"y" * 1800)).reply()[0] == 200
