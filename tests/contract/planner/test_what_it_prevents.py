"""Each refusal of the planner (docs/providers/planner.md), and the hang or the lie that it prevents, by hand and without the daemon.

Every freeze is held by a process of its own that thaws after 30 seconds at the latest (hold.py)."""
import errno
import os
import shutil
import sqlite3
import subprocess
import tarfile
import time

from hold import blocked, frozen, killed_in_vain, python
from loop_fs import freeze, run, thaw

CLONE = """
import fcntl, os, sys
fcntl.ioctl(int(sys.argv[2]), 0x40049409, os.open(sys.argv[1], os.O_RDONLY))
"""
FREEZE = """
import fcntl, os, sys
fcntl.ioctl(os.open(sys.argv[1], os.O_RDONLY), 0xC0045877, 0)
"""


# --- fifreeze-with-btrfs-or-reflink ---

def test_a_btrfs_snapshot_of_a_frozen_file_system_hangs_and_leaves_an_orphan(loops):
    place = loops("btrfs").path
    run("btrfs", "subvolume", "create", place / "data")
    snapshot = place / "snapshot"
    with frozen(place):
        child = subprocess.Popen(["btrfs", "subvolume", "snapshot", "-r", place / "data", snapshot], stdout=subprocess.DEVNULL)
        assert blocked(child)
        assert killed_in_vain(child)
        assert not snapshot.exists()
    child.wait()
    assert child.returncode == -9
    assert snapshot.is_dir()  # nobody waits for it any more


def test_a_reflink_on_a_frozen_file_system_hangs(loops):
    place = loops("xfs").path
    (place / "from").write_bytes(b"x" * 4096)
    (place / "to").touch()
    os.sync()
    target = os.open(place / "to", os.O_WRONLY)  # opening it for writing would block already
    with frozen(place):
        child = subprocess.Popen(["python3", "-c", CLONE, place / "from", str(target)], pass_fds=[target])
        assert blocked(child)
    os.close(target)
    assert child.wait() == 0


def test_a_snapshot_in_an_image_on_a_frozen_file_system_hangs(loops):
    outer = loops("ext4", size=400)
    inner = loops("btrfs", home=outer.path)
    run("btrfs", "subvolume", "create", inner.path / "data")
    os.sync()
    with frozen(outer.path):
        child = subprocess.Popen(["btrfs", "subvolume", "snapshot", "-r", inner.path / "data", inner.path / "snapshot"],
                                 stdout=subprocess.DEVNULL)
        assert blocked(child)
    assert child.wait() == 0


# --- copy-onto-frozen ---

def test_a_copy_onto_a_frozen_file_system_hangs(loops):
    place = loops().path
    with frozen(place):
        child = subprocess.Popen(["cp", "/etc/passwd", place / "copy"])
        assert blocked(child)
        assert killed_in_vain(child)
    child.wait()


# --- the order of stacked file systems (not a refusal: the planner orders) ---

def test_freezing_what_an_image_lies_on_before_the_image_hangs(loops):
    outer = loops("ext4", size=400)
    inner = loops("ext4", home=outer.path)
    (inner.path / "dirty").write_bytes(os.urandom(8 << 20))  # nothing has written it to the image yet
    with frozen(outer.path):
        child = python(FREEZE, inner.path)
        assert blocked(child)
    assert child.wait() == 0
    assert thaw(inner.path) == 0
    with frozen(inner.path, outer.path):  # leaf before outer, thawed in reverse
        pass


# --- one superblock twice, and a foreign freeze (deduplicated; EBUSY at the freeze) ---

def test_a_superblock_freezes_once_and_thaws_for_everybody(loops):
    place = loops()
    bind = place.home / "bind"
    bind.mkdir()
    run("mount", "--bind", place.path, bind)
    try:
        assert freeze(place.path) == 0
        assert freeze(bind) == errno.EBUSY  # the second of a set that names both; or the one that came after a stranger
        assert thaw(bind) == 0  # and who "thaws his own" thaws the other's
        assert thaw(place.path) == errno.EINVAL
    finally:
        thaw(place.path)
        run("umount", bind)
        bind.rmdir()


# --- unsupported-file-system ---

def test_what_has_no_device_cannot_be_frozen(loops):
    place = loops().path
    for name in ("tmpfs", "lower", "upper", "work", "merged"):
        (place / name).mkdir()
    run("mount", "-t", "tmpfs", "none", place / "tmpfs")
    run("mount", "-t", "overlay", "none", place / "merged", "-o", f"lowerdir={place}/lower,upperdir={place}/upper,workdir={place}/work")
    try:
        assert [freeze(place / "tmpfs"), freeze(place / "merged"), freeze("/proc")] == [errno.EOPNOTSUPP] * 3
    finally:
        run("umount", place / "tmpfs")
        run("umount", place / "merged")


def test_a_view_of_the_kernel_says_that_it_is_empty():
    assert os.stat("/proc/self/status").st_size == 0 and open("/proc/self/status").read()


# --- nested-volume-missing ---

def test_a_nested_subvolume_and_a_nested_mount_are_empty_in_the_snapshot(loops):
    place, other = loops("btrfs").path, loops("ext4")
    run("btrfs", "subvolume", "create", place / "data")
    run("btrfs", "subvolume", "create", place / "data" / "nested")
    (place / "data" / "mounted").mkdir()
    run("mount", "--bind", other.path, place / "data" / "mounted")
    try:
        (place / "data" / "nested" / "file").write_text("needed")
        (place / "data" / "mounted" / "file").write_text("needed")
        run("btrfs", "subvolume", "snapshot", "-r", place / "data", place / "snapshot")
        assert os.listdir(place / "snapshot" / "nested") == os.listdir(place / "snapshot" / "mounted") == []
    finally:
        run("umount", place / "data" / "mounted")


# --- same-superblock-twice ---

def test_one_tree_captured_by_two_providers_has_two_truths(loops):
    place = loops("btrfs").path
    run("btrfs", "subvolume", "create", place / "data")
    (place / "data" / "inner").mkdir()
    (place / "data" / "inner" / "state").write_text("1")
    run("btrfs", "subvolume", "snapshot", "-r", place / "data", place / "snapshot")
    (place / "data" / "inner" / "state").write_text("2")  # a writer that does not hold still between the two
    shutil.copytree(place / "data" / "inner", place / "copy")
    assert (place / "snapshot" / "inner" / "state").read_text() != (place / "copy" / "state").read_text()


# --- split-database ---

WRITE = """
import os, select, sys
log, data = (os.open(path, os.O_WRONLY | os.O_CREAT | os.O_DSYNC, 0o600) for path in sys.argv[1:])
n = 0
print("begun", flush=True)
while not select.select([0], [], [], 0)[0]:
    n += 1
    os.pwrite(log, b"%09d" % n, 0)   # first the log,
    os.pwrite(data, b"%09d" % n, 0)  # then the data: a log record for all that the data has
"""


def number(path):
    return int(path.read_text() or "0") if path.exists() else 0


def test_data_and_log_at_two_instants_do_not_belong_together_and_frozen_together_they_do(loops):
    one, two = loops().path, loops().path
    log, data = one / "log", two / "data"
    writer = subprocess.Popen(["python3", "-c", WRITE, log, data], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert writer.stdout.readline() == "begun\n"
        while number(data) < 1:
            time.sleep(0.01)
        first = number(log)  # the log's snapshot
        while number(data) <= first:
            time.sleep(0.01)
        assert number(data) > first  # the data's: it has what no log record explains
        with frozen(one, two):
            assert number(data) <= number(log) <= number(data) + 1
    finally:
        writer.communicate("\n")


# --- repository-beneath-source ---

def test_a_backup_beneath_its_source_carries_the_backups(tmp_path):
    (tmp_path / "source" / "repository").mkdir(parents=True)
    (tmp_path / "source" / "file").write_bytes(os.urandom(100_000))
    sizes = []
    for name in ("1.tar", "2.tar", "3.tar"):
        with tarfile.open(tmp_path / name, "w") as archive:
            archive.add(tmp_path / "source", "source")
        os.rename(tmp_path / name, tmp_path / "source" / "repository" / name)
        sizes.append(os.stat(tmp_path / "source" / "repository" / name).st_size)
    assert sizes[1] > 1.9 * sizes[0] and sizes[2] > 1.9 * sizes[1]  # nothing changed but the backups


# --- own-store-frozen (parked, not refused) ---

COMMIT = """
import sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute("INSERT INTO t VALUES (1)")
"""
READ = """
import sqlite3, sys
print(sqlite3.connect(sys.argv[1]).execute("SELECT count(*) FROM t").fetchone())
"""


def test_a_store_on_a_frozen_file_system_blocks_its_daemon_even_when_it_reads(loops):
    path = loops().path / "store.db"
    store = sqlite3.connect(path, isolation_level=None)
    store.execute("PRAGMA journal_mode=WAL")
    store.execute("CREATE TABLE t(x)")
    store.close()
    with frozen(path.parent):
        writer, reader = python(COMMIT, path), python(READ, path)
        assert blocked(writer) and blocked(reader)
        assert killed_in_vain(writer)
    assert writer.wait() == -9 and reader.wait() == 0
