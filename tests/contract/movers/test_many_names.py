"""More single files than a command line holds names."""
import os

import pytest

from test_movers import facts

# of 200 bytes: more than are told to restic one by one; half as much again as ARG_MAX with the usual limit of the stack
@pytest.fixture(params=[1_200, pytest.param(16_000, marks=pytest.mark.full)])
def many(ground, request):
    ground.files = request.param
    folder = ground.source / "many"
    (folder / "er").mkdir(parents=True)
    for i in range(ground.files):
        (folder / f"keep-{i:05}-{'x' * 189}").touch()
    for name in (b"keep-\n", b"keep-\xff\xfe", b"keep- ", "keep-ü\u2028".encode(), b"keep-*?[a]\\", b"keep-\x01", "keep-\x85".encode()):
        (folder / os.fsdecode(name)).write_bytes(name)
    os.link(ground.source / "file-9", folder / "keep-twin")  # its first name is not asked for
    for name in ("drop", "er/keep-deeper", "er/drop"):
        (folder / name).write_text(name)
    ground.folder = folder
    assert "result" in ground.run()
    return ground


@pytest.mark.parametrize("recursive", [False, True])
def test_sets_of_more_files_than_a_command_line_holds(many, recursive):
    done = many.restore(sets=[{"path": str(many.folder), "spec": "keep-*", "recursive": recursive}, {"path": str(many.source / "deep"), "spec": "*", "recursive": True}])
    assert "result" in done, done
    expected = {k: v for k, v in facts(many.folder).items() if b"drop" not in k and (recursive or not k.startswith(b"er"))}
    expected[b"."] = facts(many.copy(many.folder))[b"."]  # a folder that only holds what is asked for
    if recursive:
        expected[b"er"] = facts(many.copy(many.folder))[b"er"]
    assert facts(many.copy(many.folder)) == expected and len(expected) > many.files
    assert facts(many.copy() / "deep") == facts(many.source / "deep")
    assert {p.name for p in many.copy().iterdir()} == {"many", "deep"}
    assert [p.name for p in many.restored.iterdir()] == [many.source.parts[1]]


def test_more_paths_than_a_command_line_holds(many):
    paths = [str(p) for p in sorted(many.folder.iterdir()) if p.name.startswith("keep-0")][3:]
    done = many.restore(paths=paths)
    assert "result" in done, done
    assert {p.name for p in many.copy(many.folder).iterdir()} == {os.path.basename(p) for p in paths}
    assert {p.name for p in many.copy().iterdir()} == {"many"}
