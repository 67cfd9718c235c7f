"""The kill matrix from post_snapshot to release, and in a restore."""
import pytest

from conftest import parameters


@pytest.mark.parametrize("cell", parameters(("post_snapshot", "copy", "backup_complete", "release", "restore")))
def test_cell(judged, cell):
    result = judged(cell)
    assert not result["wrong"], "\n".join(result["wrong"]) + "\n" + result["log"]
