"""What every mover's test stands on: a tree with everything that a file system can hold, and the mover's child process."""
import json
import os
import pathlib
import shutil
import subprocess
import uuid

import pytest

BUILD = pathlib.Path(os.environ["QUIESCED_BUILD"])
ROOT = os.geteuid() == 0


def pytest_collection_modifyitems(items):
    """The archive meets every test; of the two programs, whose starts cost most, each test meets one by turns, and ./check --full both."""
    of_a_test = {}
    for item in items:
        kind = getattr(item, "callspec", None) and item.callspec.params.get("ground")
        if kind in ("restic", "borg"):
            of_a_test.setdefault((item.fspath, item.originalname), []).append(item)
    for turn, (_, same) in enumerate(sorted(of_a_test.items(), key=lambda one: str(one[0]))):
        for item in same:
            if item.callspec.params["ground"] != ("restic", "borg")[turn % 2]:
                item.add_marker(pytest.mark.full)


class Ground:
    """One repository of one mover, one source tree, one target."""

    def __init__(self, kind, place):
        self.kind, self.place = kind, place
        self.source, self.restored, self.path = place / "source", place / "restored", place / "repository"
        self.password = place / "password"
        self.password.write_text("correct horse")
        self.restored.mkdir()
        self.base = place / "base"
        self.more = {}  # of the repository
        self.backup = str(uuid.uuid4())

    @property
    def repository(self):
        return dict(self.plain_repository, **self.more)

    @property
    def plain_repository(self):
        if self.kind == "archive":
            return {"name": "r", "mover": "archive", "path": str(self.path)}
        if self.kind == "borg":
            return {"name": "r", "mover": "borg", "path": str(self.path), "password_file": str(self.password), "base_dir": str(self.base), "lock_wait_seconds": 20}
        return {"name": "r", "mover": "restic", "url": str(self.path), "password_file": str(self.password), "environment": {}}

    def start(self, verb, faults=None, **more):
        request = dict({"verb": verb, "mover": self.kind, "repository": self.repository, "backup_id": self.backup, "data_id": "", "binds": []}, **more)
        environment = dict(os.environ, ASAN_OPTIONS=f"detect_leaks=1:{os.environ.get('QUIESCED_ASAN', '')}")
        if faults:
            environment["QUIESCED_FAULT_DIR"] = str(faults)
        child = subprocess.Popen([BUILD / "quiesced-agent", "--role=mover"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment)
        child.stdin.write(json.dumps(request).encode() + b"\n")
        child.stdin.flush()
        return child

    def finish(self, child):
        lines = [json.loads(line) for line in child.stdout]
        errors = child.stderr.read().decode()
        child.wait(60)
        if not child.stdin.closed:
            child.stdin.close()
        assert "Sanitizer" not in errors and "runtime error" not in errors, errors
        assert lines and lines[-1]["type"] == "done", (lines, errors)
        print(lines[-1])
        self.progress = [line for line in lines if line["type"] == "progress"]
        return lines[-1]

    def call(self, verb, **more):
        return self.finish(self.start(verb, **more))

    def item(self, **more):
        return dict({"path": str(self.source), "source": str(self.source), "spec": "*", "recursive": True}, **more)

    def run(self, items=None, **more):
        more = dict({"document": {"components": ["c"]}, "excludes": []}, **more)
        return self.call("run", items=items or [self.item()], **more)

    def restore(self, **more):
        return self.call("restore", **dict({"target": str(self.restored), "roots": [str(self.restored)], "paths": [], "overwrite": False}, **more))

    def verify(self):
        return self.call("verify")["result"]

    def items(self):
        return self.call("list")["result"]["items"]

    def copy(self, path=None):
        return pathlib.Path(f"{self.restored}{path or self.source}")

    def restic(self, *arguments):
        done = subprocess.run(["restic", "--no-cache", "-r", self.path, "-p", self.password, *arguments], capture_output=True, text=True, errors="surrogateescape")
        assert done.returncode == 0, (arguments, done.stdout, done.stderr)
        return done.stdout

    def borg(self, *arguments, **more):
        """By hand, with the program's own means; never waiting for a lock."""
        environment = dict(os.environ, BORG_REPO=str(self.path), BORG_BASE_DIR=str(self.base), BORG_PASSPHRASE=self.password.read_text(), BORG_RELOCATED_REPO_ACCESS_IS_OK="yes",
                           LANG="C.UTF-8")
        done = subprocess.run(["borg", *arguments], capture_output=True, env=environment, **more)
        assert done.returncode == 0, (arguments, done.stdout, done.stderr)
        return done.stdout.decode(errors="surrogateescape")

    def archives(self):
        return self.borg("list", "--short", "--consider-checkpoints").split()

    def has_begun(self):
        """Something of a backup is stored."""
        if self.kind == "archive":
            return bool(list(self.path.glob("*.partial/data.tar.zst")))
        if self.kind == "borg":  # an empty one has a little, too
            return sum(p.stat().st_size for p in self.path.glob("data/*/*")) > 1_000_000
        return bool(list(self.path.glob("data/*/*")))

    def is_clean(self):
        """Nothing of a backup is left, and the repository is sound."""
        if self.kind == "archive":
            return [p.name for p in self.path.iterdir()] == ["quiesced-repository.json"]
        if self.kind == "borg":
            assert not (self.path / "lock.exclusive").exists()
            self.borg("check")
            return self.archives() == []
        assert "no errors were found" in self.restic("check")
        return json.loads(self.restic("snapshots", "--json")) in ([], None) and self.restic("list", "locks").strip() == ""

    def damage(self):
        """Flips bytes in the middle of what is stored."""
        files = [next(self.path.glob("*/data.tar.zst"))] if self.kind == "archive" else self.path.glob("data/*/*")
        for file in sorted(files, key=lambda f: f.stat().st_size)[-1:]:
            content = bytearray(file.read_bytes())
            content[len(content) // 2] ^= 0x40
            os.chmod(file, 0o600)
            file.write_bytes(content)


def fill(source):
    (source / "deep" / "er").mkdir(parents=True)
    (source / "empty").mkdir()
    for i in range(30):
        (source / f"file-{i}").write_bytes(os.urandom(i * 9973))
    os.link(source / "file-7", source / "deep" / "twin")
    os.symlink("../file-1", source / "deep" / "link")
    os.symlink(b"nowhere\xff", bytes(source / "deep" / "dangling"))
    with open(source / "sparse", "wb") as file:
        file.seek(5_000_000)
        file.write(b"middle")
        file.truncate(9_000_000)
    with open(source / "all-hole", "wb") as file:
        file.truncate(3_000_000)
    (source / os.fsdecode(b"odd\xff\nname")).write_bytes(b"odd")
    (source / "$HOME [x]*? \\ #").write_bytes(b"meta")
    (source / "ünï").write_bytes(b"text")
    (source / "\u0001control").mkdir()
    (source / ("long" * 60)).write_bytes(b"long")
    os.mkfifo(source / "fifo")
    os.setxattr(source / "file-3", "user.colour", b"blue\x00\xff")
    os.setxattr(source / "deep", "user.colour", b"red")
    subprocess.run(["setfacl", "-m", "u:12:rw,g:34:r", source / "file-6"], check=True)
    subprocess.run(["setfacl", "-d", "-m", "u:12:rwx", source / "deep"], check=True)
    os.chmod(source / "file-4", 0o4711)
    if ROOT:
        os.chmod(source / "file-8", 0)
        os.chown(source / "file-5", 1234, 2345)
        os.chown(source / "deep" / "link", 1234, 2345, follow_symlinks=False)
        os.mknod(source / "device", 0o20644, os.makedev(1, 3))
    os.utime(source / "file-9", ns=(1, 1_234_567_890_123_456_789))
    os.utime(source / "deep" / "er", ns=(1, 981_173_106_123_456_789))
    os.utime(source / "deep", ns=(1, 981_173_107_000_000_001))


@pytest.fixture(scope="session")
def empty_restic(tmp_path_factory):
    """restic's init takes its time on purpose (scrypt): done once, copied."""
    made = Ground("restic", tmp_path_factory.mktemp("empty"))
    assert "result" in made.call("open", create=True)
    return made.path


@pytest.fixture
def restic_ground(tmp_path, empty_restic):
    made = Ground("restic", tmp_path)
    fill(made.source)
    shutil.copytree(empty_restic, made.path)
    return made


@pytest.fixture(scope="session")
def empty_borg(tmp_path_factory):
    made = Ground("borg", tmp_path_factory.mktemp("empty"))
    assert "result" in made.call("open", create=True)
    return made


@pytest.fixture
def borg_ground(tmp_path, empty_borg):
    made = Ground("borg", tmp_path)
    fill(made.source)
    for part in ("path", "base"):
        shutil.copytree(getattr(empty_borg, part), getattr(made, part))
    return made


@pytest.fixture(params=["archive", "restic", "borg"])
def ground(request, tmp_path):
    if request.param != "archive":
        return request.getfixturevalue(f"{request.param}_ground")
    made = Ground(request.param, tmp_path)
    fill(made.source)
    return made
