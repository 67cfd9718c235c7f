#!/usr/bin/python3
"""Writes the result table of docs/reliability.md from what run.py kept (QUIESCED_MATRIX_RESULTS).

usage: report.py RESULTS [DOCUMENT]      replaces what lies between the two marks in the document
A cell that the results do not have keeps what the document says of it: a run of some cells does not take the others away."""
import json
import pathlib
import sys

import cells

RED, NOT_RUN = "**RED**", "not run"
BEGIN, END = "<!-- written by tests/matrix/report.py -->", "<!-- end -->"
WORDS = {"succeeded": "ok", "failed": "fail", "cancelled": "canc", None: "?"}


def outcome(result):
    """What the job said, and the longest time that any heart stood still, in milliseconds."""
    if result["wrong"]:
        return RED
    return f"{WORDS[result['state']]} {max(result['pause_ms'].values())}"


def told(document):
    """{cell: what a table says of it}"""
    said = {}
    for line in document.splitlines():
        role, signal, *row = [word.strip() for word in line.strip("| ").split(" | ")] if line.startswith("| ") else ("", "")
        if role in cells.ROLES:
            said.update({(role, signal, phase): word for phase, word in zip(cells.PHASES, row)})
    return said


def table(results, before):
    words = []
    lines = ["| role | signal | " + " | ".join(cells.PHASES) + " |", "|---|---|" + "---|" * len(cells.PHASES)]
    for role in cells.ROLES:
        for signal in cells.SIGNALS:
            row = []
            for phase in cells.PHASES:
                cell = (role, signal, phase)
                known = before.get(cell, NOT_RUN)
                row.append("-" if cell not in cells.ALL else outcome(results[cell]) if cell in results else NOT_RUN if known == "-" else known)
            words += row
            lines.append(f"| {role} | {signal} | " + " | ".join(row) + " |")
    run = sum(word not in (NOT_RUN, "-") for word in words)
    lines += ["", f"{run} of {len(cells.ALL)} cells were run; {words.count(RED)} are red."]
    return "\n".join(lines)


def main():
    results = {}
    for line in pathlib.Path(sys.argv[1]).read_text().splitlines():
        result = json.loads(line)
        results[tuple(result["cell"])] = result  # the newest of a cell counts
    document = pathlib.Path(sys.argv[2] if len(sys.argv) > 2 else pathlib.Path(__file__).resolve().parents[2] / "docs" / "reliability.md")
    before, rest = document.read_text().split(BEGIN)
    old, after = rest.split(END)
    document.write_text(before + BEGIN + "\n" + table(results, told(old)) + "\n" + END + after)


if __name__ == "__main__":
    main()
