"""Ids and names on the command line, as bash, zsh and fish complete them: asked at the daemon that the line names, and silent when it says nothing."""
import json
import os
import socket
import subprocess

import pytest

import journey
from ctl import FAILED, OK, REFUSED, UNREACHED, USAGE, Ctl
from daemon import BUILD
from test_quiescectl_commands import until

MANUAL = BUILD / "generated" / "manual"


@pytest.fixture
def ctl(daemon, tmp_path):
    return Ctl(daemon(journey.lay_out(daemon.place)), tmp_path)


@pytest.fixture
def shells(tmp_path):
    environment = {**os.environ, "HOME": str(tmp_path), "LC_ALL": "C.UTF-8", "PATH": f"{BUILD}:{os.environ['PATH']}"}
    for name in [name for name in environment if name.startswith("QUIESCED_")]:
        del environment[name]

    def run(argv):
        done = subprocess.run(argv, capture_output=True, text=True, env=environment, stdin=subprocess.DEVNULL, timeout=120)
        assert done.returncode == 0 and done.stderr == "", done
        return done.stdout

    def bash(line):
        """As readline hands a line over, which parts words at ":" and "=", too."""
        script = """. "$1"; COMP_LINE=$2 COMP_POINT=${#2}; rest=$2; COMP_WORDS=()
        while [[ -n $rest ]]; do
          if [[ $rest =~ ^[[:space:]]+ ]]; then rest=${rest#"${BASH_REMATCH[0]}"}; [[ -n $rest ]] || COMP_WORDS+=(""); continue; fi
          [[ $rest =~ ^([=:]+|[^=:[:space:]]+) ]]; COMP_WORDS+=("${BASH_REMATCH[0]}"); rest=${rest#"${BASH_REMATCH[0]}"}
        done
        COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); _quiescectl; printf '%s\\n' "${COMPREPLY[@]}" """
        return {row for row in run(["bash", "-u", "-c", script, "bash", MANUAL / "quiescectl.bash", line]).split("\n") if row}

    def zsh(line):
        words = line.split(" ")
        script = f"""autoload -U +X compinit && compinit -u -D; . {MANUAL}/_quiescectl
_describe() {{ print -rl -- ${{(P)@[-1]}} }}; _files() {{ print FILES }}; _default() {{ print DEFAULT }}
words=({' '.join(repr(word) for word in words)}); CURRENT={len(words)}; PREFIX={words[-1]!r}; _quiescectl"""
        return {row.split(":")[0] for row in run(["zsh", "-f", "-c", script]).splitlines() if row}

    def fish(line):
        return {row.split("\t")[0] for row in run(["fish", "--no-config", "-c", f"source {MANUAL}/quiescectl.fish; complete -C '{line}'"]).splitlines()}

    return {"bash": bash, "zsh": zsh, "fish": fish}


def known(ctl):
    """One of each kind, and what it is completed to."""
    ctl.run("backup", "--repository", "main", "--path", ctl.node.place / "data", "--label", "nightly")
    session = ctl.json("session", "create", "kind=backup", "label=mine")["id"]
    token = ctl.json("token", "create", "console", "viewer")["id"]
    sessions = {row["id"] for row in ctl.json("session", "list")}
    jobs = {row["id"] for row in ctl.json("job", "list")}
    (backup,) = [row["id"] for row in ctl.json("backups")]
    snapshot = kept_snapshot(ctl)
    jobs |= {row["id"] for row in ctl.json("job", "list")}
    sessions |= {row["id"] for row in ctl.json("session", "list")}
    assert session in sessions and len(jobs) > 1
    return {"job watch ": jobs, "job log ": jobs, "session show ": sessions, "session copy ": sessions, "backup show ": {backup}, "restore ": {backup}, "verify ": {backup},
            "hold delete ": {snapshot}, "token revoke ": {token}, "repository scan ": {"main"}, "backup --repository ": {"main"}, "backup --component ": {"app"},
            "plan --label ": {"nightly"}, "token create console ": {"viewer", "operator", "restorer", "auditor", "admin"}, "plan --writer-failure ": {"fail", "report"},
            "hold create --at-least ": {"application", "filesystem", "crash"}, "completion ": {"bash", "zsh", "fish"}}


def kept_snapshot(ctl):
    session = ctl.json("session", "create", "kind=backup")["id"]
    ctl.run("session", "set-context", session, "context=app_rollback")
    ctl.run("session", "set-state", session, "component_mode=true", "bootable_system_state=false", "type=copy", "partial_files=false")
    for verb in ("metadata", "start-set"):
        ctl.run("session", verb, session)
    ctl.run("session", "add-volume", session, f"path={ctl.node.place}/data", "provider=copy")
    for verb in ("prepare", "snapshot", "complete"):
        ctl.run("session", verb, session)
    (snapshot,) = [row["id"] for row in ctl.json("snapshots")]
    return snapshot


@pytest.mark.parametrize("shell", ["bash", *(pytest.param(shell, marks=pytest.mark.full) for shell in ("zsh", "fish"))])
def test_ids_and_names_are_completed(ctl, shells, shell):
    complete, wanted = shells[shell], known(ctl)
    ready = ctl.node.ready
    by_socket, by_url = f"--socket {ready['socket']}", f"--url {ready['url']} --ca {ready['ca']} --token-file {ready['token_file']}"
    for line, words in wanted.items():
        until(lambda line=line, words=words: complete(f"quiescectl {by_socket} {line}") >= words)  # a machine that is busy may need more than one look
    until(lambda: complete(f"quiescectl {by_url} repository show ") >= {"main"})
    until(lambda: complete(f"quiescectl --socket={ready['socket']} repository show ") >= {"main"})
    (backup,) = wanted["backup show "]
    assert backup not in complete(f"quiescectl {by_socket} restore {backup} "), "what follows is another thing"
    assert not wanted["job watch "] & complete(f"quiescectl {by_socket} backup show ")
    if shell == "bash":
        until(lambda: complete(f"quiescectl {by_socket} backup show {backup[:-3]}") == {backup})
        until(lambda: complete(f"quiescectl {by_socket} backup --label=nig") == {"nightly"})
        assert complete(f"quiescectl {by_socket} job watch xyz") == set()


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_daemon_that_says_nothing_costs_no_word(shells, shell, tmp_path):
    deaf = socket.socket(socket.AF_UNIX)
    deaf.bind(str(tmp_path / "deaf.sock"))
    deaf.listen()
    try:
        for path in (tmp_path / "deaf.sock", tmp_path / "nobody.sock"):  # one that never answers is given up
            offered = shells[shell](f"quiescectl --socket {path} job watch ")
            assert not any("quiescectl" in word or "hint" in word for word in offered), offered
    finally:
        deaf.close()


def test_the_words_by_themselves(ctl, tmp_path):
    assert ctl.run("completion", "words", "REPOSITORY").stdout == f"main\tarchive, {ctl.json('repositories')[0]['path']}\n"
    assert [row["word"] for row in ctl.json("completion", "words", "WRITER")] == ["app"]
    assert "one of JOB, SESSION" in ctl.run("completion", "words", "THING", code=USAGE).stderr
    assert ctl.run("backups").returncode == OK and ctl.run("status", code=FAILED).stderr == ""
    assert ctl.json("completion", "zsh") == {"shell": "zsh", "script": ctl.run("completion", "zsh").stdout}
    done = ctl.run("--socket", tmp_path / "nobody.sock", "completion", "words", "JOB", base=ctl.argv[:1], code=UNREACHED)
    assert done.stdout == done.stderr == ""
    ready = ctl.node.ready
    (tmp_path / "secret").write_text("qsd1_" + 43 * "0")  # nobody's
    done = ctl.run("--url", ready["url"], "--ca", ready["ca"], "--token-file", tmp_path / "secret", "completion", "words", "JOB", base=ctl.argv[:1], code=REFUSED)
    assert done.stdout == done.stderr == ""
    kinds = json.loads(subprocess.run([BUILD / "quiescectl", "--help", "--json"], capture_output=True, check=True).stdout)["commands"]
    first = {command["command"]: command["arguments"].split(" ")[0] for command in kinds}
    for command, kind in (("job watch", "JOB"), ("session show", "SESSION"), ("backup delete", "BACKUP"), ("token revoke", "TOKEN"), ("cert revoke", "CERTIFICATE"), ("repository scan", "REPOSITORY")):
        assert first[command] == kind, "what completion goes by"
