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


class Runner:
    """A rig that dies fails the cell it died in, with its words; the next cell gets a rig of its own."""

    def __init__(self, words):
        self.words, self.process = words, None

    def play(self, cell):
        if self.process is None:
            self.begin()
        try:
            self.process.stdin.write(json.dumps(cell) + "\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            self.process.wait(120)
            self.process = None
            pytest.fail("the rig is gone: " + self.words.read_text(errors="replace")[-3000:])
        return json.loads(line)

    def begin(self):
        with open(self.words, "wb") as words:
            self.process = subprocess.Popen(["/usr/bin/python3", HERE / "run.py"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=words, text=True)

    def end(self):
        if self.process is None:
            return
        self.process.stdin.close()
        left = self.process.stdout.read()
        assert self.process.wait(120) == 0 and not left, left + self.words.read_text(errors="replace")[-3000:]


@pytest.fixture(scope="module")
def runner(tmp_path_factory):
    if os.geteuid() != 0:
        pytest.skip("loop-mounted file systems need root")
    runner = Runner(tmp_path_factory.mktemp("rig") / "words")
    yield runner
    runner.end()


@pytest.fixture
def judged(runner):
    """What became of a cell."""
    return runner.play
