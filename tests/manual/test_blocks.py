"""Every code block of the manual: commands are run, page by page and in order, on a machine of the page's own; configuration goes through the daemon's validator. What is
not run says why, before the reader's eyes, and is a skipped test of its own here."""
import json
import os
import pathlib
import re
import subprocess

import pytest
import yaml

import pages
from daemon import BUILD, SOURCE

ALL = pages.load()[1]
BLOCKS = {page.name: pages.blocks(page.name, page.markdown) for page in ALL}
ELSEWHERE = {page.name: found[1] for page in ALL if (found := pages.RUN_BY.search(page.markdown))}  # page: the test that runs all its commands
SHELL, KNOWN = ("sh", "bash", "console"), ("sh", "bash", "console", "yaml", "json", "python", "text")
BASE = {"repositories": [{"name": "main", "mover": "archive", "path": "/srv/backups"}], "restore": {"roots": ["/srv/restored"]}}
SERVERS = {"writers/postgresql.md": ["postgresql"], "writers/mariadb.md": ["mariadb"], "writers/redis.md": ["redis"]}


def named(block):
    """Of a list without blocks pytest asks for the name of nothing."""
    return f"{block.page}:{block.line}" if isinstance(block, pages.Block) else None


def here(block):
    """Is it for this file to run?"""
    return not block.not_run and not block.run_by


def of_language(*languages):
    return [block for name in BLOCKS for block in BLOCKS[name] if block.language in languages and here(block)]


# --- the rules of the game ---

def test_every_block_names_its_language():
    unknown = [f"{named(block)}: {block.language or 'none'}" for name in BLOCKS for block in BLOCKS[name] if block.language not in KNOWN and here(block)]
    assert not unknown


def test_what_is_called_text_is_none_of_the_others():
    command = re.compile(r"^\s*(?:[$#] )?(?:sudo |[A-Z]+=\S+ )*(?:quiescectl|quiesced (?:serve|check-config|thaw-all|writer-check|audit-verify)|curl|systemctl|q|jq|psql|redis-cli|mariadb|apt|apt-get|mkdir|cat|restic) ", re.M)
    hidden = [named(block) for block in of_language("text") if command.search(block.text)]
    assert not hidden


def test_no_code_hides_in_an_indentation():
    """Four blanks make a block, too, and nobody would run it."""
    for page in ALL:
        lines, fenced = page.markdown.split("\n"), False
        for number, line in enumerate(lines):
            fenced ^= bool(re.match(r" *```", line))
            assert fenced or not (line.startswith("    ") and number and not lines[number - 1].strip() and not re.match(r" +([-*]|\d+\.|[A-Za-z`*(])", line)), (page.name, number + 1)


@pytest.mark.parametrize("block", [block for name in BLOCKS for block in BLOCKS[name] if block.not_run], ids=named)
def test_what_is_not_run(block):
    pytest.skip(f"{named(block)}: {block.not_run}")


@pytest.mark.parametrize("block", [block for name in BLOCKS for block in BLOCKS[name] if block.run_by], ids=named)
def test_who_says_that_he_runs_a_block_reads_it(block):
    """By tests/manual_blocks.py, which hands each test its blocks as they stand."""
    assert f'manual_blocks.of("{block.page}", __file__' in (SOURCE / block.run_by).read_text(), named(block)


def test_who_says_that_he_runs_a_page_reads_it():
    for name, test in ELSEWHERE.items():
        text = (SOURCE / test).read_text() + (SOURCE / test).with_name("conftest.py").read_text()
        assert f'"{name}"' in text and "```bash" in text and {block.language for block in BLOCKS[name]} <= {"bash", "text"}, name


# --- commands ---

def before(markdown):
    """What the page says that it begins as: [(page, how many of its blocks)]; all of them without a number."""
    found = re.search(r"^<!-- begins as: (.+) -->$", markdown, re.M)
    return [(name, int(count) if count else None) for name, _, count in (part.strip().partition(":") for part in found[1].split(","))] if found else []


def steps_of(name, count=None):
    shell = [block for block in BLOCKS[name] if block.language in SHELL and here(block)][:count]
    return [step for block in shell for step in ([(named(block), block.text)] if block.language != "console" else [(f"{named(block)}.{n}", command) for n, (command, _) in enumerate(dialogue(block))])]


def dialogue(block):
    """[(command, [expected lines])] of a console block: commands stand behind "# ", go on behind "> "; … stands for anything."""
    found = []
    for line in block.text.split("\n"):
        if line.startswith(("# ", "$ ")):
            found.append([line[2:], []])
        elif line.startswith("> ") and found and not found[-1][1]:
            found[-1][0] += "\n" + line[2:]
        elif line.strip():
            assert found, f"{named(block)}: output before a command"
            found[-1][1].append(line)
    return [tuple(one) for one in found]


def shown(expected, output):
    """Is each line that is shown in the output, in this order? Returns the first that is not."""
    rest = output
    for line in expected:
        if line.strip() == "…":
            continue
        pattern = r"\s+".join(".*".join(re.escape(piece) for piece in word.split("…")) for word in line.split())
        match = re.search(rf"^\s*{pattern}\s*$", rest, re.M)
        if not match:
            return line
        rest = rest[match.end():]
    return None


def in_force(name):
    """The base, and the page's blocks that it says are in force."""
    config = json.loads(json.dumps(BASE))
    for text in re.findall(r"^<!-- in force -->\n```yaml\n(.*?)^```$", next(page.markdown for page in ALL if page.name == name), re.M | re.S):
        for member, value in yaml.safe_load(text).items():
            config[member] = config.get(member, []) + value if isinstance(value, list) else {**config.get(member, {}), **value}
    return config


RUN = [name for name in BLOCKS if name not in ELSEWHERE and any(block.language in SHELL and here(block) for block in BLOCKS[name])]


NO_MACHINE = None if os.geteuid() == 0 and os.path.exists("/dev/loop-control") else "the pages' machine needs root and loop devices"


@pytest.mark.skipif(bool(NO_MACHINE), reason=str(NO_MACHINE))
@pytest.mark.parametrize("name", RUN)
def test_commands(name, tmp_path):
    page = next(page for page in ALL if page.name == name)
    steps = [step for other, count in before(page.markdown) for step in steps_of(other, count)] + steps_of(name)
    job = tmp_path / "job.json"
    config = yaml.safe_dump(in_force(name)) if "<!-- in force -->" in page.markdown else ""
    job.write_text(json.dumps({"build": str(BUILD), "source": str(SOURCE), "config": config, "servers": SERVERS.get(name, []), "steps": steps}))
    ground = ["unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc", "/usr/bin/python3", str(pathlib.Path(__file__).with_name("ground.py")), str(job)]
    done = subprocess.run(ground, capture_output=True, text=True, timeout=200, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr[-4000:]
    result = json.loads(done.stdout)
    assert result["failed"] is None, f"{result['failed']}:\n{result['output'].get(result['failed'], '')[-3000:]}\n--- log\n{result['log']}"
    assert result["done"] == [step for step, _ in steps], "not every block was begun"
    assert not result["sanitizer"]
    for block in (block for block in BLOCKS[name] if block.language == "console" and here(block)):
        for n, (command, expected) in enumerate(dialogue(block)):
            output = result["output"][f"{named(block)}.{n}"]
            assert shown(expected, output) is None, f"{named(block)}: after `{command}` the page shows {shown(expected, output)!r}, but it was\n{output}"


# --- the others ---

@pytest.mark.parametrize("block", of_language("yaml"), ids=named)
def test_configuration(block, tmp_path):
    file, text = tmp_path / "quiesced.yaml", block.text
    for path in re.findall(r"^  (?:certificate|key|client_ca|client_crl): (\S+)", text, re.M):  # these have to be there
        text = text.replace(path, str(tmp_path / pathlib.Path(path).name))
        (tmp_path / pathlib.Path(path).name).touch()
    file.write_text(text)
    done = subprocess.run([BUILD / "quiesced", "check-config", file], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def test_json():
    """There is none that shows a body of the API so far; one that does names its schema, and this has to hold it against that."""
    for block in of_language("json"):
        json.loads(block.text)
        assert not re.search(r'"(?:hresult|_links|session_id)"', block.text), f"{named(block)}: hold it against its schema in openapi.yaml"


@pytest.mark.parametrize("block", of_language("python"), ids=named)
def test_python(block):
    """It defines what it says; tests/flow/test_webhooks.py has the daemon's own deliveries verified by it."""
    namespace = {}
    exec(compile(block.text, named(block), "exec"), namespace)  # pylint: disable=exec-used
    assert any(callable(value) for name, value in namespace.items() if not name.startswith("__"))


# --- what the runner itself must not let pass ---

def test_a_fence_without_end_and_a_marker_without_block_are_faults():
    with pytest.raises(ValueError, match="does not end"):
        pages.blocks("x.md", "```sh\ntrue\n")
    with pytest.raises(ValueError, match="right before"):
        pages.blocks("x.md", "<!-- not run: no reason -->\nwords\n```sh\nfalse\n```\n")
    (block,) = pages.blocks("x.md", "<!-- not run: it needs a tape -->\n```sh\nmt rewind\n```\n")
    assert block.not_run == "it needs a tape"
    with pytest.raises(ValueError, match="right before"):
        pages.blocks("x.md", "<!-- block run by: tests/x.py -->\nwords\n```sh\nfalse\n```\n")
    first, second = pages.blocks("x.md", "* a list\n\n  <!-- block run by: tests/x.py -->\n  ```js\n  1\n  ```\n```sh\ntrue\n```\n")
    assert (first.run_by, first.text, second.run_by) == ("tests/x.py", "1\n", "")


def test_output_is_compared():
    assert shown(["Backup succeeded", "…", "backup 019…"], "Backup  succeeded\nnoise\n  backup 019ab\n") is None
    assert shown(["ok"], "not ok\n") == "ok"
    assert shown(["b", "a"], "a\nb\n") == "a"
    assert dialogue(pages.Block("x.md", 1, "console", "# one \\\n> two\nout\n# three\n", "", "")) == [("one \\\ntwo", ["out"]), ("three", [])]


@pytest.mark.skipif(bool(NO_MACHINE), reason=str(NO_MACHINE))
def test_a_failing_command_is_found_and_names_its_step(tmp_path):
    job = tmp_path / "job.json"
    job.write_text(json.dumps({"build": str(BUILD), "source": str(SOURCE), "config": "", "servers": [], "steps": [["a", "quiescectl whoami"], ["b", "false"], ["c", "echo never"]]}))
    done = subprocess.run(["unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc", "/usr/bin/python3", str(pathlib.Path(__file__).with_name("ground.py")), str(job)],
                          capture_output=True, text=True, timeout=200, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr[-4000:]
    result = json.loads(done.stdout)
    assert (result["failed"], result["done"]) == ("b", ["a"]) and "never" not in str(result["output"])
