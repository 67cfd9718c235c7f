"""The dashboard's files as the daemon serves them: bytes, encodings, validators, and the headers that fence the page in."""
import gzip
import pathlib
import re
import subprocess

import pytest

from conftest import SOURCE

DIST = pathlib.Path(SOURCE) / "webui" / "dist"
FILES = sorted(path for path in DIST.rglob("*") if path.is_file())


@pytest.fixture
def pages(daemon):
    return daemon()


def fetch(node, path, *headers, method="GET"):
    """Nobody in particular: no certificate, no token. Returns status, headers, body."""
    return node.call(method, path, headers=headers, token="", check=False)


def path_of(file):
    return "/ui/" + file.relative_to(DIST).as_posix()


def test_every_file_is_served_in_each_encoding_with_an_etag_of_its_own(pages):
    assert any(file.name == "index.html" for file in FILES) and any(file.suffix == ".js" for file in FILES)
    for file in FILES:
        tags = {}
        for accept in ("identity", "gzip", "br", "gzip, br"):
            reply = fetch(pages, path_of(file), f"Accept-Encoding: {accept}")
            assert reply.status == 200 and reply.headers["vary"] == "Accept-Encoding", (file, accept)
            encoding = reply.headers.get("content-encoding", "")
            assert encoding in ("", *accept.split(", ")), (file, accept)
            assert tags.setdefault(encoding, reply.headers["etag"]) == reply.headers["etag"]
            assert unpack(encoding, reply.raw) == file.read_bytes(), (file, encoding)
        assert len(set(tags.values())) == len(tags)


def unpack(encoding, body):
    if encoding == "br":
        return subprocess.run(["brotli", "-d", "-c"], input=body, capture_output=True, check=True).stdout
    return gzip.decompress(body) if encoding == "gzip" else body


def test_what_a_browser_has_it_is_not_sent_again(pages):
    for accept in ("identity", "gzip", "br"):
        first = fetch(pages, "/ui/", f"Accept-Encoding: {accept}")
        again = fetch(pages, "/ui/", f"Accept-Encoding: {accept}", f"If-None-Match: \"other\", {first.headers['etag']}")
        assert (again.status, again.raw, again.headers["etag"]) == (304, b"", first.headers["etag"])
    other = fetch(pages, "/ui/", "Accept-Encoding: identity", f"If-None-Match: {fetch(pages, '/ui/', 'Accept-Encoding: br').headers['etag']}")
    assert other.status == 200


def test_names_with_a_hash_are_kept_for_ever_and_the_page_itself_is_asked_for(pages):
    for file in FILES:
        control = fetch(pages, path_of(file)).headers["cache-control"]
        assert control == ("public, max-age=31536000, immutable" if file.parent.name == "assets" else "no-cache"), file


def test_the_page_is_fenced_in(pages):
    headers = fetch(pages, "/ui/").headers
    policy = dict(part.strip().partition(" ")[::2] for part in headers["content-security-policy"].split(";"))
    assert policy["default-src"] == "'none'" and policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert policy["require-trusted-types-for"] == "'script'" and policy["frame-ancestors"] == policy["base-uri"] == "'none'"
    assert headers["x-content-type-options"] == "nosniff" and headers["referrer-policy"] == "no-referrer"
    assert headers["cross-origin-opener-policy"] == headers["cross-origin-resource-policy"] == "same-origin"
    page = (DIST / "index.html").read_text()
    assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\son\w+=|\sstyle=", page)


def test_paths_methods_and_the_largest_head(pages):
    assert fetch(pages, "/ui").headers["location"] == "/ui/" and fetch(pages, "/ui").status == 308
    assert fetch(pages, "/", "Accept: text/html").headers["location"] == "/ui/"
    assert fetch(pages, "/").json["_links"]["dashboard"] == {"href": "/ui/"} and fetch(pages, "/sessions").status == 401
    for path in ("/ui/%2e%2e/x", "/ui/assets/", "/ui/none.js", "/ui//index.html"):
        assert fetch(pages, path).status == 404, path
    assert fetch(pages, "/ui/?x=1").status == 200
    assert fetch(pages, "/ui/", method="POST").headers["allow"] == "GET, HEAD, OPTIONS"
    assert fetch(pages, "/ui/", method="OPTIONS").status == 204
    head = fetch(pages, "/ui/", "Accept-Encoding: br", method="HEAD")
    assert head.status == 200 and head.raw == b"" and int(head.headers["content-length"]) > 0
    # However large a head the gate lets pass: libmicrohttpd has room for the longest head of ours beside it, or the connection would end.
    statuses = [fetch(pages, "/ui/", "Accept-Encoding: br", f"X-Filler: {'y' * size}").status for size in range(5200, 6700, 60)]
    assert statuses == sorted(statuses) and set(statuses) == {200, 431}
