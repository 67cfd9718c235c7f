"""Cells of the kill matrix as tests: a rig per file of tests, in a process of its own that is the subreaper of all that it starts."""
import json
import os
import pathlib
import subprocess
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import cells  # noqa: E402

HERE = pathlib.Path(__file__).resolve().parent


def parameters(phases):
    """Every cell of these phases; those that only ./check --full runs are marked so."""
    return [pytest.param(cell, id=cells.name(cell), marks=[] if cells.is_representative(cell) else [pytest.mark.full])
            for cell in cells.ALL if cell[2] in phases]


@pytest.fixture(scope="module")
def runner():
    if os.geteuid() != 0:
        pytest.skip("loop-mounted file systems need root")
    process = subprocess.Popen(["/usr/bin/python3", HERE / "run.py"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    yield process
    process.stdin.close()
    left = process.stdout.read()
    assert process.wait(120) == 0 and not left, left


@pytest.fixture
def judged(runner):
    """What became of a cell."""
    def play(cell):
        runner.stdin.write(json.dumps(cell) + "\n")
        runner.stdin.flush()
        line = runner.stdout.readline()
        assert line, "the rig is gone: see its words above"
        return json.loads(line)
    return play
