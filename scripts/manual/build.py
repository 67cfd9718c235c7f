#!/usr/bin/python3
"""docs/ as the manual of /docs/manual/ and as man pages.

usage: build.py --commands FILE --out FOLDER      FILE: what `quiescectl --help --json` printed; FOLDER/html, FOLDER/man and FOLDER/commands.md are made anew
       build.py --docs                            writes docs/errors.md anew, after a change of daemon/base/hresult.def
"""
import argparse
import json
import pathlib
import shutil
import sys

import site_pages
import man_pages
import pages


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--commands", type=pathlib.Path)
    parser.add_argument("--out", type=pathlib.Path)
    parser.add_argument("--docs", action="store_true")
    arguments = parser.parse_args()
    if arguments.docs:
        (pages.DOCS / "errors.md").write_text(pages.made_pages()["errors.md"])
        return
    if not arguments.commands or not arguments.out:
        parser.error("give --commands and --out, or --docs")
    for kind in ("html", "man"):
        shutil.rmtree(arguments.out / kind, ignore_errors=True)
    commands = arguments.commands.read_text()
    try:
        index, found = pages.load(commands)
        (arguments.out / "commands.md").write_text(pages.made_pages(commands)["commands.md"])
        site_pages.write(arguments.out / "html", index, found)
        man_pages.write(arguments.out / "man", index, json.loads(commands))
    except ValueError as fault:
        sys.exit(f"the manual: {fault}")
    shutil.copy(pages.SOURCE / "docs" / "manual.css", arguments.out / "html")


if __name__ == "__main__":
    main()
