"""/docs/: the contract's pages in a browser, under a policy that lets in nothing from elsewhere, no inline code and no eval."""
import os
import re
import shutil
import subprocess

import pytest

BROWSER = shutil.which("chromium")


@pytest.fixture(scope="module")
def served():
    import tempfile
    from daemon import Daemon
    with tempfile.TemporaryDirectory(prefix="quiesced-test-", dir="/var/tmp") as place:
        os.chmod(place, 0o755)
        one = Daemon(place).start()
        yield one
        one.stop()
        assert not one.sanitized()


def test_the_page_needs_no_credential_and_says_what_it_may_load(served):
    page = served.call("GET", "/docs/", token="", check=False)
    assert (page.status, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "script-src 'self';" in policy and "style-src 'self';" in policy and "unsafe" not in policy
    bare = served.call("GET", "/docs", token="", check=False)
    assert (bare.status, bare.headers["location"]) == (308, "/docs/")
    for name in re.findall(rb'(?:src|href)="([^"/]+)"', page.raw):
        assert served.call("GET", "/docs/" + name.decode(), token="", check=False).status == 200
    packed = served.call("HEAD", "/docs/swagger-ui-bundle.js", token="", check=False, headers=["Accept-Encoding: gzip"])
    assert packed.headers["content-encoding"] == "gzip" and int(packed.headers["content-length"]) < 600000
    assert served.call("GET", "/docs/none.js", token="", check=False).status == 404
    assert served.call("POST", "/docs/", {}, token="", check=False).status == 405


def test_it_carries_the_licence(served):
    assert b"Apache License" in served.call("GET", "/docs/LICENSE.txt", token="", check=False).raw


@pytest.mark.skipif(not BROWSER, reason="chromium is not installed (scripts/install-dependencies)")
def test_a_browser_shows_the_operations_and_complains_of_nothing(served, tmp_path):
    picture = tmp_path / "docs.png"
    command = [BROWSER, "--headless=new", "--no-sandbox", "--disable-gpu", "--ignore-certificate-errors", f"--user-data-dir={tmp_path}/profile",
               "--enable-logging=stderr", "--window-size=1200,1600", "--virtual-time-budget=60000", "--timeout=120000"]
    page = served.ready["url"] + "/docs/#/sessions/sessionCreate"
    done = subprocess.run([*command, "--dump-dom", page], capture_output=True, text=True, timeout=300)
    console = [line for line in done.stderr.splitlines() if ":CONSOLE" in line]
    assert console == [], done.stderr[-3000:]
    assert 'id="operations-sessions-sessionCreate"' in done.stdout and "opblock-body" in done.stdout, done.stdout[:3000]
    tags = set(re.findall(r'id="operations-tag-([\w-]+)"', done.stdout))
    assert {"sessions", "jobs", "backups", "access", "daemon"} <= tags
    subprocess.run([*command, f"--screenshot={picture}", page], capture_output=True, timeout=300, check=True)
    assert picture.stat().st_size > 20000
