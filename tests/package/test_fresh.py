"""The manual's first chapter, word for word, on two fresh Debian 12: one builds the packages, the other installs them, is backed up and restored, and gets rid of them again."""
import os
import pathlib
import re
import tempfile

import pytest

import fresh
from conftest import SOURCE
from nest import Nest

pytestmark = [pytest.mark.full, pytest.mark.timeout(3600)]
# What a machine has before the chapter begins: a server with something in it. Git and jq are the chapter's own.
BEFORE, CHAPTERS = ["postgresql"], ["git", "jq"]
# What dpkg, apt, the boot, logs and whoever runs keep for themselves.
THEIRS = ("/var/lib/apt", "/var/lib/dpkg", "/var/lib/systemd", "/var/cache", "/var/log", "/var/tmp", "/tmp", "/run", "/proc", "/sys", "/dev", "/root", "/var/lib/postgresql",
          "/etc/machine-id", "/etc/passwd-", "/etc/group-", "/etc/shadow-", "/etc/gshadow-", "/etc/subuid-", "/etc/subgid-", "/etc/.pwd.lock")
KEPT = ("/srv/backups", "/srv/restored")  # backups, and what was restored


def everything(nest):
    """path -> what it is, of all that is on the machine."""
    prune = " -o ".join(f"-path {path}" for path in THEIRS)
    lines = nest.run(f"find / -xdev \\( {prune} \\) -prune -o -printf '%p\\t%y %m %u %g\\t' \\( -type f -exec sha256sum -z {{}} \\; -o -type l -printf '%l' -o -true \\) -printf '\\n' 2>/dev/null | tr '\\0' ' '",
                     check=False)[1].splitlines()
    return {line.split("\t")[0]: line for line in lines if line.startswith("/")}


@pytest.fixture(scope="module")
def debian():
    why = fresh.unable()
    if why:
        pytest.skip(f"no fresh Debian on this machine: {why}")
    if os.environ.get("QUIESCED_DEBIAN"):  # where it lies already
        yield os.environ["QUIESCED_DEBIAN"]
        return
    with tempfile.TemporaryDirectory(prefix="quiesced-debian-", dir="/var/tmp") as place:
        fresh.make(f"{place}/base.tar")
        yield f"{place}/base.tar"


def test_built_installed_used_and_purged_on_fresh_machines(debian, tmp_path):
    build, install, *use = re.findall(r"^```bash\n(.*?)^```$", (SOURCE / "docs" / "install.md").read_text(), re.M | re.S)
    packages = fresh.build(debian, SOURCE, tmp_path, build.splitlines())
    assert len(packages) == 6, packages
    nest = Nest(fresh.BOOT, debian, tmp_path, *BEFORE, *CHAPTERS)
    try:
        nest.run(f"apt-get install -y {' '.join(BEFORE)}")
        nest.until("su postgres -c \"psql -qc 'CREATE TABLE kept AS SELECT generate_series(1, 1000) AS n'\"")
        nest.run("apt-get install -y git jq")
        before = everything(nest)
        assert len(before) > 5000
        nest.run("set -euo pipefail\n" + install)
        nest.until("systemctl is-active --quiet quiesced.service && quiescectl call GET /health/ready >/dev/null")
        said = nest.run("cd /; set -euo pipefail\n" + "".join(use))
        assert "not protected" in said.lower(), said
        nest.run("quiescectl doctor")  # green: it ends with 0
        status = nest.run("quiescectl status").lower()
        assert "protected" in status and "not protected" not in status, status
        restored = nest.run("ls -d /srv/restored/var/lib/postgresql/*/main").strip()
        nest.run(f"""cd /; printf 'local all all trust\\n' > /tmp/hba && chmod 644 /tmp/hba
            su postgres -c "$(ls -d /usr/lib/postgresql/*/bin)/pg_ctl -w -t 60 -D {restored} -l /tmp/restored.log -o '-c port=5499 -c listen_addresses= -c unix_socket_directories=/tmp \\
              -c hba_file=/tmp/hba -c config_file=/dev/null' start" """)
        assert nest.run("su postgres -c \"psql -h /tmp -p 5499 -Atc 'SELECT count(*), sum(n) FROM kept'\"").strip() == "1000|500500"
        nest.run(f"cd /; su postgres -c \"$(ls -d /usr/lib/postgresql/*/bin)/pg_ctl -w -D {restored} -m fast stop\"")
        nest.run("apt-get purge -y quiesced quiescectl quiesced-writer-postgresql && apt-get autoremove --purge -y", seconds=600)
        after = everything(nest)
        added = [line for path, line in after.items() if path not in before and not path.startswith(KEPT)]
        altered = [(before[path], after.get(path, "(gone)")) for path in before if after.get(path, "(gone)") != before[path]]
        users = [line for line in nest.run("getent passwd; getent group").splitlines() if "quiesced" in line]
        assert not added and not altered and not users, (added[:40], altered[:40], users)
        assert pathlib.Path(f"/proc/{nest.leader}").exists() and nest.run("systemctl list-units --all --no-legend 'quiesced*'").strip() == ""
    finally:
        nest.end()
