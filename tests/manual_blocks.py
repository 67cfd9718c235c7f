"""Blocks of the manual that a test beyond tests/manual runs: the page says so right before the block (`block run by: TEST`), the test gets the text that a reader sees."""
import pathlib
import sys

SOURCE = pathlib.Path(__file__).resolve().parents[1]
sys.path.append(str(SOURCE / "scripts" / "manual"))
import pages  # noqa: E402


def of(page, test, replaced=()):
    """Texts of the page's blocks that are the test's (its __file__), in order, with the places of the manual put where the test's are: [(shown, ours)]."""
    name = pathlib.Path(test).resolve().relative_to(SOURCE).as_posix()
    texts = [block.text for block in pages.blocks(page, (pages.DOCS / page).read_text()) if block.run_by == name]
    assert texts, f"{page} has no block that is run by {name}"
    for shown, ours in replaced:
        assert any(shown in text for text in texts), f"{page} does not show {shown}"
        texts = [text.replace(shown, str(ours)) for text in texts]
    return texts
