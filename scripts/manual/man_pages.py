"""Man pages: quiescectl's from its own table of commands, the others from Markdown (docs/manual.yaml names both)."""
import re

import pages

SEE = {"quiesced.8": "quiescectl(1), quiesced.yaml(5), quiesced-writer(7)", "quiesced.yaml.5": "quiesced(8)", "quiesced-writer.7": "quiesced(8), quiesced.yaml(5)"}

# Commands of one kind have a page together; `backup` is a command itself.
GROUPS = {
    "backup": "make a backup, look at one, remove one",
    "cert": "client certificates that were enrolled",
    "hold": "freeze for a snapshot that somebody else takes, and thaw",
    "job": "what the daemon does in the background: watch it, cancel it",
    "repository": "where backups are kept",
    "session": "a backup or a restore, verb by verb",
    "token": "bearer tokens of the API",
}
# What is looked up together, beside the commands of one kind.
RELATED = [
    ("status", "doctor", "events", "errors", "job"), ("backup", "plan", "backups", "restore", "verify", "repositories", "session"), ("job", "events", "errors"), ("events", "errors"),
    ("session", "backup", "job", "writers", "volumes", "snapshots"), ("hold", "snapshots", "volumes", "status"), ("snapshots", "volumes", "providers"), ("repository", "repositories", "movers", "backups"),
    ("writers", "providers", "movers", "doctor"), ("token", "cert", "whoami", "login"), ("whoami", "login", "logout", "curl-config"), ("call", "curl-config", "whoami"), ("completion", "login"),
]


def tidy(roff):
    """lowdown's habits that mandoc -Tlint and older readers stumble over."""
    roff = re.sub(r"^\.(SH|SS)\n(.+)$", lambda match: f'.{match[1]} "{match[2]}"' if '"' not in match[2] else f".{match[1]} {match[2]}", roff, flags=re.M)
    roff = roff.replace(r"\fC", r"\fB")
    roff = re.sub(r"^\.if n \\\n\.sp -1v?\n\.if t \\\n\.sp -0\.25v\n", "", roff, flags=re.M)  # bullets closer than a paragraph
    roff = re.sub(r'^\.[LP]P\n((?:(?!\.)[^\n]*\n)+?)\n*\.IP "" 5n\n', r".TP 6\n\1", roff, flags=re.M)  # a term and what it means
    roff = re.sub(r"^(\.TP 6\n[^\n]*)\n\n", r"\1\n", roff, flags=re.M)
    roff = re.sub(r"^(\.S[HS] .*)\n\.[LP]P$", r"\1", roff, flags=re.M)
    roff = re.sub(r"\n\.[LP]P(?=\n\.(?:SH|SS|TP|IP|LP|PP|TS))", "", roff)
    return roff


def page(name, section, what, markdown, version, see=None):
    roff = pages.lowdown(markdown, "-tman", "--nroff-nolinks")
    title = f'.TH "{name.upper()}" "{section}" "" "quiesced {version}" "quiesced manual"'
    see = see or SEE[f"{name}.{section}"]
    own = "'\\\" t\n.\\\" Made by scripts/manual/build.py; do not edit.\n" + f'{title}\n.SH NAME\n{escape(name)} \\- {escape(what)}\n'
    return own + tidy(roff).rstrip("\n") + "\n.SH SEE ALSO\n" + ",\n".join(bold(one) for one in see.split(", ")) + "\n"


def escape(text):
    return text.replace("\\", "\\e").replace("-", "\\-")


def bold(reference):
    name, _, section = reference.rstrip(")").partition("(")
    return f"\\fB\\%{escape(name)}\\fR({section})"  # never parted at the end of a line: it is looked up


# --- Markdown of the pages ---

def options(rows):
    return "\n\n".join(f"`{pages.spelled(row)}`\n: {row['meaning']}" for row in rows)


def of_command(command):
    name = command["command"]
    parts = [f"# SYNOPSIS\n\n**quiescectl** \\[*OPTIONS*] **{name}**" + (f" {command['arguments'].replace('[', chr(92) + '[').replace('*', chr(92) + '*')}" if command["arguments"] else ""),
             f"# DESCRIPTION\n\n{command['summary'][0].upper()}{command['summary'][1:]}.\n\n{command['text']}"]
    if command["options"]:
        parts.append(f"# OPTIONS\n\n{options(command['options'])}")
    parts += ["Options of every command are in `quiescectl(1)`, and so are the exit codes.", f"# EXAMPLE\n\n```\n{command['example']}\n```"]
    return "\n\n".join(parts) + "\n"


def terms(commands):
    return "\n\n".join(f"`{command['command']}{' ' + command['arguments'] if command['arguments'] else ''}`\n: {command['summary']}" for command in commands)


def members(document, group):
    """Of a group, without the command that has its very name."""
    return [command for command in document["commands"] if command["group"] == group and "name" in command]


def of_group(document, group):
    rows = members(document, group)
    return f"# SYNOPSIS\n\n**quiescectl** \\[*OPTIONS*] **{group}** *COMMAND* ...\n\n# DESCRIPTION\n\nThe commands of `quiescectl` for this: {GROUPS[group]}. Each has a page of its own.\n\n" \
           f"# COMMANDS\n\n{terms(rows)}\n\nOptions of every command are in `quiescectl(1)`, and so are the exit codes.\n"


def page_name(command):
    return "quiescectl-" + command.replace(" ", "-")


def see_of(document, command):
    """Its kind, what else is of that kind, what is looked up together with it; at last the page of everything."""
    group = command.split()[0]
    near = [group] if group != command and group in GROUPS else []
    near += [row["command"] for row in members(document, group) if row["command"] != command] if group in GROUPS else []
    near += [other for row in RELATED if group in row for other in row if other != group]
    return ", ".join([f"{page_name(one)}(1)" for one in dict.fromkeys(near)] + ["quiescectl(1)", "quiesced(8)"])


def see_of_all(document):
    """Of the overview: each page once, the kinds for their commands."""
    firsts = dict.fromkeys(command["group"] for command in document["commands"])
    return ", ".join([f"{page_name(one)}(1)" for one in firsts] + ["quiesced(8)", "quiesced.yaml(5)"])


def of_quiescectl(document):
    """What docs/quiescectl.md says, the commands, the options, the exit codes."""
    text = sections((pages.DOCS / "quiescectl.md").read_text())
    exits = "\n\n".join(f"`{row['code']}`\n: {row['meaning']}" for row in document["exits"])
    return f"# SYNOPSIS\n\n**quiescectl** \\[*OPTIONS*] *COMMAND* ...\n\n# DESCRIPTION\n\n{text}\n# COMMANDS\n\nEach has a page, `quiescectl-backup(1)` and so on, and those of one kind have one together, such as `quiescectl-job(1)`.\n\n{terms(document['commands'])}\n\n# OPTIONS\n\n" \
           f"{options(document['options'])}\n\n# EXIT STATUS\n\n{exits}\n"


def sections(markdown):
    """Of a chapter, without its title and markers, each heading one level up, as man pages have them."""
    lines, fenced = [], False
    for line in markdown.split("\n"):
        fenced ^= bool(pages.FENCE.match(line))
        if not fenced and (line.startswith("# ") or line.startswith("<!--")):
            continue
        if not fenced and line.startswith("#"):
            line = re.sub(r"^##(?!#) (.*)", lambda match: "# " + match[1].upper().replace("`", ""), line) if re.match(r"##(?!#)", line) else line[1:]
        lines.append(line)
    return untabled("\n".join(lines).strip("\n") + "\n")


def untabled(markdown):
    """Each row of a table as a term and what is said of it: a terminal is too narrow for columns of prose."""
    def term(match):
        heads, *rows = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip()[1:-1])] for line in match[0].strip().split("\n") if not re.fullmatch(r"[|\s:-]+", line)]
        said = [(row[0] or "-", "; ".join(f"{head}: {cell}" if head and len(row) > 2 else cell for head, cell in list(zip(heads, row))[1:] if cell)) for row in rows]
        return "\n" + "\n\n".join(f"{first}\n: {rest or '-'}" for first, rest in said) + "\n"

    return re.sub(r"(?:^\|.*\|\n)+", term, markdown, flags=re.M)


def write(out, index, document):
    out.mkdir(parents=True, exist_ok=True)
    version = document["version"]
    (out / "quiescectl.1").write_text(page("quiescectl", 1, "back up, restore and watch through quiesced", of_quiescectl(document), version, see_of_all(document)))
    for command in document["commands"]:
        name = page_name(command["command"])
        text = of_command(command)
        if command["command"] in GROUPS:
            text += f"\n# COMMANDS\n\n{terms(members(document, command['command']))}\n"
        (out / f"{name}.1").write_text(page(name, 1, command["summary"], text, version, see_of(document, command["command"])))
    singles = {command["command"] for command in document["commands"]}
    if {command["group"] for command in document["commands"] if "name" in command} != set(GROUPS):
        raise ValueError("man_pages.py: GROUPS are not the kinds of commands that there are")
    for group in sorted(set(GROUPS) - singles):
        (out / f"{page_name(group)}.1").write_text(page(page_name(group), 1, GROUPS[group], of_group(document, group), version, see_of(document, group)))
    for row in index["man"]:
        name, _, section = row["page"].rpartition(".")
        texts = [(pages.DOCS / source).read_text() for source in row["sources"]]
        heads = ["# DESCRIPTION\n\n" if row.get("description", True) else "", *(f"\n# {re.search('^# (.+)', text)[1].upper()}\n\n" for text in texts[1:])]
        markdown = "".join(head + sections(text) for head, text in zip(heads, texts))
        (out / row["page"]).write_text(page(name, int(section), row["what"], markdown, version))
