"""docs/vss.md: no method of VSS is missing, and every route, code and test that it names is there. The check itself is seen to fail."""
import os
import pathlib
import re
import subprocess

import pytest

SOURCE = pathlib.Path(os.environ.get("QUIESCED_SOURCE", pathlib.Path(__file__).resolve().parents[2]))


def check(*arguments):
    return subprocess.run([SOURCE / "scripts" / "check-vss", *arguments], capture_output=True, text=True)


def test_every_method_has_its_row():
    done = check()
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("old, new, complaint", [
    (r"^\| IVssBackupComponents::BackupComplete .*\n", "", "BackupComplete: no row"),
    (r"^(\| IVssBackupComponents::BackupComplete .*\n)", r"\1\1", "BackupComplete: 2 rows"),
    (r"^\| IVssAsync::Wait ", "| IVssAsync::Linger ", "IVssAsync::Linger: not a method of VSS"),
    (r"/sessions/\{session_id\}/complete`", "/sessions/{session_id}/finish`", "POST /sessions/{session_id}/finish is not in openapi.yaml"),
    (r"test_vss_e_bad_state_from_every_wrong_state", "test_nothing", "tests/flow/test_complete.py::test_nothing is not there"),
    (r"`VSS_E_UNEXPECTED_WRITER_ERROR`", "`VSS_E_NONE`", "VSS_E_NONE is no code of ours"),
    (r"(fast recovery` ?|fast-recovery`.*)`E_NOTIMPL`", r"\1-", "only answers 501"),
    (r"(BackupComplete .*)`tests/\S+`", r"\1-", "BackupComplete: names no test"),
    (r"(GetRootAndLogicalPrefixPaths \| )[^|]*\|[^|]*\|", r"\1not yet: for a test | all |", "GetRootAndLogicalPrefixPaths: names no route"),
])
def test_what_is_off_is_told(tmp_path, old, new, complaint):
    text, n = re.subn(old, new, (SOURCE / "docs" / "vss.md").read_text(), count=1, flags=re.M)
    assert n == 1, "nothing was changed"
    (tmp_path / "vss.md").write_text(text)
    done = check(tmp_path / "vss.md")
    assert done.returncode == 1 and complaint in done.stdout, done.stdout + done.stderr
