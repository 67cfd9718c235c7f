"""The kill matrix in a restore session: whoever ends in PreRestore, RestoreFiles or PostRestore, the database runs again on whole data."""
import pytest

from conftest import parameters


@pytest.mark.parametrize("cell", parameters(("pre_restore", "restore_files", "post_restore")))
def test_cell(judged, cell):
    result = judged(cell)
    assert not result["wrong"], "\n".join(result["wrong"]) + "\n" + result["log"]
