"""Man pages, help and completion: there is one of each for every command, and what reads them has no complaint."""
import json
import os
import re
import subprocess

import pytest

from daemon import BUILD, SOURCE

MANUAL = BUILD / "generated" / "manual"
PAGES = sorted((MANUAL / "man").iterdir())
ENVIRONMENT = {**os.environ, "LC_ALL": "C.UTF-8", "MANWIDTH": "100", "HOME": "/dev/null"}


def ctl(*arguments, code=0):
    done = subprocess.run([BUILD / "quiescectl", *arguments], capture_output=True, text=True, env=ENVIRONMENT, stdin=subprocess.DEVNULL)
    assert done.returncode == code, done
    return done.stdout


DOCUMENT = json.loads(ctl("--help", "--json"))
COMMANDS = [command["command"] for command in DOCUMENT["commands"]]
GROUPS = sorted({command["group"] for command in DOCUMENT["commands"] if "name" in command})


def read(page):
    done = subprocess.run(["man", "--warnings", "-E", "UTF-8", "-l", page], capture_output=True, text=True, env=ENVIRONMENT, check=True)
    return done.stdout, done.stderr


def test_the_commands_of_the_source_are_those_that_are_told():
    """Rows of the tables, by another way than the program's own."""
    text = "\n".join(path.read_text() for path in sorted((SOURCE / "daemon" / "cli").glob("*.c")))
    rows = re.findall(r'^    \{"([a-z-]+)", (NULL|"[a-z-]+"), (?:"[^"]*"|[A-Z]+),? ', text, re.M)
    assert sorted(group if name == "NULL" else f"{group} {name.strip(chr(34))}" for group, name in rows) == sorted(COMMANDS) and len(COMMANDS) > 50


@pytest.mark.parametrize("command", DOCUMENT["commands"], ids=lambda command: command["command"].replace(" ", "-"))
def test_a_command_has_help_a_man_page_and_an_example(command):
    name = command["command"]
    told = ctl(*name.split(), "--help")
    assert told.startswith(f"usage: quiescectl [OPTIONS] {name}") and command["summary"] in told
    assert len(command["text"]) > 20 and command["text"] in told and command["text"].rstrip()[-1] in ".:)`", "manual.def has words about each command"
    assert "quiescectl " + name in command["example"] and command["example"] in told
    for option in command["options"]:
        assert f"--{option['name']}" in told and option["meaning"] in told
    text, complaints = read(MANUAL / "man" / f"quiescectl-{name.replace(' ', '-')}.1")
    assert not complaints
    flat = re.sub(r"[‐-]\s+", "-", re.sub(r"\s+", " ", text))
    for heading in ("NAME", "SYNOPSIS", "DESCRIPTION", "EXAMPLE", "SEE ALSO"):
        assert re.search(rf"^{heading}$", text, re.M), heading
    assert f"quiescectl-{name.replace(' ', '-')}" in flat and all(f"--{option['name']}" in flat for option in command["options"])


def test_there_is_no_page_too_many():
    expected = {f"quiescectl-{name.replace(' ', '-')}.1" for name in [*COMMANDS, *GROUPS]} | {"quiescectl.1", "quiesced.8", "quiesced.yaml.5", "quiesced-writer.7"}
    assert {page.name for page in PAGES} == expected
    words = re.findall(r'^WORDS\("([^"]+)"', (SOURCE / "daemon" / "cli" / "manual.def").read_text(), re.M)
    assert sorted(words) == sorted(COMMANDS)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_is_well_made(page):
    assert read(page)[1] == ""
    done = subprocess.run(["mandoc", "-T", "lint", "-W", "warning", page], capture_output=True, text=True)
    complaints = [line for line in done.stdout.splitlines() if "missing date" not in line]  # builds are the same on any day
    assert complaints == []


def whole(text):
    """Without the ends of lines, and the hyphens that are only there."""
    return re.sub(r"\s+", " ", re.sub(r"-\n\s*", "-", re.sub("\u2010\n\\s*", "", text)))


def see_also(page):
    """What the end of a page names, as page names."""
    text = read(page)[0].split("SEE ALSO")[1]
    return {f"{name}.{section}" for name, section in re.findall(r"([a-z.-]+)\((\d)\)", text)}


def test_a_kind_of_commands_has_a_page_of_all_of_them():
    assert {"job", "session", "token", "cert", "repository", "hold", "backup"} == set(GROUPS)
    for group in GROUPS:
        page = MANUAL / "man" / f"quiescectl-{group}.1"
        text = whole(read(page)[0])
        rows = [command for command in DOCUMENT["commands"] if command["group"] == group and "name" in command]
        for row in rows:
            assert row["command"] in text and re.sub(r"\s+", " ", row["summary"].split(";")[0]) in text, (group, row)
        assert see_also(page) >= {"quiescectl.1"} | {f"quiescectl-{row['command'].replace(' ', '-')}.1" for row in rows}


def test_every_page_leads_on_to_pages_that_are_there():
    there = {page.name for page in PAGES}
    for page in PAGES:
        named = see_also(page)
        assert named and named <= there and page.name not in named, (page.name, named - there)
    for command in DOCUMENT["commands"]:
        named = see_also(MANUAL / "man" / f"quiescectl-{command['command'].replace(' ', '-')}.1")
        assert "quiescectl.1" in named and len(named) > 2, command["command"]
        assert "name" not in command or f"quiescectl-{command['group']}.1" in named, command["command"]
    overview = read(MANUAL / "man" / "quiescectl.1")[0]
    assert see_also(MANUAL / "man" / "quiescectl.1") >= {f"quiescectl-{command['group']}.1" for command in DOCUMENT["commands"]}
    flat = whole(overview)
    assert all(command["command"] in flat for command in DOCUMENT["commands"])


def test_the_big_pages_say_what_they_are_for():
    server = read(MANUAL / "man" / "quiesced.8")[0]
    usage = subprocess.run([BUILD / "quiesced", "--help"], capture_output=True, text=True, check=True).stdout
    flat = re.sub(r"\s+", "", server)
    for line in re.findall(r"quiesced ([a-z-]+ .*)", usage):
        assert re.sub(r"\s+", "", line) in flat, line
    configuration = re.sub(r"\s+", "", read(MANUAL / "man" / "quiesced.yaml.5")[0])
    assert "limits.freeze_seconds" in configuration and "password_file" in configuration
    writer = read(MANUAL / "man" / "quiesced-writer.7")[0]
    assert "prepare_snapshot" in writer and "deadline_ms" in writer
    client = read(MANUAL / "man" / "quiescectl.1")[0]
    assert all(f"--{option['name']}" in client for option in DOCUMENT["options"]) and "QUIESCED_URL" in client and "EXIT STATUS" in client


# --- completion ---

def bash(*words):
    script = f". {MANUAL}/quiescectl.bash\nCOMP_WORDS=({' '.join(repr(word) for word in words)}) COMP_CWORD={len(words) - 1}\n_quiescectl; printf '%s\\n' \"${{COMPREPLY[@]}}\""
    done = subprocess.run(["bash", "-eu", "-c", script], capture_output=True, text=True, check=True)
    assert not done.stderr
    return done.stdout.split()


def test_bash_completes_every_command_and_option():
    assert set(bash("quiescectl", "")) == {command["group"] for command in DOCUMENT["commands"]}
    common = {f"--{option['name']}" for option in DOCUMENT["options"]}
    for command in DOCUMENT["commands"]:
        words = command["command"].split()
        if len(words) == 2:
            assert words[1] in bash("quiescectl", *words), command
        assert set(bash("quiescectl", *words, "--")) >= common | {f"--{option['name']}" for option in command["options"]}, command
    assert "--repository" in bash("quiescectl", "backup", "--path", "/srv", "--re") and bash("quiescectl", "job", "list", "") == []
    assert "/etc/passwd" in bash("quiescectl", "--ca", "/etc/pass")


def zsh(cases):
    """What zsh offers for the last word of each case: names alone, from one shell. _describe is zsh's own way to show a list; here it prints it."""
    calls = "".join(f"print -- '== {number}'; words=({' '.join(map(repr, case))}); CURRENT={len(case)}; PREFIX={case[-1]!r}; _quiescectl\n" for number, case in enumerate(cases))
    script = f"""autoload -U +X compinit && compinit -u -D; . {MANUAL}/_quiescectl; [[ $_comps[quiescectl] == _quiescectl ]] || exit 3
_describe() {{ print -rl -- ${{(P)@[-1]}} }}; _files() {{ print FILES }}; _default() {{ print DEFAULT }}
{calls}"""
    done = subprocess.run(["zsh", "-f", "-c", script], capture_output=True, text=True, env={**ENVIRONMENT, "PATH": f"{BUILD}:{os.environ['PATH']}"})
    assert done.returncode == 0 and not done.stderr, done
    return [{row.partition(":")[0] for row in part.splitlines()[1:]} for part in done.stdout.split("== ")[1:]]


def test_zsh_completes_every_command_and_option():
    groups = {command["group"] for command in DOCUMENT["commands"]}
    names = {group: {command["command"].split()[1] for command in DOCUMENT["commands"] if command["group"] == group and " " in command["command"]} for group in groups}
    common = {f"--{option['name']}" for option in DOCUMENT["options"]}
    wanted = [(("quiescectl", ""), groups), (("quiescectl", "--ca", ""), {"FILES"})]
    asked = {"restore": set(), "verify": set(), "completion": {"bash", "zsh", "fish"}}  # ids, of a daemon that is not there; tests/flow/test_quiescectl_completion.py has one
    wanted += [(("quiescectl", "--url", "https://127.0.0.1:1", group, ""), names[group] or asked.get(group, {"DEFAULT"})) for group in sorted(groups)]
    wanted += [(("quiescectl", *command["command"].split(), "--"), common | {f"--{option['name']}" for option in command["options"]}) for command in DOCUMENT["commands"]]
    offered = zsh([words for words, _ in wanted])
    assert len(offered) == len(wanted)
    for (words, expected), found in zip(wanted, offered):
        assert found == expected or (words[-1] == "--" and found >= expected), words


def test_fish_completes_every_command(tmp_path):
    home = {**ENVIRONMENT, "HOME": str(tmp_path)}  # where it keeps what it makes of itself

    def fish(line):
        done = subprocess.run(["fish", "--no-config", "-c", f"source {MANUAL}/quiescectl.fish; complete -C '{line}'"], capture_output=True, text=True, env=home, check=True)
        assert not done.stderr, done.stderr
        return {row.split("\t")[0] for row in done.stdout.splitlines()}
    assert fish("quiescectl ") >= {command["group"] for command in DOCUMENT["commands"]}
    for group in {command["group"] for command in DOCUMENT["commands"] if " " in command["command"]}:
        assert fish(f"quiescectl {group} ") >= {command["command"].split()[1] for command in DOCUMENT["commands"] if command["group"] == group and " " in command["command"]}
    for command in (command for command in DOCUMENT["commands"] if command["options"]):
        assert fish(f"quiescectl {command['command']} --") >= {f"--{option['name']}" for option in command["options"]}, command
