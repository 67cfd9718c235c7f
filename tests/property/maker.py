"""Requests made from openapi.yaml: an operation, a caller, ids of his, of others, of nobody, a body and headers, each valid, nearly so, or hostile."""
import dataclasses
import json
import urllib.parse

from values import NUMBERS, TEXTS, Values

HOSTILE_IDS = ["x", "..", ".", "%2e%2e", "..%2f..", "%2F", "%00", "%c0%af", "%ff", "%zz", "%", "*", "~", "a" * 65, "a" * 3000, "0197B0C2-7C1E-7D10-9D0B-5A0F6A1A2B3C", "%20", "0", "-1", "null",
               "0197b0c2-7c1e-7d10-9d0b-5a0f6a1a2b3c%00", "%e2%80%ae", "{id}", "';--", "a%3fb", "a%23b", "self", "events"]
UNKNOWN = "0197b0c2-7c1e-7d10-9d0b-5a0f6a1a2b3c"
CURSORS = ["x", "A" * 256, "A" * 257, "eyJhIjoxfQ==", "0", "-1", "%00", "%ff", "null", UNKNOWN, "..%2f", "1e9", "'%20OR%201=1", "%F0%9F%92%BE", "9" * 40, "AAAA.BBBB"]
TRACES = ["00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", "00-00000000000000000000000000000000-00f067aa0ba902b7-01", "ff-x", "00", "", "0" * 300, "00-4BF92F3577B34DA6A3CE929D0E0E4736-00F067AA0BA902B7-01",
          "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-what-the-future-will-be-like", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-x", "\t", "\xff\xfe"]
EVENT_IDS = ["0", "1", "-1", "18446744073709551616", "9" * 100, "x", "", " 1", "1;2", "0x10", "1e3", "\xff", UNKNOWN]
TAGS = ["*", '""', '"x"', 'W/"x"', '"a", "b"', "x", '"', 'W/', ",", '"' + "a" * 300 + '"', "\xff"]
NAMES = ["r1", "", " ", "a" * 128, "a" * 1000, "a b", "\xe9", "a;b", "../x", '"quoted"', "\x7f", "8e03978e-40d5-43e8-bc93-6894a57f9324"]
MEDIA = ["application/json", "application/json; charset=utf-8", "application/merge-patch+json", "APPLICATION/JSON", "application/json;;;", "text/plain", "application/xml", "multipart/form-data; boundary=x",
         "application/json, text/plain", "application/json; charset=utf-16", "", "*/*", "json", "application/x-www-form-urlencoded", "application/json\t; q=1", "application/problem+json"]
ACCEPTS = ["*/*", "application/json", "text/html", "application/xml;q=0.9, */*;q=0", "", ";;;", "application/*", "text/event-stream", "q=1", "application/json;q=2", "x" * 500]
METHODS = ["GET", "PUT", "POST", "DELETE", "PATCH", "HEAD", "OPTIONS", "TRACE", "CONNECT", "PROPFIND", "FOO", "get", "QUERY", "G"]
HEADERS = {
    "traceparent": TRACES, "tracestate": ["a=1", "", "=" * 600, "a=1,a=2"], "Last-Event-ID": EVENT_IDS, "X-Request-Id": NAMES, "Idempotency-Key": NAMES, "If-Match": TAGS, "If-None-Match": TAGS,
    "Prefer": ["wait=0", "wait=1", "wait=-1", "wait=x", "wait", "respond-async, wait=1", "wait=99999999999999999999", '=";', "wait=1, wait=2"], "Accept": ACCEPTS, "Range": ["bytes=0-1", "bytes=-", "x"],
    "Accept-Encoding": ["gzip, br", "identity;q=0", "*"], "Cookie": ["a=b", "session=" + "x" * 200, ";;", "="], "Content-Encoding": ["gzip", "identity", "x"], "Origin": ["https://evil.example", "null"],
    "X-Forwarded-For": ["127.0.0.1", "x"], "Expect": ["100-continue", "200-ok"], "Connection": ["keep-alive", "close", "Upgrade", "x, y"], "Upgrade": ["websocket", "h2c"], "X-HTTP-Method-Override": ["DELETE"],
    "If-Modified-Since": ["Thu, 01 Jan 1970 00:00:00 GMT", "x"], "Forwarded": ["for=1"], "TE": ["trailers"], "Content-Language": ["x"], "User-Agent": ["", "x" * 400],
}


@dataclasses.dataclass
class Request:
    method: str
    target: str          # as it is sent
    template: str        # of the contract; "" where the path is none of its
    headers: list        # of pairs
    body: bytes
    caller: str
    chunked: bool = False

    def bytes(self, token):
        head = [f"{self.method} {self.target} HTTP/1.1", "Host: localhost"]
        if token is not None:
            head.append(f"Authorization: Bearer {token}")
        head += [f"{name}: {value}" for name, value in self.headers]
        body = self.body
        if self.chunked:
            head.append("Transfer-Encoding: chunked")
            body = (b"%x\r\n%b\r\n" % (len(body), body) if body else b"") + b"0\r\n\r\n"
        elif body or self.method in ("POST", "PUT", "PATCH"):
            head.append(f"Content-Length: {len(body)}")
        return ("\r\n".join(head) + "\r\n\r\n").encode("latin-1", "replace") + body


class Maker:
    """`ids`: {caller: {path parameter: ids}}; `foreign`: {path parameter: ids of the principal whose objects nobody may touch}."""

    def __init__(self, random, contract, place, ids, foreign, pool):
        self.random, self.contract, self.ids, self.foreign = random, contract, ids, foreign
        self.values = Values(random, contract, place, pool)
        self.operations = contract.operations()

    def identity(self, caller, name):
        roll, own = self.random.random(), self.ids.get(caller, {}).get(name, [])
        if own and roll < 0.55:
            return self.random.choice(own)
        if caller != "admin" and self.foreign.get(name) and roll < 0.8:  # what an administrator does to others is allowed
            return self.random.choice(self.foreign[name])
        return UNKNOWN if roll < 0.88 else self.random.choice(HOSTILE_IDS)

    def target(self, template, caller):
        parts = [self.identity(caller, part[1:-1]) if part.startswith("{") else part for part in template.split("/")]
        return "/".join(parts)

    def query(self, parameters):
        pairs = []
        for parameter in parameters:
            if parameter["in"] != "query" or not (parameter.get("required") or self.random.random() < 0.3):
                continue
            name, schema = parameter["name"], parameter["schema"]
            if name == "cursor":
                value = self.random.choice(CURSORS)
            elif name == "wait":
                value = self.random.choice(["0", "1", "-1", "61", "x", "1.5", "99999999999999999999", ""])
            elif self.random.random() < 0.6:
                value = self.values.valid(schema, name)
                value = str(value).lower() if isinstance(value, bool) else value
            else:
                value = self.random.choice([*TEXTS, *NUMBERS])
            text = str(value) if name == "cursor" else urllib.parse.quote(str(value).encode("utf-8", "surrogatepass"), safe="")
            pairs.append(f"{name}={text}")
            if self.random.random() < 0.05:
                pairs.append(pairs[-1])
        if self.random.random() < 0.04:
            pairs.append(self.random.choice(["unknown=1", "a", "=", "&&", "a=b=c", "%00=1", "limit", "%ff=%fe", "a=" + "b" * 2000, "limit=%31", "LIMIT=1", "cursor=", "a[]=1", "?", "#", "%E2%82%AC" * 100 + "=1"]))
        return "?" + "&".join(pairs) if pairs else ""

    def text(self, value):
        """JSON with non-ASCII as it is, or escaped; lone surrogates only escaped. Infinity is no JSON, and is left as Python writes it."""
        escaped = json.dumps(value)
        if self.random.random() < 0.5:
            try:
                return json.dumps(value, ensure_ascii=False).encode()
            except UnicodeEncodeError:
                pass
        return escaped.encode()

    def spoiled(self, text):
        member = text[1:-1].split(b",")[0]
        return self.random.choice([
            b"[" * 10000, b'{"a":' * 5000, b"[" * 500 + b"]" * 500, text[:-1], text + b"x", text + text, b"\xef\xbb\xbf" + text, b"\xff\xfe", b"NaN", b"1e999", b"-", b"'x'", b"{a:1}", b" ", b"null",
            b"[]", b'"\\ud800"', b'{"\\u0000":1}', b"\x00", b"{" + member + b"," + member + b"}", b'{"label":"\xc3\x28"}', b'{"label":"\xed\xa0\x80"}', b"/* c */" + text, text.replace(b"}", b",}"),
            b"9" * 400, b"-0", b'{"a":1' + b"0" * 2000 + b"}", b"{}" + b" " * 3000, b'{"label":"' + b"x" * 9000 + b'"}', b"\n\t{}\r\n", b"tru", b'{"label":"\\u0000"}', b'{"label":"\\udc00"}',
        ])

    def body(self, operation):
        """(bytes, media type or None)"""
        request = self.contract.resolve(operation.get("requestBody"))
        if not request:
            return (self.random.choice([b"{}", b"x", b"[]"]), "application/json") if self.random.random() < 0.03 else (b"", None)
        media, content = self.random.choice(list(request["content"].items()))
        roll = self.random.random()
        if roll < 0.08:
            return b"", None
        text = self.text(self.values.valid(content["schema"]) if roll < 0.6 else self.values.off(content["schema"]))
        if roll > 0.88:
            text = self.spoiled(text)
        if self.random.random() < 0.06:
            media = self.random.choice(MEDIA)
        return text, media

    def headers(self):
        names = self.random.sample(list(HEADERS), self.random.choice((0, 0, 0, 1, 1, 2, 4)))
        return [(name, self.random.choice(HEADERS[name])) for name in names]

    def stray(self):
        """A path or method that the contract does not have."""
        target = self.random.choice(["/", "*", "//", "/sessions/", "/sessions//metadata", "/SESSIONS", "/sessions;a", "/sess%69ons", "/./sessions", "/sessions/..", "/%2e/", "/" + "a" * 4000, "/openapi.yaml/", "/jobs/x/y/z",
                                     "/\xe9", "/%", "/%00", "http://localhost/sessions", "http://other/jobs", "/ui/../sessions", "/.git/config", "/favicon.ico", "/sessions?%", "sessions", "", "/a#b", "/?a"])
        return Request(self.random.choice(METHODS), target, "", self.headers(), b"", "")

    def make(self, caller):
        if self.random.random() < 0.04:
            request = self.stray()
            request.caller = caller
            return request
        method, template, operation = self.random.choice(self.operations)
        _, item = self.contract.path(template)
        parameters = [self.contract.resolve(p) for p in operation.get("parameters", []) + item.get("parameters", [])]
        body, media = self.body(operation)
        headers = self.headers() + ([("Content-Type", media)] if media is not None else [])
        if method == "GET" and self.random.random() < 0.1:
            method = "HEAD"
        elif self.random.random() < 0.04:
            method = self.random.choice(METHODS)
        return Request(method, self.target(template, caller) + self.query(parameters), template, headers, body, caller, bool(body) and self.random.random() < 0.05)
