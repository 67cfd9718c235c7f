"""The manual as the daemon serves it, and the pages that are made from the program's own tables."""
import posixpath
import re
import shutil
import subprocess

import pytest
import yaml

import pages
from daemon import BUILD, CONTRACT, SOURCE

HTML = BUILD / "generated" / "manual" / "html"
INDEX, ALL = pages.load((BUILD / "generated" / "manual" / "commands.json").read_text())
BROWSER = shutil.which("chromium")


@pytest.fixture
def node(daemon):
    return daemon()


def fetch(node, path, *headers):
    return node.call("GET", path, headers=headers, token="", check=False)


def test_every_page_is_served_to_anybody_without_scripts_and_its_links_lead_somewhere(node):
    assert fetch(node, "/docs/manual").headers["location"] == "/docs/manual/" and fetch(node, "/docs/manual/none.html").status == 404
    assert b'href="manual/"' in fetch(node, "/docs/").raw
    seen, known = {"/docs/manual/"}, {}
    queue = ["/docs/manual/"]
    while queue:
        path = queue.pop()
        reply = known[path] = fetch(node, path, "Accept: text/html")
        assert reply.status == 200, path
        if not path.startswith("/docs/manual/") or path.endswith(".css"):
            continue
        assert reply.headers["content-security-policy"] == "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        text = reply.raw.decode()
        assert not re.search(r"<script|<style|<img|\son\w+=|\sstyle=|<iframe", text), path
        for target in re.findall(r'<(?:a|link)\b[^>]*\bhref="([^"#]+)', text):
            if re.match(r"[a-z]+:", target):
                continue
            full = target if target.startswith("/") else posixpath.normpath(posixpath.join(posixpath.dirname(path), target)) + ("/" if target.endswith("/") else "")
            if full not in seen:
                seen.add(full)
                queue.append(full)
    assert {f"/docs/manual/{page.html}" for page in ALL} <= set(known), "a chapter that nothing leads to"
    assert "/docs/manual/manual.css" in known and "/ui/" in known


def test_every_chapter_of_docs_is_in_the_manual():
    listed = {page.name for page in ALL} | {source for row in INDEX["man"] for source in row["sources"]}
    there = {path.relative_to(pages.DOCS).as_posix() for path in pages.DOCS.rglob("*.md")}
    assert there - listed == set()
    assert len({page.title for page in ALL}) == len(ALL)


def test_pages_that_are_made_say_in_the_tree_what_the_program_says():
    made = pages.made_pages((BUILD / "generated" / "manual" / "commands.json").read_text())
    assert (pages.DOCS / "errors.md").read_text() == made["errors.md"], "docs/errors.md is old: scripts/manual/build.py --docs"
    assert (HTML.parent / "commands.md").read_text() == made["commands.md"], "what the package gets"
    exits = "## Exit codes"
    assert (pages.DOCS / "commands.md").read_text().partition(exits)[2] == made["commands.md"].partition(exits)[2]


def test_every_link_between_chapters_leads_somewhere_in_the_tree():
    """The package has the same files below /usr/share/doc/quiesced; what lies outside docs/ is not in it, and not linked."""
    dead = []
    for path in pages.DOCS.rglob("*.md"):
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", re.sub(r"```.*?```|`[^`]*`", "", path.read_text(), flags=re.S)):
            if not re.match(r"[a-z]+:", target) and not (path.parent / target).exists():
                dead.append(f"{path.relative_to(pages.DOCS)}: {target}")
    assert not dead


def test_the_table_of_codes_is_the_programs_own(node):
    rows = {row["hresult"]: row for row in node.call("GET", "/problems", token="").json["items"]}
    codes = {name: (value, status, meaning, cause, cure) for name, value, status, meaning, cause, cure in pages.codes()}
    assert list(codes) == CONTRACT.document["components"]["schemas"]["HResult"]["enum"]
    assert codes == {name: (row["code"], str(row["status"]), row["title"], row["cause"], row["cure"]) for name, row in rows.items()}
    page = (HTML / "errors.html").read_text()
    assert all(f'id="{name.lower()}"' in page for name in codes)


def source_strings():
    """Every string of the program, with what is put in at run time as one sign."""
    text = "\n".join(path.read_text() for folder in ("daemon", "api") for path in (SOURCE / folder).rglob("*") if path.suffix in (".c", ".h", ".def"))
    text = re.sub(r'"\s*\n\s*"', "", text)
    return re.sub(r"%(?:\.\*|l|z)*[a-z]", "…", text)


def test_what_the_manual_quotes_is_what_the_program_says():
    """First column of the tables of operations.md: each piece in backticks that is a sentence stands in the program."""
    words, missing = source_strings(), []
    rules = set(re.findall(r"^\| `([a-z-]+)` \|", (pages.DOCS / "providers" / "planner.md").read_text(), re.M))
    for row in re.findall(r"^\| (.+?) \|", (pages.DOCS / "operations.md").read_text(), re.M):
        for quote in re.findall(r"`([^`]+)`", row):
            if quote.startswith(("quiescectl", "result.")) or quote in rules or quote == "accept_incomplete" or re.fullmatch(r"[A-Z_]+", quote):
                continue
            if not all(piece.strip() in words for piece in quote.split("…") if piece.strip()):
                missing.append(quote)
    assert not missing


def members(spec):
    """Names of an array of conf_spec.c."""
    text = (SOURCE / "daemon" / "conf" / "conf_spec.c").read_text()
    return re.findall(r'\{"(\w+)", (?:true|false), &', re.search(rf"struct json_member {spec}\[\] = \{{(.*?)\n?\}};", text, re.S)[1])


def test_every_member_of_the_configuration_is_told():
    told = (pages.DOCS / "configuration.md").read_text()
    for spec, prefix in (("limit_members", "limits."), ("retention_members", "retention."), ("audit_members", "audit."), ("webhook_members", "webhooks."), ("tls_members", "tls."), ("run_as_members", "run_as."),
                         ("socket_members", "socket."), ("principal_members", "principals[]."), ("copy_members", "providers.copy."), ("external_members", "providers.external.")):
        assert [name for name in members(spec) if f"`{prefix}{name}`" not in told] == [], spec
    for name in members("members"):
        assert re.search(rf"^{name}:", told, re.M), name
    sections = yaml.safe_load((SOURCE / "packaging" / "quiesced.yaml").read_text() or "{}")
    assert sections is None or isinstance(sections, dict)


def test_defaults_that_are_told_are_the_programs():
    text = (SOURCE / "daemon" / "conf" / "conf_defaults.c").read_text()
    defaults = yaml.safe_load("".join(re.findall(r'^    "(.*)"', text, re.M)).replace('\\"', '"'))
    told = (pages.DOCS / "configuration.md").read_text()
    for names, values in re.findall(r"^\| ((?:`limits\.\w+`(?:, )?)+) \| ([\d, ]+) \|", told, re.M):
        for name, value in zip(re.findall(r"limits\.(\w+)", names), values.split(", "), strict=True):
            assert defaults["limits"][name] == int(value), name


@pytest.mark.skipif(not BROWSER, reason="chromium is not installed (scripts/install-dependencies)")
@pytest.mark.parametrize("dark", (False, True))
def test_a_browser_shows_it_and_complains_of_nothing(node, tmp_path, dark):
    command = [BROWSER, "--headless=new", "--no-sandbox", "--disable-gpu", "--ignore-certificate-errors", f"--user-data-dir={tmp_path}/profile", "--enable-logging=stderr",
               "--window-size=1200,1600", *(["--blink-settings=preferredColorScheme=0"] if dark else [])]
    picture = tmp_path / "page.png"
    done = subprocess.run([*command, f"--screenshot={picture}", node.ready["url"] + "/docs/manual/first-backup.html"], capture_output=True, text=True, timeout=300)
    assert [line for line in done.stderr.splitlines() if ":CONSOLE" in line] == [], done.stderr[-3000:]
    assert picture.stat().st_size > 20000
