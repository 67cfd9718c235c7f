"""The manual's pages: the index (docs/manual.yaml), Markdown, its code blocks, and the two that are made from the program's own tables."""
import dataclasses
import json
import pathlib
import re
import subprocess

import yaml

SOURCE = pathlib.Path(__file__).resolve().parents[2]
DOCS = SOURCE / "docs"
NOT_RUN = re.compile(r"^( *)<!-- not run: (.+?) -->$")
RUN_BY = re.compile(r"^<!-- run by: (\S+) -->$", re.M)  # of a whole page
BLOCK_RUN_BY = re.compile(r"^ *<!-- block run by: (\S+) -->$")  # of the one block that follows
FENCE = re.compile(r"^( *)```(\w*)\s*$")


@dataclasses.dataclass
class Block:
    page: str
    line: int       # of its first line of content
    language: str   # "" when it names none
    text: str
    not_run: str    # why, or ""
    run_by: str     # the test beyond the manual's own that runs it, or ""


@dataclasses.dataclass
class Page:
    name: str       # "writers/sqlite.md"; a generated one: "errors.md"
    part: str
    markdown: str

    @property
    def html(self):
        return self.name.removesuffix(".md") + ".html"

    @property
    def title(self):
        return re.search(r"^# (.+)$", self.markdown, re.M).group(1).replace("`", "")


def blocks(name, markdown):
    """Fenced code, in order, without the indentation of a list that it stands in."""
    found, lines, at, reason, test = [], markdown.split("\n"), 0, "", ""
    while at < len(lines):
        marker, elsewhere, fence = NOT_RUN.match(lines[at]), BLOCK_RUN_BY.match(lines[at]), FENCE.match(lines[at])
        if fence:
            end = at + 1
            while end < len(lines) and lines[end] != fence[1] + "```":
                end += 1
            if end == len(lines):
                raise ValueError(f"{name}:{at + 1}: this block does not end")
            text = "\n".join(line.removeprefix(fence[1]) for line in lines[at + 1:end]) + "\n"
            found.append(Block(name, at + 2, fence[2], text, reason, test))
            at, reason, test = end, "", ""
        elif marker:
            reason = marker[2]
        elif elsewhere:
            test = elsewhere[1]
        elif (reason or test) and lines[at].strip():
            raise ValueError(f"{name}:{at}: a marker stands right before the block that it is about")
        at += 1
    return found


def settled(markdown):
    """lowdown takes `[a] (b)` for a link, which it is not; code stays as it is."""
    fenced, lines = False, []
    for line in markdown.split("\n"):
        fenced ^= bool(FENCE.match(line))
        pieces = line.split("`")
        lines.append(line if fenced else "`".join(piece if number % 2 else piece.replace("] (", "] \\(") for number, piece in enumerate(pieces)))
    return "\n".join(lines)


def lowdown(markdown, *options):
    """Typographic quotes and dashes would change what is to be typed."""
    done = subprocess.run(["lowdown", "--out-no-smarty", "--parse-no-metadata", "--parse-no-intraemph", *options], input=settled(markdown).encode(), capture_output=True, check=True)
    return done.stdout.decode()


# --- from the program's own tables ---

def codes():
    """Rows of hresult.def: name, value, status, meaning, cause, cure."""
    text = (SOURCE / "daemon" / "base" / "hresult.def").read_text()
    string = r'"((?:[^"\\]|\\.)*)"'
    row = re.compile(rf"^HRESULT_ROW\((\w+), (0x[0-9A-F]{{8}})u, (\d+), {string},\s*{string},\s*{string}\)", re.M)
    found = row.findall(text)
    if len(found) != len(re.findall(r"^HRESULT_ROW\(", text, re.M)):
        raise ValueError("hresult.def has rows that are not understood")
    return found


def errors_page():
    parts = ["# Every error code, its cause and its cure",
             "A call that fails answers `application/problem+json`; its `hresult` is one of these names, `code` the value, and `type` leads to the same words on the daemon itself "
             "(`/problems/NAME`). A job that failed has the name in its `hresult`. Which status a call answers is said here; a job's failure is read with status 200.",
             "\n".join(["| code | meaning |", "|---|---|", *(f"| [{name}](#{name.lower()}) | {meaning} |" for name, _, _, meaning, _, _ in codes())])]
    for name, value, status, meaning, cause, cure in codes():
        parts.append(f"## {name}\n\n{meaning} `{value}`, HTTP status {status}.\n\n**Cause.** {plain(cause)}\n\n**Cure.** {plain(cure)}")
    return "\n\n".join(parts) + "\n"


def plain(text):
    """Braces and stars of paths are no markup."""
    return re.sub(r"([*_<>])", r"\\\1", text)


def commands_page(document):
    parts = ["# Commands of quiescectl",
             "As `quiescectl COMMAND --help` tells them; each has a man page, `man quiescectl-COMMAND`. What holds for all of them is in [quiescectl](quiescectl.md)."]
    for command in document["commands"]:
        parts.append(f"## {command['command']}\n\n`quiescectl {command['command']}{' ' + command['arguments'] if command['arguments'] else ''}`\n\n"
                     f"{command['summary'][0].upper()}{command['summary'][1:]}.\n\n{command['text']}")
        if command["options"]:
            parts.append("\n".join(["| option | |", "|---|---|", *(f"| `{spelled(option)}` | {option['meaning'].replace('|', ' or ')} |" for option in command["options"])]))
        parts.append(f"Example: `{command['example']}`")
    parts.append("## Options of every command\n\n" + "\n".join(["| option | |", "|---|---|", *(f"| `{spelled(option)}` | {option['meaning']} |" for option in document["options"])]))
    parts.append("## Exit codes\n\n" + "\n".join(["| exit | |", "|---|---|", *(f"| {row['code']} | {row['meaning']} |" for row in document["exits"])]))
    return "\n\n".join(parts) + "\n"


def spelled(option):
    short = f"-{option['letter']}, " if option.get("letter") else ""
    return f"{short}--{option['name']}" + (f" {option['value'].replace('|', '/')}" if option.get("value") else "")


# --- the index ---

def made_pages(commands=None):
    """Pages that the program's tables are the source of, by name: docs/ has errors.md as it is made (build.py --docs), and of commands.md what the tree's readers are told instead."""
    return {"errors.md": errors_page(), "commands.md": commands_page(json.loads(commands)) if commands else None}


def load(commands=None):
    """All pages in order. commands: the document of `quiescectl --help --json`; without it the pages made from it are left out."""
    index, found, made = yaml.safe_load((DOCS / "manual.yaml").read_text()), [], made_pages(commands)
    for part in index["parts"]:
        for name in part["pages"]:
            markdown = made[name] if name in made else (DOCS / name).read_text()
            if markdown is not None:
                found.append(Page(name, part["title"], markdown))
    return index, found
