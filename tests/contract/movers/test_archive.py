"""The archive mover through its child process: what goes in comes out, damage is found, nothing escapes, a cancel leaves nothing."""
import hashlib
import json
import os
import pathlib
import subprocess
import uuid

import pytest

BUILD = pathlib.Path(os.environ["QUIESCED_BUILD"])


def mover(request, faults=None, cancel=False):
    environment = dict(os.environ, ASAN_OPTIONS="detect_leaks=1")
    if faults:
        environment["QUIESCED_FAULT_DIR"] = str(faults)
    child = subprocess.Popen([BUILD / "quiesced", "--role=mover"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment)
    child.stdin.write(json.dumps(request).encode() + b"\n")
    child.stdin.flush()
    if cancel:
        child.stdin.close()
    lines = [json.loads(line) for line in child.stdout]
    errors = child.stderr.read().decode()
    child.wait(60)
    if not cancel:
        child.stdin.close()
    assert "Sanitizer" not in errors and "runtime error" not in errors, errors
    assert lines and lines[-1]["type"] == "done", (lines, errors)
    return lines[-1]


@pytest.fixture
def place(tmp_path):
    source = tmp_path / "source"
    (source / "deep" / "er").mkdir(parents=True)
    for i in range(30):
        (source / f"file-{i}").write_bytes(os.urandom(i * 997))
    os.link(source / "file-7", source / "deep" / "twin")
    os.symlink("../file-1", source / "deep" / "link")
    with open(source / "sparse", "wb") as file:
        file.seek(5_000_000)
        file.write(b"end")
    (source / os.fsdecode(b"odd\xff\nname")).write_bytes(b"odd")
    os.mkfifo(source / "fifo")
    os.setxattr(source / "file-3", "user.colour", b"blue")
    os.chmod(source / "file-4", 0o4711)
    if os.geteuid() == 0:
        os.chown(source / "file-5", 1234, 2345)
    os.utime(source / "deep" / "er", ns=(1, 981173106_123456789))
    (tmp_path / "restored").mkdir()
    return tmp_path


def base(place, verb, backup=None, **more):
    return dict({"verb": verb, "mover": "archive", "repository": {"name": "r", "mover": "archive", "path": str(place / "repository")},
                 "backup_id": backup or str(uuid.UUID(int=(0x01970000000070008000 << 48) | 1)), "data_id": "x", "binds": []}, **more)


def run(place, **more):
    item = {"path": str(place / "source"), "source": str(place / "source"), "spec": "*", "recursive": True}
    return mover(base(place, "run", document={"components": []}, items=[item], excludes=[]), **more)


def restore(place, **more):
    return mover(base(place, "restore", target=str(place / "restored"), roots=[str(place / "restored")], **dict({"paths": [], "overwrite": False}, **more)))


def facts(root):
    found = {}
    for path in sorted(root.rglob("*"), key=os.fsencode):
        st = path.lstat()
        content = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() and not path.is_symlink() else None
        xattrs = {k: os.getxattr(path, k, follow_symlinks=False) for k in os.listxattr(path, follow_symlinks=False)}
        found[os.fsencode(path.relative_to(root))] = (st.st_mode, st.st_uid, st.st_gid, st.st_size if content else 0, st.st_mtime_ns, content, xattrs,
                                                      os.readlink(path) if path.is_symlink() else None)
    return found


def test_what_goes_in_comes_out(place):
    done = run(place)
    assert done["result"]["files"] == 33 and done["result"]["bytes"] > 5_000_000, done
    assert restore(place)["result"]["verified"] is True
    copy = pathlib.Path(f"{place}/restored{place}/source")
    assert facts(copy) == facts(place / "source")
    assert (copy / "deep" / "twin").stat().st_ino == (copy / "file-7").stat().st_ino
    assert (copy / "sparse").stat().st_blocks < 1000
    assert mover(base(place, "verify"))["result"]["damaged"] == []


def test_a_flipped_byte_is_found_by_verify_and_refused_by_restore(place):
    run(place)
    data = next((place / "repository").glob("*/data.tar.zst"))
    content = bytearray(data.read_bytes())
    content[len(content) // 2] ^= 0x40
    data.write_bytes(content)
    assert mover(base(place, "verify"))["result"]["damaged"]
    assert restore(place)["error"]["hresult"] == "VSS_E_CORRUPT_XML_DOCUMENT"


def test_a_cancel_leaves_nothing_behind(place):
    assert run(place, cancel=True)["error"]["hresult"] == "VSS_S_ASYNC_CANCELLED"
    assert [p.name for p in (place / "repository").iterdir()] == ["quiesced-repository.json"]


def test_a_full_disk_says_so_and_leaves_nothing_behind(place, tmp_path_factory):
    faults = tmp_path_factory.mktemp("faults")
    (faults / "mover.archive.write").write_text("")
    assert run(place, faults=faults)["error"]["hresult"] == "VSS_E_INSUFFICIENT_STORAGE"
    assert [p.name for p in (place / "repository").iterdir()] == ["quiesced-repository.json"]


def test_existing_files_are_kept_unless_overwrite(place):
    run(place)
    assert "result" in restore(place)
    assert restore(place)["error"]["hresult"] == "VSS_E_OBJECT_ALREADY_EXISTS"
    assert restore(place, overwrite=True)["result"]["verified"] is True


def test_a_symbolic_link_in_the_target_does_not_lead_out_of_it(place):
    run(place)
    outside = place / "outside"
    outside.mkdir()
    first = str(place).split("/")[1]
    os.symlink(outside, place / "restored" / first)
    assert "error" in restore(place)
    assert list(outside.iterdir()) == []


def test_chosen_paths_alone_come_back(place):
    run(place)
    restore(place, paths=[str(place / "source" / "deep")])
    copy = pathlib.Path(f"{place}/restored{place}/source")
    assert (copy / "deep" / "er").is_dir() and not (copy / "file-1").exists()


def test_list_and_remove(place):
    run(place)
    items = mover(base(place, "list"))["result"]["items"]
    assert len(items) == 1 and items[0]["files"] == 33 and items[0]["document"] == {"components": []}
    mover(base(place, "remove"))
    assert mover(base(place, "list"))["result"]["items"] == []
    assert "result" in mover(base(place, "remove")), "removing what is gone is success"


def test_a_target_outside_the_roots_is_refused(place):
    run(place)
    done = mover(base(place, "restore", target="/etc", roots=[str(place)], paths=[], overwrite=False))
    assert done["error"]["hresult"] == "E_INVALIDARG" and done["error"]["pointer"] == "/target"
