"""The guardian alone, with real file systems: what it freezes it thaws, whatever happens to it or around it."""
import json
import os
import pathlib
import signal
import subprocess
import time

import pytest

import loop_fs
from guardian_driver import BUILD, Guardian, receive


def thaw_all(records, *options):
    return subprocess.run([BUILD / "quiesced", "thaw-all", "--records", records, *options], capture_output=True, text=True, timeout=60,
                          env=dict(os.environ, ASAN_OPTIONS="detect_leaks=0"))


@pytest.fixture
def guard(tmp_path):
    made = []

    def make(*filesystems, **options):
        one = Guardian(tmp_path / "records", filesystems, **options)
        made.append(one)
        return one

    make.records = tmp_path / "records"
    yield make
    for one in made:
        if one.process.poll() is None:
            os.kill(one.process.pid, signal.SIGCONT)
        one.end()


def records(guard):
    return sorted(p.name for p in guard.records.iterdir())


def until(condition, seconds=30):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.01)


@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs"])
def test_freezes_and_thaws_on_word(make_fs, guard, kind):
    fs = make_fs(kind)
    one = guard(fs)
    assert one.answer["type"] == "ready"
    assert records(guard) == ["test.set-1.freeze"]
    assert not loop_fs.is_frozen(fs.path)
    judge = loop_fs.Judge(fs.path)
    begin = time.monotonic()
    assert one.freeze()["type"] == "frozen"
    assert loop_fs.is_frozen(fs.path)
    assert (guard.records / "test.set-1.freeze").read_text().startswith("f\n")
    time.sleep(0.3)
    answer = one.thaw()
    (begun, ended), = answer.pop("spans")  # by the clock that time.monotonic reads
    assert answer == {"type": "thawed", "held": [True], "expired": False}
    assert begin * 1e6 <= begun and ended - begun >= 0.3e6 and ended <= time.monotonic() * 1e6
    assert not loop_fs.is_frozen(fs.path)
    gaps = judge.gaps()
    assert any(a >= begin - 0.5 and b - a >= 0.3 for a, b in gaps), gaps
    assert one.process.wait(20) == 0
    assert records(guard) == []
    assert [receive(one.agent)[0] for _ in range(2)][1] == {"type": "thawed"}


def test_the_worker_is_gone(make_fs, guard):
    fs = make_fs()
    one = guard(fs)
    assert one.freeze()["type"] == "frozen"
    one.worker.close()
    assert one.process.wait(20) == 0
    assert not loop_fs.is_frozen(fs.path) and records(guard) == []


def test_the_agent_is_gone(make_fs, guard):
    fs = make_fs("xfs")
    one = guard(fs)
    assert one.freeze()["type"] == "frozen"
    one.agent.close()
    assert one.process.wait(20) == 0
    assert not loop_fs.is_frozen(fs.path) and records(guard) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGALRM, signal.SIGTSTP])
def test_signals_are_ignored(make_fs, guard, number):
    fs = make_fs()
    one = guard(fs)
    assert one.freeze()["type"] == "frozen"
    os.kill(one.process.pid, number)
    time.sleep(0.1)
    assert loop_fs.is_frozen(fs.path)
    assert one.thaw()["held"] == [True]


def test_the_deadline_thaws_and_is_told(make_fs, guard):
    fs = make_fs()
    judge = loop_fs.Judge(fs.path)
    one = guard(fs, freeze_ms=500)
    assert one.freeze()["type"] == "frozen"
    assert receive(one.worker)[0] == {"type": "expired"}
    assert not loop_fs.is_frozen(fs.path)
    answer = one.thaw()
    (begun, ended), = answer.pop("spans")
    assert answer == {"type": "thawed", "held": [True], "expired": True} and ended - begun >= 0.4e6
    assert judge.longest() >= 0.4


def test_a_second_freeze_extends_nothing(make_fs, guard):
    fs = make_fs()
    one = guard(fs, freeze_ms=700)
    assert one.freeze()["type"] == "frozen"
    begin = time.monotonic()
    while time.monotonic() - begin < 0.5:
        one.ask("freeze")
        time.sleep(0.05)
    assert receive(one.worker)[0] == {"type": "expired"}


def test_somebody_elses_freeze_is_left_alone(make_fs, guard):
    ours, theirs = make_fs(), make_fs()
    assert loop_fs.freeze(theirs.path) == 0
    one = guard(ours, theirs)
    answer = one.freeze()
    assert answer["type"] == "freeze_failed" and answer["error"]["hresult"] == "VSS_E_VOLUME_IN_USE"
    assert str(theirs.path) in answer["error"]["detail"]
    assert one.process.wait(20) == 0
    assert not loop_fs.is_frozen(ours.path)
    assert loop_fs.thaw(theirs.path) == 0, "it was still frozen"
    assert records(guard) == []


def test_thawed_behind_our_back_is_no_hold(make_fs, guard):
    ours, other = make_fs(), make_fs()
    one = guard(other, ours)
    assert one.freeze()["type"] == "frozen"
    assert loop_fs.thaw(ours.path) == 0
    answer = one.thaw()
    assert answer["held"] == [True, False]
    assert len(answer["spans"][0]) == 2 and answer["spans"][1] is None, "of what did not hold nothing is told"


@pytest.mark.parametrize("inner,outer", [("ext4", "ext4"), ("xfs", "ext4"), ("ext4", "xfs")])
def test_stacked_file_systems(make_fs, guard, inner, outer):
    below = make_fs(outer, size=700)
    above = make_fs(inner, home=below.path)
    judge = loop_fs.Judge(above.path)
    one = guard(above, below)  # leaf before outer
    assert one.freeze()["type"] == "frozen"
    assert loop_fs.is_frozen(above.path) and loop_fs.is_frozen(below.path)
    answer = one.thaw()
    assert answer["held"] == [True, True]
    (leaf, leaf_end), (outer_one, outer_end) = answer["spans"]
    assert leaf <= outer_one <= outer_end <= leaf_end, "frozen leaf first, thawed in reverse"
    (above.path / "again").write_text("written")
    os.sync()
    judge.gaps()


def test_thaw_all_after_everything_was_killed(make_fs, guard):
    first, second = make_fs(), make_fs("xfs")
    one = guard(first, second)
    assert one.freeze()["type"] == "frozen"
    one.process.kill()
    one.process.wait()
    assert loop_fs.is_frozen(first.path) and loop_fs.is_frozen(second.path)
    done = thaw_all(guard.records)
    assert done.returncode == 0, done
    assert f"{first.path} ({first.devno}, ext4): thawed" in done.stdout and f"{second.path} ({second.devno}, xfs): thawed" in done.stdout
    assert not loop_fs.is_frozen(first.path) and not loop_fs.is_frozen(second.path)
    again = thaw_all(guard.records)
    assert again.returncode == 0 and again.stdout == ""


def test_thaw_all_of_stacked_file_systems(make_fs, guard):
    below = make_fs("ext4", size=700)
    above = make_fs("ext4", home=below.path)
    one = guard(above, below)
    assert one.freeze()["type"] == "frozen"
    one.process.kill()
    one.process.wait()
    assert thaw_all(guard.records).returncode == 0
    assert not loop_fs.is_frozen(above.path) and not loop_fs.is_frozen(below.path)


@pytest.mark.parametrize("kind", ["ext4", "xfs"])
def test_thaw_all_when_the_mount_is_gone(make_fs, guard, kind):
    fs = make_fs(kind)
    one = guard(fs)
    assert one.freeze()["type"] == "frozen"
    one.process.kill()
    one.process.wait()
    loop_fs.run("umount", fs.path)  # succeeds, and leaves the superblock frozen
    done = thaw_all(guard.records)
    assert done.returncode == 0 and "thawed" in done.stdout, done
    fs.mount()
    assert not loop_fs.is_frozen(fs.path)
    assert list(guard.records.iterdir()) == []


def hits(faults):
    return len((faults / "freeze.thaw.hit").read_text().splitlines()) if (faults / "freeze.thaw.hit").exists() else 0


@pytest.fixture
def faults(tmp_path):
    (tmp_path / "faults").mkdir()
    return tmp_path / "faults"


@pytest.mark.parametrize("how", ["word", "deadline", "worker"])
def test_what_cannot_be_thawed_is_tried_until_it_is(make_fs, guard, faults, how):
    fs = make_fs()
    one = guard(fs, faults=faults, freeze_ms=500 if how == "deadline" else 20000)
    assert one.freeze()["type"] == "frozen"
    (faults / "freeze.thaw").touch()
    if how == "word":
        one.ask("thaw")
    elif how == "worker":
        one.worker.close()
    until(lambda: hits(faults) >= 3)
    assert loop_fs.is_frozen(fs.path) and one.process.poll() is None
    assert (guard.records / "test.set-1.freeze").read_text().startswith("f\n"), "whoever finds it can thaw"
    (faults / "freeze.thaw").unlink()
    if how == "word":
        answer = receive(one.worker)[0]
        answer.pop("spans")
        assert answer == {"type": "thawed", "held": [True], "expired": False}
    elif how == "deadline":
        assert receive(one.worker)[0] == {"type": "expired"}
    until(lambda: records(guard) == [])
    assert not loop_fs.is_frozen(fs.path)


def test_thaw_all_goes_on_where_a_guardian_could_not_thaw(make_fs, guard, faults):
    fs = make_fs()
    one = guard(fs, faults=faults)
    assert one.freeze()["type"] == "frozen"
    (faults / "freeze.thaw").touch()
    one.ask("thaw")
    until(lambda: hits(faults) >= 1)
    done = thaw_all(guard.records)
    assert done.returncode == 0 and "thawed" in done.stdout, done
    assert not loop_fs.is_frozen(fs.path) and records(guard) == []


def test_thaw_all_says_what_cannot_be_thawed(make_fs, guard, faults, monkeypatch):
    fs = make_fs()
    one = guard(fs)
    assert one.freeze()["type"] == "frozen"
    one.process.kill()
    one.process.wait()
    (faults / "freeze.thaw").touch()
    monkeypatch.setenv("QUIESCED_FAULT_DIR", str(faults))
    done = thaw_all(guard.records)
    assert done.returncode == 1 and "cannot be thawed" in done.stderr, done
    assert loop_fs.is_frozen(fs.path) and records(guard) == ["test.set-1.freeze"]
    (faults / "freeze.thaw").unlink()
    assert thaw_all(guard.records).returncode == 0
    assert not loop_fs.is_frozen(fs.path) and records(guard) == []


def test_thaw_all_leaves_foreign_freezes_alone(make_fs, guard):
    ours, theirs = make_fs(), make_fs()
    one = guard(ours)
    assert one.freeze()["type"] == "frozen"
    assert loop_fs.freeze(theirs.path) == 0
    one.process.kill()
    one.process.wait()
    assert thaw_all(guard.records).returncode == 0
    assert not loop_fs.is_frozen(ours.path)
    assert loop_fs.thaw(theirs.path) == 0, "it was still frozen"


@pytest.mark.parametrize("stop", [signal.SIGSTOP, None])
def test_thaw_all_takes_a_living_guardian_over(make_fs, guard, stop):
    fs = make_fs()
    one = guard(fs)
    assert one.freeze()["type"] == "frozen"
    if stop:
        os.kill(one.process.pid, stop)
    assert thaw_all(guard.records).returncode == 0
    assert not loop_fs.is_frozen(fs.path)
    assert one.process.wait(20) == -signal.SIGKILL


def test_thaw_all_when_nothing_was_frozen_yet(make_fs, guard):
    fs = make_fs()
    one = guard(fs)
    one.process.kill()
    one.process.wait()
    assert loop_fs.freeze(fs.path) == 0  # by somebody else
    done = thaw_all(guard.records)
    assert done.returncode == 0 and list(guard.records.iterdir()) == []
    assert loop_fs.thaw(fs.path) == 0, "it was still frozen"


def test_thaw_all_of_an_earlier_boot(make_fs, guard):
    fs = make_fs()
    one = guard(fs)
    assert one.freeze()["type"] == "frozen"
    one.process.kill()
    one.process.wait()
    record = guard.records / "test.set-1.freeze"
    boot_id = pathlib.Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    record.write_text(record.read_text().replace(boot_id, "00000000-0000-0000-0000-000000000000"))
    done = thaw_all(guard.records)
    assert done.returncode == 0 and "earlier boot" in done.stdout
    assert list(guard.records.iterdir()) == []
    assert loop_fs.thaw(fs.path) == 0


def test_thaw_all_when_the_device_holds_another_file_system(make_fs, guard):
    fs = make_fs()
    one = guard(fs)
    assert one.freeze()["type"] == "frozen"
    one.process.kill()
    one.process.wait()
    assert loop_fs.thaw(fs.path) == 0
    loop_fs.run("umount", fs.path)
    # Somebody else's mount namespace may hold a copy of the mount for a while.
    until(lambda: subprocess.run(["mkfs.ext4", "-q", "-F", fs.device], capture_output=True).returncode == 0)
    fs.mount()
    assert loop_fs.freeze(fs.path) == 0  # the new one, by somebody else
    done = thaw_all(guard.records)
    assert loop_fs.thaw(fs.path) == 0, "it was still frozen"
    assert list(guard.records.iterdir()) == [] and done.returncode == 0, done


def test_thaw_all_sets_a_damaged_record_aside(guard, tmp_path):
    guard.records.mkdir()
    (guard.records / "x.y.freeze").write_text("ff\n{\"file_systems\":")
    done = thaw_all(guard.records)
    assert done.returncode == 1 and "no record of a freeze" in done.stderr
    assert [p.name for p in guard.records.iterdir()] == ["x.y.freeze.damaged"]
    assert thaw_all(guard.records).returncode == 0


def test_thaw_all_of_one_state_directory(make_fs, guard, tmp_path):
    fs = make_fs()
    one = guard(fs)
    assert one.freeze()["type"] == "frozen"
    one.process.kill()
    one.process.wait()
    for name, installation in (("other", "elsewhere"), ("own", "test")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "installation").write_text(installation)
    assert thaw_all(guard.records, "--state-dir", str(tmp_path / "other")).returncode == 0
    assert loop_fs.is_frozen(fs.path)
    assert thaw_all(guard.records, "--state-dir", str(tmp_path / "own")).returncode == 0
    assert not loop_fs.is_frozen(fs.path)
    assert thaw_all(guard.records, "--state-dir", str(tmp_path)).returncode == 2


@pytest.mark.parametrize("how", ["agent_died", "number_reused"])
def test_thaw_all_of_what_is_abandoned_leaves_a_living_installation_alone(make_fs, guard, how):
    """The agent of a record is whoever started the guardian: this process, which lives."""
    fs = make_fs()
    one = guard(fs)
    assert one.freeze()["type"] == "frozen"
    done = thaw_all(guard.records, "--abandoned")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert loop_fs.is_frozen(fs.path) and one.process.poll() is None, "the guardian stands by its freeze"
    one.process.kill()
    one.process.wait()
    assert thaw_all(guard.records, "--abandoned").returncode == 0
    assert loop_fs.is_frozen(fs.path), "its agent thaws it"
    path = guard.records / "test.set-1.freeze"
    mark, text = path.read_text().split("\n", 1)
    agent = json.loads(text)["agent"]
    assert agent["pid"] == os.getpid()
    gone = {"pid": one.process.pid, "start": agent["start"]} if how == "agent_died" else {"pid": agent["pid"], "start": agent["start"] - 1}
    path.write_text(mark + "\n" + json.dumps(dict(json.loads(text), agent=gone)))
    done = thaw_all(guard.records, "--abandoned")
    assert done.returncode == 0 and "thawed" in done.stdout, done
    assert not loop_fs.is_frozen(fs.path) and list(guard.records.iterdir()) == []


def test_killed_in_the_middle_of_a_freeze(make_fs, guard):
    """SIGKILL while FIFREEZE writes dirty data: it ends frozen, and the record says so."""
    fs = make_fs(size=600)
    one = guard(fs)
    with open(fs.path / "dirty", "wb") as f:
        for _ in range(400):
            f.write(os.urandom(1 << 20))
    one.ask("freeze")
    until(lambda: (guard.records / "test.set-1.freeze").read_text().startswith("f"))
    one.process.kill()
    done = thaw_all(guard.records)
    one.process.wait()
    assert done.returncode == 0, done
    assert not loop_fs.is_frozen(fs.path)
    (fs.path / "after").write_text("written")


def test_frozen_too_late_is_a_flush_timeout(make_fs, guard):
    fs = make_fs(size=600)
    one = guard(fs, freeze_ms=1)
    with open(fs.path / "dirty", "wb") as f:
        for _ in range(200):
            f.write(os.urandom(1 << 20))
    answer = one.freeze()
    assert answer["type"] == "freeze_failed" and answer["error"]["hresult"] == "VSS_E_FLUSH_WRITES_TIMEOUT"
    assert not loop_fs.is_frozen(fs.path)


def test_what_cannot_be_frozen_is_told(guard, tmp_path):
    if loop_fs.unavailable():
        pytest.skip(loop_fs.unavailable())

    class Shm:
        path, kind, device, devno = "/dev/shm", "tmpfs", "tmpfs", "0:0"

    one = guard(Shm())
    answer = one.freeze()
    assert answer["type"] == "freeze_failed" and answer["error"]["hresult"] == "VSS_E_VOLUME_NOT_SUPPORTED"


def test_a_record_never_lies_on_what_it_is_about(make_fs):
    fs = make_fs()
    one = Guardian(fs.path / "records", [fs])
    assert one.answer["type"] == "failed" and "which would be frozen" in one.answer["error"]["detail"]
    one.end()


def test_the_mount_cannot_go_away_beneath_it(make_fs, guard):
    fs = make_fs()
    one = guard(fs)
    assert one.freeze()["type"] == "frozen"
    assert subprocess.run(["umount", fs.path], capture_output=True).returncode != 0
    assert subprocess.run(["umount", "-l", fs.path], capture_output=True).returncode == 0
    assert one.thaw()["held"] == [True]
    fs.mount()
    assert not loop_fs.is_frozen(fs.path)


def test_thaw_all_thaws_what_it_can_while_a_record_waits_for_ever(make_fs, guard):
    """A guardian that hangs in a disk does not die: whoever thaws in its place has to wait for it, and the other records wait for nobody."""
    ours, dead = make_fs(), make_fs()
    one = guard(ours)
    assert one.freeze()["type"] == "frozen"
    one.process.kill()
    one.process.wait()
    assert loop_fs.freeze(dead.path) == 0
    hangs = subprocess.Popen(["/usr/bin/python3", "-c", "import os, sys; os.open(sys.argv[1], os.O_CREAT | os.O_WRONLY)", str(dead.path / "new")])

    def stat():
        return pathlib.Path(f"/proc/{hangs.pid}/stat").read_text().rpartition(")")[2].split()
    waits = None
    try:
        until(lambda: stat()[0] == "D")
        _, text = (guard.records / "test.set-1.freeze").read_text().split("\n", 1)
        entry = {"device": dead.devno, "mount_point": str(dead.path), "source": dead.device, "fs_type": dead.kind}
        stuck = dict(json.loads(text), guardian={"pid": hangs.pid, "start": int(stat()[19])}, file_systems=[entry])
        for number in range(8):  # before ours or behind it, as the directory has them
            (guard.records / f"test.stuck-{number}.freeze").write_text("-\n" + json.dumps(stuck))
        waits = subprocess.Popen([BUILD / "quiesced", "thaw-all", "--records", guard.records], env=dict(os.environ, ASAN_OPTIONS="detect_leaks=0"), stdout=subprocess.DEVNULL)
        until(lambda: not loop_fs.is_frozen(ours.path) and not (guard.records / "test.set-1.freeze").exists())
        assert waits.poll() is None and loop_fs.is_frozen(dead.path)
    finally:
        if loop_fs.is_frozen(dead.path):
            assert loop_fs.thaw(dead.path) == 0
        hangs.kill()
        hangs.wait()
        if waits:
            assert waits.wait(30) == 0


def test_an_agent_that_was_killed_and_waits_for_the_frozen_file_system_has_abandoned_it(make_fs, guard):
    fs = make_fs()
    one = guard(fs)
    assert one.freeze()["type"] == "frozen"
    one.process.kill()
    one.process.wait()
    waits = subprocess.Popen(["/usr/bin/python3", "-c", "import os, sys; os.open(sys.argv[1], os.O_CREAT | os.O_WRONLY)", str(fs.path / "new")])

    def stat():
        return pathlib.Path(f"/proc/{waits.pid}/stat").read_text().rpartition(")")[2].split()
    try:
        until(lambda: stat()[0] == "D")
        path = guard.records / "test.set-1.freeze"
        mark, text = path.read_text().split("\n", 1)
        path.write_text(mark + "\n" + json.dumps(dict(json.loads(text), agent={"pid": waits.pid, "start": int(stat()[19])})))
        assert thaw_all(guard.records, "--abandoned").returncode == 0
        assert loop_fs.is_frozen(fs.path), "it lives, if slowly"
        waits.kill()
        assert stat()[0] == "D", "what waits for a thaw does not even die"
        done = thaw_all(guard.records, "--abandoned")
        assert done.returncode == 0 and "thawed" in done.stdout, done
        assert not loop_fs.is_frozen(fs.path) and list(guard.records.iterdir()) == []
    finally:
        waits.kill()
        if loop_fs.is_frozen(fs.path):
            loop_fs.thaw(fs.path)
        waits.wait()
