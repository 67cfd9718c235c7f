import os
import sys

import pytest

sys.path.insert(0, os.path.dirname(__file__))
import loop_fs  # noqa: E402


@pytest.fixture
def make_fs():
    reason = loop_fs.unavailable()
    if reason:
        pytest.skip(reason)
    made = []

    def make(kind="ext4", **options):
        made.append(loop_fs.LoopFs(kind, **options))
        return made[-1]

    yield make
    for one in reversed(made):
        one.close()
