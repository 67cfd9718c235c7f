"""POST /login: a browser's cookie stands for a token or a certificate, never for more, and no foreign page can use it."""
import hashlib
import re
import time

import pytest

from test_access import ROLES, node, token_of  # noqa: F401

CONFIG = "limits: {{login_idle_seconds: {idle}, login_seconds: {whole}}}\n"


class Browser:
    """Calls as a browser makes them: by cookie, or with nothing."""

    def __init__(self, node, cookie=None, csrf=None):
        self.node, self.cookie, self.csrf = node, cookie, csrf

    def __call__(self, method, path, body=None, headers=(), csrf=True):
        more = [f"Cookie: other=1; __Host-quiesced={self.cookie}; last=2"] if self.cookie else []
        if csrf and self.csrf and method not in ("GET", "HEAD"):
            more.append(f"X-CSRF-Token: {self.csrf}")
        return self.node.call(method, path, body, headers=[*more, *headers], token="")

    def log_in(self, token):
        reply = self("POST", "/login", {"token": token})
        if reply.status == 200:
            self.cookie, self.csrf = cookie_of(reply), reply.json["csrf_token"]
        return reply


def cookie_of(reply):
    name, _, rest = reply.headers["set-cookie"].partition("=")
    value, *attributes = rest.split("; ")
    assert name == "__Host-quiesced" and {"Path=/", "Secure", "HttpOnly", "SameSite=Strict"} <= set(attributes)
    assert not any(attribute.startswith("Domain") for attribute in attributes)
    return value


@pytest.fixture
def browser(node):  # noqa: F811
    return Browser(node)


@pytest.mark.parametrize("role", ROLES)
def test_a_login_is_its_token_and_no_more(node, browser, role):  # noqa: F811
    reply = browser.log_in(token_of(role))
    assert reply.status == 200 and (reply.json["principal"], reply.json["role"]) == (f"{role}-1", role)
    assert re.fullmatch(r"qsl1_[\w-]{43}", browser.cookie) and "cookie" not in reply.json
    again = browser("GET", "/login").json
    assert again["idle_expires_at"] > reply.json["idle_expires_at"] and again | {"idle_expires_at": ""} == reply.json | {"idle_expires_at": ""}
    who = browser("GET", "/whoami").json
    assert (who["principal"], who["role"]) == (f"{role}-1", role)
    assert browser("POST", "/tokens", {"name": "t", "role": "admin"}).status == (201 if role == "admin" else 403)


def test_what_changes_something_needs_the_word_of_the_page(browser):
    browser.log_in(token_of("operator"))
    for csrf in (None, "", "0" * 64, browser.csrf[:-1]):
        headers = [] if csrf is None else [f"X-CSRF-Token: {csrf}"] if csrf else ["X-CSRF-Token;"]
        reply = browser("POST", "/sessions", {"kind": "backup"}, headers, csrf=False)
        assert reply.status == 403 and reply.json["reason"] == "csrf" and "GET /login" in reply.json["hint"]
    assert browser("GET", "/sessions").json["items"] == []
    made = browser("POST", "/sessions", {"kind": "backup"})
    assert made.status == 201
    assert browser("DELETE", f"/sessions/{made.json['id']}", csrf=False).status == 403
    assert browser("DELETE", f"/sessions/{made.json['id']}").status == 204


def test_a_page_of_another_site_changes_nothing_even_with_a_certificate(node, browser):  # noqa: F811
    browser.log_in(token_of("operator"))
    for site in ("cross-site", "same-site", "nonsense"):
        header = [f"Sec-Fetch-Site: {site}"]
        assert browser("POST", "/sessions", {"kind": "backup"}, header).json["reason"] == "cross_site"
        assert node.call("POST", "/sessions", {"kind": "backup"}, headers=header).json["reason"] == "cross_site"
        assert browser("POST", "/login", {"token": token_of("admin")}, header).json["reason"] == "cross_site"
        assert browser("GET", "/sessions", headers=header).json["items"] == []
    assert browser("POST", "/sessions", {"kind": "backup"}, ["Sec-Fetch-Site: same-origin"]).status == 201


def test_a_wrong_token_logs_nobody_in(browser):
    reply = browser.log_in("qsd1_wrong")
    assert reply.status == 401 and "set-cookie" not in reply.headers
    assert browser("POST", "/login", {}).status == 401
    assert browser("POST", "/login", {"token": ""}).json["errors"][0]["pointer"] == "/token"
    assert browser("POST", "/login", {"tocken": "x"}).json["errors"][0]["pointer"] == "/tocken"
    for cookie in ("", "qsl1_wrong", "x" * 500):
        assert Browser(browser.node, cookie)("GET", "/whoami").status == 401
    assert browser.node.call("GET", "/login", token=token_of("viewer")).status == 404


def test_a_revoked_token_ends_its_logins(node, browser):  # noqa: F811
    made = node.call("POST", "/tokens", {"name": "dash", "role": "operator"}).json
    assert browser.log_in(made["token"]).status == 200
    assert browser("GET", "/whoami").json["token_id"] == made["id"]
    assert node.call("DELETE", f"/tokens/{made['id']}").status == 204
    assert browser("GET", "/whoami").status == 401 and browser("POST", "/sessions", {"kind": "backup"}).status == 401


def test_logging_out_here_and_everywhere(node, browser):  # noqa: F811
    browsers = [Browser(node) for _ in range(3)]
    other = Browser(node)
    for one in browsers:
        assert one.log_in(token_of("viewer")).status == 200
    other.log_in(token_of("operator"))
    gone = browsers[0]("DELETE", "/login")
    assert gone.status == 204 and "Max-Age=0" in gone.headers["set-cookie"]
    assert [one("GET", "/whoami").status for one in browsers] == [401, 200, 200]
    assert browsers[1]("DELETE", "/login?everywhere=true", csrf=False).status == 403
    assert browsers[1]("DELETE", "/login?everywhere=true").status == 204
    assert [one("GET", "/whoami").status for one in browsers] == [401, 401, 401]
    assert other("GET", "/whoami").status == 200


def test_a_login_outlives_the_daemon_and_its_secret_is_kept_nowhere(node, browser):  # noqa: F811
    browser.log_in(token_of("viewer"))
    node.stop()
    node.start()
    assert browser("GET", "/login").json["csrf_token"] == browser.csrf
    digest = hashlib.sha256(browser.cookie.encode()).hexdigest()
    held = [file.read_bytes() for file in (node.place / "state" / "store").iterdir()]
    assert any(digest.encode() in text for text in held)
    for text in [*held, (node.place / "daemon.log").read_bytes()]:
        assert browser.cookie[5:].encode() not in text and browser.csrf.encode() not in text


def test_of_twenty_logins_the_one_used_longest_ago_makes_room(node):  # noqa: F811
    browsers = [Browser(node) for _ in range(21)]
    for one in browsers[:20]:
        one.log_in(token_of("viewer"))
    assert browsers[0]("GET", "/whoami").status == 200
    browsers[20].log_in(token_of("viewer"))
    assert [one("GET", "/whoami").status for one in browsers] == [200, 401] + [200] * 19


def ends(browser, busy):
    """Waits until the login is over; True when it was used all the while."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if not busy:
            time.sleep(4)
        if browser("GET", "/whoami").status == 401:
            return True
    return False


@pytest.mark.parametrize(("idle", "whole", "busy"), [(600, 3, True), (2, 600, False)])
def test_a_login_ends_after_its_time_or_unused(daemon, idle, whole, busy):
    node = daemon(CONFIG.format(idle=idle, whole=whole))
    with open(node.ready["token_file"], encoding="ascii") as file:
        token = file.read().strip()
    browser = Browser(node)
    made = browser.log_in(token).json
    assert made["idle_expires_at"] <= made["expires_at"]
    assert ends(browser, busy)
    assert browser.log_in(token).status == 200


def test_a_login_by_certificate_needs_the_certificate(node, browser):  # noqa: F811
    reply = node.call("POST", "/login", {})
    assert reply.status == 200
    browser.cookie, browser.csrf = cookie_of(reply), reply.json["csrf_token"]
    assert browser("GET", "/whoami").status == 401  # the cookie without the certificate
    both = node.call("GET", "/login", headers=[f"Cookie: __Host-quiesced={browser.cookie}"])
    assert both.status == 200 and both.json["csrf_token"] == browser.csrf
    assert node.call("POST", "/sessions", {"kind": "backup"}, headers=[f"Cookie: __Host-quiesced={browser.cookie}"]).json["reason"] == "csrf"
