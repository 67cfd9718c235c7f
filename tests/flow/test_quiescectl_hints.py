"""What the daemon advises speaks of calls of the API. Who sits before quiescectl is told commands, for every hint that there is in the sources."""
import json
import re
import subprocess
import threading

import pytest

from ctl import BAD_STATE, FAILED
from daemon import BUILD, CONTRACT, SOURCE
from test_quiescectl_commands import Server, Slow

LITERAL = r'"(?:[^"\\]|\\.)*"'
SPOKEN = re.compile(r"\b(?:GET|POST|PUT|PATCH|DELETE)\b|If-(?:None-)?Match|Retry-After|`Allow`|Allow tells|/status\b")
NOT_OURS = {"daemon/front/refusal.c"}  # of requests that libcurl does not send


def literal(text):
    """Adjacent C strings as one."""
    return "".join(json.loads(part.replace("\\x", "\\u00")) for part in re.findall(LITERAL, text))


def arguments(text, at):
    """Those of a call whose bracket was opened right before `at`."""
    found, depth, begin = [], 1, at
    while depth:
        if text[at] == '"':
            at = re.compile(LITERAL).match(text, at).end()
            continue
        depth += (text[at] in "([{") - (text[at] in ")]}")
        if depth == 0 or (text[at] == "," and depth == 1):
            found.append(text[begin:at])
            begin = at + 1
        at += 1
    return found


def hints():
    """Hints of errors, and what helps in general, that speak of calls."""
    found = set()
    for path in [*SOURCE.glob("daemon/**/*.c"), *SOURCE.glob("api/**/*.c")]:
        name, text = str(path.relative_to(SOURCE)), path.read_text()
        if name.startswith("daemon/cli/") or name in NOT_OURS:
            continue
        for call in re.finditer(r"\berr_(set|errno)\(", text):
            given = arguments(text, call.end())
            at = 2 if call[1] == "set" else 3
            found |= {literal(part) for part in re.findall(rf"(?:{LITERAL}\s*)+", given[at])} if len(given) > at else set()
        found |= {literal(part[1]).replace("%s", "/tokens") for part in re.finditer(rf"(?:str_format|str_copy)\((?:err\.)?hint, sizeof (?:err\.)?hint,\s*((?:{LITERAL}\s*)+)", text)}
    rows = re.findall(rf"HRESULT_ROW\([^,]+,[^,]+,[^,]+,\s*(?:{LITERAL}\s*)+,\s*(?:{LITERAL}\s*)+,\s*((?:{LITERAL}\s*)+)\)", (SOURCE / "daemon/base/hresult.def").read_text())
    assert len(rows) == len(CONTRACT.document["components"]["schemas"]["HResult"]["enum"])
    return sorted(hint for hint in found | {literal(row) for row in rows} if SPOKEN.search(hint))


class Advising(Slow):
    """A refusal with the hint in hand, or a job that failed with it."""

    def do_GET(self):
        if self.path.startswith("/jobs/"):
            self.answer(200, {**self.job, "state": "failed", "hresult": "VSS_E_UNEXPECTED", "error": {"detail": "no", "hint": self.server.hint}})
        else:
            self.answer(409, {"detail": "no", "hint": self.server.hint, "hresult": "VSS_E_BAD_STATE", "request_id": "r"})


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    place = tmp_path_factory.mktemp("advising")
    server = Server(place / "api.sock")
    server.RequestHandlerClass = Advising
    thread = threading.Thread(target=server.serve_forever)
    thread.start()

    def ask(hint, *command, code):
        server.hint = hint
        done = subprocess.run([BUILD / "quiescectl", "--socket", place / "api.sock", *command], capture_output=True, text=True, timeout=60, env={"HOME": str(place), "PATH": "/usr/bin:/bin"})
        assert done.returncode == code, done
        return done.stdout + done.stderr

    yield ask
    server.shutdown()
    thread.join()
    server.server_close()


def commands():
    return {command["command"] for command in json.loads(subprocess.run([BUILD / "quiescectl", "--help", "--json"], capture_output=True, check=True).stdout)["commands"]}


def test_every_hint_names_commands(told):
    asked, there, operations = hints(), commands(), {f"{method.upper()} {path}" for path, item in CONTRACT.document["paths"].items() for method in item}
    assert len(asked) > 50
    for hint in asked:
        (line,) = [row for row in told(hint, "whoami", code=BAD_STATE).splitlines() if row.startswith("  hint: ")]
        quoted = re.findall(r"`quiescectl ([^`]+)`", line)
        assert quoted or not re.search(r"[A-Z] /", hint), (hint, line)
        left = re.sub(r"`[^`]*`", "", line)
        assert not SPOKEN.search(left) and "{" not in line, (hint, line)
        for words in quoted:
            two, one = " ".join(words.split()[:2]), words.split()[0]
            assert two in there or one in there, (hint, line)
            call = re.match(r"call (\w+) (/\S*)", words)
            if call and call[1] != "METHOD":
                assert any(re.fullmatch(re.sub(r"\{[^}]*\}", "[^/]+", operation), f"{call[1]} {call[2]}") for operation in operations), (hint, line)


def test_the_table_is_of_operations_and_commands_that_there_are(told):
    text, there = (SOURCE / "daemon/cli/hint.c").read_text(), commands()
    rows = re.findall(r'^    \{"((?:GET|POST|PUT|PATCH|DELETE) /[^"]*)", "([^"]+)"\},$', text, re.M)
    assert len(rows) > 50
    operations = {f"{method.upper()} {re.sub(r'{[^}]*}', '{}', path)}" for path, item in CONTRACT.document["paths"].items() for method in item}
    assert {call for call, _ in rows} - operations == set()
    named = set()
    for _, command in rows:
        words = command.split()
        named |= {" ".join(words[:2])} & there or {words[0]} & there
    assert len(named) > 45
    # Every command that makes one call of its own is in it: a verb of a session without a row would be told as a call.
    assert {name for name in there if name.split()[0] in ("session", "job", "token", "cert", "repository")} - named == {"job watch"}, "which is told of a call that waits"


def test_words_of_a_call_are_words_of_the_command(told):
    for hint, wanted in (("Wait for it: GET /jobs/{id}?wait=60.", "Wait for it: `quiescectl job watch JOB`."),
                         ("Delete one (GET /snapshots?volume= lists them).", "Delete one (`quiescectl snapshots volume=VALUE` lists them)."),
                         ("PATCH /sessions/{id}/components/{id} {\"selected\":true} before PreRestore.", "`quiescectl session set-component SESSION COMPONENT selected=true` before PreRestore."),
                         ("Wait for it: GET /snapshots/{id}/revert.", "Wait for it: `quiescectl call GET /snapshots/ID/revert`."),
                         ("Nothing to call; \"{x}\" stays.", "Nothing to call; \"{x}\" stays.")):
        assert f"  hint: {wanted}\n" in told(hint, "whoami", code=BAD_STATE), hint


def test_a_job_that_failed_tells_commands_too(told):
    assert "; hint: `quiescectl backups` lists what there is." in told("GET /backups lists what there is.", "job", "watch", "x", code=FAILED)
