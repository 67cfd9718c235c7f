"""The table of docs/reliability.md, and which cells ./check takes."""
import json
import pathlib
import subprocess
import sys

import cells

HERE = pathlib.Path(__file__).resolve().parent


def report(tmp_path, text, *results):
    document, kept = tmp_path / "document.md", tmp_path / "results"
    document.write_text(text)
    kept.write_text("".join(json.dumps({"cell": cell, "wrong": wrong, "pause_ms": {"ext4": ms}, "state": state}) + "\n" for cell, wrong, ms, state in results))
    subprocess.run([sys.executable, HERE / "report.py", kept, document], check=True)
    return document.read_text()


def test_a_run_of_some_cells_keeps_the_others(tmp_path):
    empty = "before\n<!-- written by tests/matrix/report.py -->\n<!-- end -->\nafter\n"
    cell, other = ("core", "SIGKILL", "freeze"), ("worker", "SIGSTOP", "pre_restore")
    once = report(tmp_path, empty, (cell, [], 125, "failed"), (other, ["left"], 9, "failed"))
    assert once.startswith("before\n") and once.endswith("<!-- end -->\nafter\n")
    assert "| core | SIGKILL | not run | not run | not run | fail 125 | not run |" in once
    assert "| guardian | SIGKILL | - | - | - | - | - | not run | - |" in once, "it exists nowhere else"
    assert f"2 of {len(cells.ALL)} cells were run; 1 are red." in once and once.count("**RED**") == 1
    twice = report(tmp_path, once, (other, [], 31, "failed"), (("front", "SIGTERM", "copy"), [], 7, "succeeded"))
    assert "fail 125" in twice and "fail 31" in twice and "ok 7" in twice and "RED" not in twice
    assert f"3 of {len(cells.ALL)} cells were run; 0 are red." in twice


def test_check_meets_every_role_and_every_phase():
    shown = [cell for cell in cells.ALL if cells.is_representative(cell)]
    for role, (_, phases) in cells.ROLES.items():
        assert any(cell[0] == role for cell in shown), role
        if any(cells.PHASES[phase][0] == "in_place" for phase in phases):
            assert any(cell[0] == role and cells.PHASES[cell[2]][0] == "in_place" for cell in shown), f"{role}: no restore in place"
    for phase, (kind, *_) in cells.PHASES.items():
        assert len({cell[1] for cell in shown if cell[2] == phase}) >= (3 if kind == "in_place" else 2), phase
