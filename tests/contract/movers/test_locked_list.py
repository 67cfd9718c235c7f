"""A repository that is locked, or goes away, while its backups are listed one by one: none of them is told as damaged, or as one without a seal, for that."""
import shutil

import pytest

import conftest
from conftest import ROOT

LOCKED = {"borg": '{"type":"log_message","levelname":"ERROR","message":"Failed to create/acquire the lock (timeout).","msgid":"LockTimeout"}',
          "restic": "unable to create lock in backend: repository is already locked by PID 1 on otherhost"}
AWAY = {"borg": '{"type":"log_message","levelname":"ERROR","message":"Connection closed by remote host","msgid":"ConnectionClosedWithHint"}',
        "restic": "Fatal: dial tcp 192.0.2.1:8000: connect: connection refused"}


@pytest.mark.skipif(not ROOT, reason="mounts need root")
@pytest.mark.parametrize("words,what", [(LOCKED, {"hresult": "VSS_E_VOLUME_IN_USE"}), (AWAY, {"reason": "repository_unreachable"})], ids=["locked", "away"])
@pytest.mark.parametrize("part", ["jsonl", "seal"])
@pytest.mark.parametrize("kind", ["borg", "restic"])
def test_a_list_fails_rather_than_to_tell_what_it_does_not_know(request, tmp_path, monkeypatch, kind, part, words, what):
    ground = request.getfixturevalue(f"{kind}_ground")
    assert "result" in ground.run() and "result" in ground.call("seal", seal={"complete": True, "document": {"node": "n"}})
    assert [item["seal"]["complete"] for item in ground.items()] == [True]
    program = tmp_path / "real"
    shutil.copy(shutil.which(kind), program)
    fake = tmp_path / "fake"  # the program itself, but for the reading of the record, or of the seal
    fake.write_text(f"#!/bin/sh\ncase \"$*\" in *extract*quiesced-*{part}*|*dump*quiesced-*{part}*) echo '{words[kind]}' >&2; exit 2;; esac\nexec {program} \"$@\"\n")
    fake.chmod(0o755)
    binary = tmp_path / "bin" / "quiesced-agent"
    binary.parent.mkdir()
    binary.write_text(f'#!/bin/sh\nexec unshare -m sh -c \'mount --bind {fake} "$(command -v {kind})" && exec {conftest.BUILD}/quiesced-agent "$@"\' sh "$@"\n')
    binary.chmod(0o755)
    monkeypatch.setattr(conftest, "BUILD", binary.parent)
    error = ground.call("list")["error"]
    assert {member: error.get(member) for member in what} == what, error
