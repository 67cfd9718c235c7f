"""The kill matrix from identify to thaw: whoever dies, hangs or is told to end, nothing stays frozen and nothing is said that is not so."""
import pytest

from conftest import parameters


@pytest.mark.parametrize("cell", parameters(("identify", "prepare_backup", "prepare_snapshot", "freeze", "create", "hold", "thaw")))
def test_cell(judged, cell):
    result = judged(cell)
    assert not result["wrong"], "\n".join(result["wrong"]) + "\n" + result["log"]
