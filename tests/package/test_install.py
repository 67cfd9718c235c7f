"""cmake --install: a tree as it should be, from which the daemon runs wherever it lies."""
import os
import pathlib
import re
import subprocess
import sys

import pytest

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parents[0]), str(HERE.parents[0] / "flow")]
import journey  # noqa: E402
from daemon import BUILD, SOURCE, Daemon  # noqa: E402

PROGRAMS = {"bin/quiescectl", "sbin/quiesced", "libexec/quiesced/quiesced-agent", "libexec/quiesced/quiesced-courier",
            *(f"libexec/quiesced/quiesced-writer-{name}" for name in ("sqlite", "postgresql", "mariadb", "redis")),
            *(f"lib/quiesced/front-doors/{path.name}" for path in (SOURCE / "packaging" / "front-doors").iterdir())}
UNITS = {f"lib/systemd/system/quiesced{name}" for name in
         (".service", ".socket", *(f"-{role}.{kind}" for role in ("front", "core", "agent", "courier") for kind in ("service", "socket")))}


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    place = tmp_path_factory.mktemp("installed")
    for folder in (place, *place.parents):  # the daemon's users pass it
        if folder.stat().st_uid == os.geteuid() and folder != pathlib.Path("/"):
            folder.chmod(folder.stat().st_mode | 0o711)
    done = subprocess.run(["cmake", "--install", BUILD, "--prefix", place], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0, done.stdout
    return place


def test_everything_has_its_place(tree):
    files = {str(path.relative_to(tree)): path for path in tree.rglob("*") if path.is_file()}
    running = {name for name, path in files.items() if os.access(path, os.X_OK)}
    assert running == PROGRAMS
    assert UNITS | {"lib/sysusers.d/quiesced.conf", "lib/tmpfiles.d/quiesced.conf", "share/bash-completion/completions/quiescectl",
                    "share/doc/quiesced/examples/quiesced.yaml", "share/doc/quiesced/install.md"} <= set(files)
    assert not [name for name in files if not name.startswith(("bin/", "sbin/", "libexec/quiesced/", "lib/s", "lib/quiesced/", "lib/tmpfiles.d/", "share/"))]
    for name in UNITS:
        assert "@CMAKE" not in files[name].read_text(), name


def test_completions_are_shell(tree):
    subprocess.run(["bash", "-n", tree / "share" / "bash-completion" / "completions" / "quiescectl"], check=True)


def test_every_role_that_a_unit_names_is_one(tree):
    """A unit's command line must be one that the program knows: a mistyped role would fail on the administrator's machine only."""
    for unit in sorted(UNITS):
        for path, arguments in re.findall(r"^Exec\w+=(\S+/quiesced\S*) ?(.*)$", (tree / unit).read_text(), re.M):
            program = next(tree / name for name in PROGRAMS if path.endswith("/" + name))
            words = arguments.split()
            if words[0] == "serve":
                assert words[1] == "--config"
            elif words[0] == "thaw-all":
                assert "--abandoned" in words, "a second installation on the machine keeps what it holds"
                done = subprocess.run([program, *words, "--records", tree / "no-records"], capture_output=True, text=True, timeout=60)
                assert (done.returncode, done.stdout, done.stderr) == (0, "", ""), (unit, done)
            else:
                done = subprocess.run([program, words[0], "--join", tree / "no.sock"], capture_output=True, text=True, timeout=60)
                assert done.returncode == 1 and "cannot be reached" in done.stderr, (unit, done)


def test_what_has_rights_over_data_has_no_network_code(tree):
    """The linker takes what is used: a room of the agent that pulled one of these in would show here."""
    loaded = subprocess.run(["ldd", tree / "libexec" / "quiesced" / "quiesced-agent"], check=True, capture_output=True, text=True).stdout
    assert "libjansson" in loaded and "libarchive" in loaded
    assert not [line for line in loaded.splitlines() if re.search(r"microhttpd|gnutls|libssl|sqlite|libcurl|libyaml", line)], loaded


def test_the_daemon_runs_from_there(tree, tmp_path):
    place = tmp_path / "place"
    place.mkdir()
    for folder in (place, *place.parents):
        if folder.stat().st_uid == os.geteuid() and folder != pathlib.Path("/"):
            folder.chmod(folder.stat().st_mode | 0o711)
    node = Daemon(place, journey.lay_out(place), binaries=tree / "sbin").start()
    try:
        journey.restore(node, journey.back_up(node, "copy"))
    finally:
        node.stop()
    assert not node.sanitized()
