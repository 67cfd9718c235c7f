"""The Debian packages, on a machine that has never seen quiesced: installed, run by systemd as the units say, used, killed role by role, purged."""
import os
import pathlib
import re
import subprocess
import time

import pytest

import manual_blocks
from conftest import SOURCE, build

NAMES = ["quiescectl", "quiesced", "quiesced-doc", "quiesced-writer-mariadb", "quiesced-writer-postgresql", "quiesced-writer-redis"]
ROLES = ["front", "core", "agent"]
# Issue: what systemd-analyze may say at most of each unit's exposure, 0 to 10.
EXPOSURE = {"quiesced-front": 1.5, "quiesced-core": 1.5, "quiesced-courier": 1.5, "quiesced-agent": 6.0, "quiesced": 3.5}
USERS = {"quiesced": "root", "quiesced-front": "quiesced-front", "quiesced-core": "quiesced", "quiesced-agent": "root", "quiesced-courier": "quiesced-courier"}


def contents(package):
    """path -> (mode, owner) of a package."""
    listing = subprocess.run(["dpkg-deb", "--contents", package], check=True, capture_output=True, text=True).stdout
    return {fields[5].removeprefix("."): (fields[0], fields[1]) for fields in (line.split(None, 5) for line in listing.splitlines())}


def by_name(packages):
    return {package.name.split("_")[0]: package for package in packages}


# --- the packages themselves ---


def test_each_package_holds_what_is_its_own(packages):
    found = {name: contents(package) for name, package in by_name(packages).items()}
    assert sorted(found) == NAMES
    for name in ("postgresql", "mariadb", "redis"):
        assert f"/usr/libexec/quiesced/quiesced-writer-{name}" in found[f"quiesced-writer-{name}"]
    for path in ("/usr/sbin/quiesced", "/usr/libexec/quiesced/quiesced-agent", "/usr/libexec/quiesced/quiesced-courier", "/usr/libexec/quiesced/quiesced-writer-sqlite", "/etc/quiesced/quiesced.yaml",
                 "/lib/systemd/system/quiesced.service", "/usr/lib/sysusers.d/quiesced.conf", "/usr/lib/tmpfiles.d/quiesced.conf"):
        assert path in found["quiesced"], path
    for path in ("/usr/bin/quiescectl", "/usr/share/bash-completion/completions/quiescectl", "/usr/share/zsh/vendor-completions/_quiescectl",
                 "/usr/share/fish/vendor_completions.d/quiescectl.fish"):
        assert path in found["quiescectl"], path
    for path in ("/usr/share/doc/quiesced/install.md", "/usr/share/doc/quiesced/openapi.yaml", "/usr/share/doc/quiesced/writers/postgresql.md"):
        assert path in found["quiesced-doc"], path
    for name, paths in found.items():
        for path, (mode, owner) in paths.items():
            assert owner == "root/root" and "s" not in mode and (mode[0] == "l" or mode[8] == "-"), (name, path, mode, owner)
    files = [path for paths in found.values() for path in paths if not path.endswith("/")]
    assert sorted(files) == sorted(set(files)), "each file is of one package"


def test_only_its_own_package_needs_a_databases_library(packages):
    needs = {name: subprocess.run(["dpkg-deb", "--field", package, "Depends"], check=True, capture_output=True, text=True).stdout
             for name, package in by_name(packages).items()}
    for library, owner in {"libpq5": "quiesced-writer-postgresql", "libmariadb3": "quiesced-writer-mariadb", "libhiredis": "quiesced-writer-redis"}.items():
        assert [name for name, text in needs.items() if library in text] == [owner], needs


def test_lintian_finds_nothing(packages):
    done = subprocess.run(["lintian", "--allow-root", "--tag-display-limit", "0", "--display-info", *packages], capture_output=True, text=True)
    assert done.returncode in (0, 2), done.stderr
    assert not done.stdout.strip(), done.stdout


@pytest.mark.full
def test_the_same_tree_gives_the_same_bytes(packages, tmp_path):
    """Another directory, another umask, another time zone and language, no compiler cache."""
    again = build(tmp_path / "again", TMPDIR=str(tmp_path), TZ="Pacific/Kiritimati", LC_ALL="C", CCACHE_DISABLE="1")
    assert [package.name for package in again] == [package.name for package in packages]
    for first, second in zip(packages, again):
        assert first.read_bytes() == second.read_bytes(), f"{first.name}: diffoscope would tell where"


# --- one machine: what follows goes on from what was done before it ---


def blocks():
    """The commands of the manual's first chapter."""
    return re.findall(r"^```bash\n(.*?)^```$", (SOURCE / "docs" / "install.md").read_text(), re.M | re.S)


BUILD = ["apt-get install -y git jq", "apt-get build-dep -y ./packaging", "packaging/build-deb /var/tmp/quiesced-packages"]


def test_what_is_built_with_is_debians():
    """apt finds each in Debian 12, and what the fixture has built with is nothing else: it would install nothing more."""
    for command in BUILD[:2]:
        done = subprocess.run([*command.split(), "--simulate"], cwd=SOURCE, capture_output=True, text=True, stdin=subprocess.DEVNULL, env={**os.environ, "LC_ALL": "C"})
        assert done.returncode == 0 and " 0 newly installed," in done.stdout, done


def pid_of(nest, unit):
    return int(nest.run(f"systemctl show --property MainPID --value {unit}.service"))


def status_of(nest, pid):
    """/proc/PID/status, as the container sees it."""
    return {key: value.strip() for key, _, value in (line.partition(":") for line in nest.run(f"cat /proc/{pid}/status").splitlines())}


def serving(nest):
    nest.until("quiescectl call GET /health/ready >/dev/null && systemctl is-active --quiet quiesced.service")


@pytest.fixture(scope="module")
def installed(nest, packages):
    """The chapter "install in five minutes", block by block, on a machine with a PostgreSQL server."""
    nest.before = nest.changed()
    nest.run("""pg_lsclusters -h | grep -q . || pg_createcluster "$(ls /usr/lib/postgresql | sort -V | tail -n 1)" main
                read -r version name rest < <(pg_lsclusters -h); systemctl start "postgresql@$version-$name.service"
                su postgres -c "psql -qc 'CREATE TABLE kept AS SELECT generate_series(1, 1000) AS n'" """)
    nest.server = nest.changed()
    build_block, *others = blocks()
    assert build_block.splitlines() == BUILD, "built by a fixture"
    for package in packages:
        nest.put(f"/var/tmp/quiesced-packages/{package.name}", package)
    nest.said = [nest.run("set -euo pipefail\n" + others[0])]
    serving(nest)
    nest.said.append(nest.run("cd /; set -euo pipefail\n" + "".join(others[1:])))
    return nest


def test_install_back_up_and_restore_as_the_first_chapter_says(installed):
    nest = installed
    assert "not protected" in nest.said[1].lower() and "protected" in nest.run("quiescectl status").lower()
    restored = nest.run("cd /; ls -d /srv/restored/var/lib/postgresql/*/main").strip()
    nest.run(f"""cd /; printf 'local all all trust\\n' > /tmp/hba && chmod 644 /tmp/hba
        version=$(cat {restored}/PG_VERSION)
        su postgres -c "/usr/lib/postgresql/$version/bin/pg_ctl -w -t 60 -D {restored} -l /tmp/restored.log -o '-c port=5499 -c listen_addresses= -c unix_socket_directories=/tmp \\
          -c hba_file=/tmp/hba -c config_file=/dev/null' start" || {{ cat /tmp/restored.log; exit 1; }}""")
    assert nest.run("su postgres -c \"psql -h /tmp -p 5499 -Atc 'SELECT count(*), sum(n) FROM kept'\"").strip() == "1000|500500"
    nest.run(f"version=$(cat {restored}/PG_VERSION); cd /; su postgres -c \"/usr/lib/postgresql/$version/bin/pg_ctl -w -D {restored} -m fast stop\"")


def test_systemd_takes_the_units(installed):
    words = installed.run("systemd-analyze verify --man=no /lib/systemd/system/quiesced*.service /lib/systemd/system/quiesced*.socket")
    assert "quiesced" not in words, words


@pytest.mark.parametrize("unit", sorted(EXPOSURE))
def test_a_unit_is_exposed_no_more_than_it_may_be(installed, unit):
    words = installed.run(f"systemd-analyze security --offline=true --no-pager {unit}.service")
    (figure,) = re.findall(r"Overall exposure level for \S+: ([0-9.]+)", words)
    assert float(figure) <= EXPOSURE[unit], words


def test_the_agents_unit_leaves_a_guardian_what_it_holds_fast_with():
    """mlockall(2), setpriority(2) below zero, and a lower oom_score_adj (proc(5)): a guardian that memory pressure kills holds nothing."""
    unit = (SOURCE / "packaging" / "systemd" / "quiesced-agent.service.in").read_text()
    (kept,) = re.findall(r"^CapabilityBoundingSet=(.*)$", unit, re.M)
    assert {"CAP_IPC_LOCK", "CAP_SYS_NICE", "CAP_SYS_RESOURCE"} <= set(kept.split()), kept


@pytest.mark.parametrize("unit", sorted(USERS))
def test_a_role_runs_in_its_units_sandbox(installed, unit):
    nest = installed
    status = status_of(nest, pid_of(nest, unit))
    assert status["Uid"].split()[0] == nest.run(f"id -u {USERS[unit]}").strip()
    assert status["Seccomp"] == "2"
    if USERS[unit] != "root":
        assert status["NoNewPrivs"] == "1" and int(status["CapBnd"], 16) == 0 and int(status["CapEff"], 16) == 0, status
    if unit == "quiesced-agent":  # what it mounts is seen by everybody
        pid = pid_of(nest, unit)
        assert nest.run(f"readlink /proc/{pid}/ns/mnt") == nest.run("readlink /proc/1/ns/mnt")
    if unit in ("quiesced-front", "quiesced-core"):
        pid = pid_of(nest, unit)
        assert nest.run(f"readlink /proc/{pid}/ns/net") != nest.run("readlink /proc/1/ns/net")


def test_the_api_answers_over_tls(installed):
    """Front has a network of its own, without a way out: its connections are those of the listeners."""
    ca, token = "/var/lib/quiesced/pki/ca.pem", "$(cat /var/lib/quiesced/pki/admin.token)"
    for url in ("https://127.0.0.1:8877", "https://[::1]:8877"):
        assert installed.json(f'curl -gsS --fail --cacert {ca} -H "Authorization: Bearer {token}" {url}/whoami')["principal"] == "admin"
    who = installed.json("curl -sS --fail --unix-socket /var/lib/quiesced/api.sock http://localhost/whoami")
    assert who["principal"] == "root"


def test_every_roles_lines_are_in_the_journal_with_their_fields(installed):
    """Of the backup that the chapter made: by its session, and by role."""
    nest = installed
    job = nest.json("quiescectl --json call GET '/jobs?operation=Backup'")["items"][0]
    assert nest.until(f"journalctl --no-pager --output=cat JOB_ID={job['id']} | grep .")
    for role in ("front", "core", "serve"):  # the agent has nothing to say
        assert nest.run(f"journalctl --no-pager --output=cat -u quiesced QUIESCED_ROLE={role} | wc -l").strip() != "0", role
    (what_it_says,) = manual_blocks.of("operations.md", __file__, [("019ac0e4-0000-7000-8000-000000000000", job["session_id"])])
    (by_field,) = manual_blocks.of("monitoring.md", __file__, [("0199…", job["session_id"])])
    of_a_session, _, as_json = [nest.run(line) for line in by_field.splitlines()]  # errors of the agent: there are none
    assert "quiesced" in nest.run(what_it_says) and job["id"] in as_json and of_a_session == nest.run(what_it_says)


def test_the_manuals_polkit_rule_lets_the_servers_user_stop_and_start_its_server_and_nothing_else(installed):
    nest = installed
    (rule,) = manual_blocks.of("writers/postgresql.md", __file__)
    place, server = "/etc/polkit-1/rules.d/50-quiesced.rules", "postgresql@15-main.service"

    def asked(verb, unit):
        return nest.run(f"runuser -u postgres -- systemctl --no-ask-password {verb} {unit}", check=False)[0]
    nest.run("systemctl start dbus.service polkit.service")
    try:
        assert asked("stop", server) != 0 and nest.run(f"systemctl is-active {server}").strip() == "active"
        nest.run(f"cat > {place} <<'END'\n{rule}\nEND\nchmod 644 {place}; systemctl restart polkit.service")
        assert asked("stop", server) == 0 and nest.run(f"systemctl is-active {server}", check=False)[1].strip() == "inactive"
        assert asked("start", server) == 0 and nest.run(f"systemctl is-active {server}").strip() == "active"
        assert asked("stop", "quiesced.service") != 0 and nest.run("systemctl is-active quiesced.service").strip() == "active"
    finally:
        nest.run(f"rm -f {place}; systemctl start {server}; systemctl stop polkit.service dbus.service dbus.socket", check=False)


def test_a_user_of_the_machine_is_known_by_its_number(installed):
    nest = installed
    nest.run("printf 'principals: [{name: pg, role: viewer, user: postgres}]\\n' >> /etc/quiesced/quiesced.yaml && systemctl reload quiesced.service")
    nest.until("su postgres -c 'curl -sS --fail --unix-socket /var/lib/quiesced/api.sock http://localhost/whoami' | grep -q '\"pg\"'")


# --- deaths ---

HOLD = """set -euo pipefail
call() { quiescectl --json call "$@"; }
job() { call GET "/jobs/$(call POST "$@" | jq -r .id)?wait=60" | jq -e '.state == "succeeded"' >/dev/null; }
S=/sessions/$(call POST /sessions kind=backup label=outside | jq -r .id)
call PUT $S/backup-state component_mode=true bootable_system_state=false type=full partial_files=false >/dev/null
job $S/metadata; call POST $S/snapshot-set >/dev/null
call POST $S/snapshot-set/volumes path=/srv/volume provider=external >/dev/null
job $S/prepare; call POST $S/snapshot >/dev/null
for _ in $(seq 600); do call GET $S | jq -e .hold >/dev/null && break; sleep 0.1; done
call GET $S | jq -e .hold >/dev/null
"""
THAWED = "fsfreeze --freeze /srv/volume 2>/dev/null && fsfreeze --unfreeze /srv/volume"


def frozen(nest):
    """Holds /srv/volume in the window of a snapshot that somebody else takes."""
    nest.run(HOLD)
    assert nest.run(THAWED, check=False)[0] != 0, "it is not frozen"


def pids(nest):
    return {unit: pid_of(nest, unit) for unit in USERS if unit != "quiesced-courier"}


@pytest.mark.parametrize("victim", ["quiesced-front", "quiesced-core", "quiesced-agent", "quiesced"])
def test_whoever_is_killed_nothing_stays_frozen_and_all_come_back(installed, victim):
    nest = installed
    serving(nest)
    frozen(nest)
    before = pids(nest)
    nest.run(f"kill -KILL {before[victim]}")
    nest.until(THAWED)
    nest.until("[ -z \"$(ls /run/quiesced/freezes)\" ]")
    serving(nest)
    after = pids(nest)
    assert all(after[unit] not in (0, before[unit]) for unit in ROLES_UNITS), (before, after)
    assert (after["quiesced"] != before["quiesced"]) == (victim == "quiesced"), (before, after)


ROLES_UNITS = [f"quiesced-{role}" for role in ROLES]


def test_agent_guardian_and_worker_killed_at_once_leave_nothing_frozen(installed):
    """Nobody is left to thaw but the unit's ExecStopPost."""
    nest = installed
    serving(nest)
    frozen(nest)
    nest.run("systemctl kill --signal=KILL --kill-who=all quiesced-agent.service")
    nest.until(THAWED)
    nest.until("[ -z \"$(ls /run/quiesced/freezes)\" ]")
    serving(nest)


def test_stopped_in_a_freeze_the_service_thaws(installed):
    nest = installed
    serving(nest)
    frozen(nest)
    nest.run("systemctl stop quiesced.service")
    assert nest.run(THAWED, check=False)[0] == 0
    assert nest.run("ls /run/quiesced/freezes").strip() == ""
    assert nest.run("systemctl is-active quiesced.service " + " ".join(f"{unit}.service" for unit in ROLES_UNITS), check=False)[1].split() == ["inactive"] * 4
    nest.run("systemctl start quiesced.service")
    serving(nest)


def test_a_hanging_role_is_replaced_by_the_service_and_a_hanging_service_by_systemd(installed):
    nest = installed
    serving(nest)
    nest.run("""printf 'limits: {watchdog_seconds: 1}\\n' >> /etc/quiesced/quiesced.yaml
        mkdir -p /run/systemd/system/quiesced.service.d
        printf '[Service]\\nWatchdogSec=2\\nTimeoutAbortSec=5\\n' > /run/systemd/system/quiesced.service.d/test.conf
        systemctl daemon-reload && systemctl restart quiesced.service""")
    serving(nest)
    before = pids(nest)
    nest.run(f"kill -STOP {before['quiesced-core']}")
    nest.until(f"[ \"$(systemctl show --property MainPID --value quiesced-core.service)\" != {before['quiesced-core']} ]")
    serving(nest)
    middle = pids(nest)
    assert middle["quiesced"] == before["quiesced"], "the service itself was alive, and said so"
    nest.run(f"kill -STOP {middle['quiesced']}")
    nest.until(f"main=$(systemctl show --property MainPID --value quiesced.service); [ $main != 0 ] && [ $main != {middle['quiesced']} ]")
    nest.run("rm -r /run/systemd/system/quiesced.service.d && systemctl daemon-reload")
    serving(nest)


# worker/capabilities.c, by the numbers of capability.h.
WORKERS_CAPABILITIES = {"chown": 0, "dac_override": 1, "dac_read_search": 2, "fowner": 3, "fsetid": 4, "kill": 5, "setgid": 6, "setuid": 7, "linux_immutable": 9,
                        "sys_ptrace": 19, "sys_admin": 21, "mknod": 27, "setfcap": 31}


def test_a_worker_sandboxes_itself(installed):
    """Whatever the agent's unit leaves to its children, a worker keeps what its duty takes."""
    nest = installed
    serving(nest)
    frozen(nest)
    (pid,) = nest.run("pgrep -f -- --role=worker").split()
    status = status_of(nest, pid)
    kept = {number for number in range(64) if int(status["CapBnd"], 16) >> number & 1}
    assert kept == set(WORKERS_CAPABILITIES.values()) and status["CapEff"] == status["CapPrm"] == status["CapBnd"] and status["Seccomp"] == "2", status
    nest.run("quiescectl --json call GET /sessions | jq -r '.items[] | select(.hold) | .id' | while read -r id; do quiescectl call DELETE /sessions/$id >/dev/null; done")
    nest.until(THAWED)


def test_a_broken_configuration_is_told_and_a_mended_one_serves(installed):
    nest = installed
    serving(nest)
    nest.run("cp /etc/quiesced/quiesced.yaml /root/good.yaml && printf 'writer: []\n' >> /etc/quiesced/quiesced.yaml")
    nest.run("systemctl reload quiesced.service")  # the one read before stays in force
    serving(nest)
    code, words = nest.run("quiesced check-config", check=False)
    assert code == 1 and 'did you mean "writers"?' in words, words
    assert nest.run("systemctl restart quiesced.service", check=False)[0] != 0
    assert 'did you mean "writers"?' in nest.run("journalctl --no-pager -u quiesced -n 200")
    nest.run("mv /root/good.yaml /etc/quiesced/quiesced.yaml && systemctl restart quiesced.service")
    serving(nest)


def test_the_packages_that_the_chapter_leaves_out_come_and_go(installed):
    nest = installed
    before = nest.changed()
    nest.run("cd /var/tmp/quiesced-packages && dpkg -i quiesced-doc_*.deb quiesced-writer-mariadb_*.deb quiesced-writer-redis_*.deb")
    nest.run("for name in mariadb redis; do test -x /usr/libexec/quiesced/quiesced-writer-$name; done; test -s /usr/share/doc/quiesced/front-doors.md")
    serving(nest)
    nest.run("dpkg --purge quiesced-doc quiesced-writer-mariadb quiesced-writer-redis")
    gone = {path for path in nest.changed() - before if not path.startswith("var/lib/quiesced")}
    assert not gone, gone
    serving(nest)


# --- its ends ---


def test_the_first_connection_starts_it_by_quiesced_socket(installed):
    nest = installed
    nest.run("systemctl stop quiesced.service && systemctl start quiesced.socket")
    assert nest.run("systemctl is-active quiesced.service", check=False)[1].strip() == "inactive"
    ca, token = "/var/lib/quiesced/pki/ca.pem", "$(cat /var/lib/quiesced/pki/admin.token)"
    assert nest.json(f'curl -sS --fail --max-time 60 --cacert {ca} -H "Authorization: Bearer {token}" https://127.0.0.1:8877/whoami')["principal"] == "admin"
    nest.run("systemctl stop quiesced.socket quiesced.service && systemctl start quiesced.service")
    serving(nest)


def test_an_upgrade_keeps_what_there_was(installed, packages):
    nest = installed
    backups = nest.json("quiescectl --json backups")
    assert backups
    nest.run("""set -e; cd /var/tmp; rm -rf newer; mkdir newer
        for name in quiesced quiescectl quiesced-writer-postgresql; do
          dpkg-deb --raw-extract quiesced-packages/${name}_0.*.deb newer/$name
          sed -i 's/0\\.1\\.0/0.1.1/g' newer/$name/DEBIAN/control
          dpkg-deb --build --root-owner-group -Znone newer/$name newer/$name.deb >/dev/null
        done""")
    before = pid_of(nest, "quiesced")
    nest.run("dpkg --force-confold -i /var/tmp/newer/*.deb")
    serving(nest)
    assert pid_of(nest, "quiesced") != before
    assert nest.json("quiescectl --json backups") == backups
    nest.run("rm -rf /var/tmp/newer")


# Where others work on the host meanwhile: its daemons have the same users, and what goes while purge looks through the disks keeps it from having seen all.
HOSTS = ("/var/tmp", "/tmp", *({f"/{SOURCE.parts[1]}"} - {"/etc", "/root", "/run", "/srv", "/tmp", "/usr", "/var"}))

# A snapshot that is still shown, and looked into, when the package goes; a state directory on a disk of its own. What lies at a volume's top goes when it is empty and ours, and is looked at
# once, however often it is mounted.
IN_THE_WAY = r"""set -e
[ -d /srv/cow/.quiesced ]; [ -z "$(ls -A /srv/cow/.quiesced)" ]
mkdir -p "/run/quiesced/shadow/x 1\\z" /srv/cow/shown /srv/cow/kept/.quiesced/a /srv/cow/others/.quiesced /srv/kept /srv/again /srv/others
chown postgres /srv/cow/others/.quiesced
mount --bind /srv/cow/shown "/run/quiesced/shadow/x 1\\z"
mount -t tmpfs none "/run/quiesced/shadow/x 1\\z" && touch "/run/quiesced/shadow/x 1\\z/file"
setsid sleep 1000 < "/run/quiesced/shadow/x 1\\z/file" >/dev/null 2>&1 & echo $! > /root/sleeper
for name in kept others; do mount --bind /srv/cow/$name /srv/$name; done
mount --bind /srv/kept /srv/again
mount --bind /var/lib/quiesced /var/lib/quiesced
cp /var/lib/dpkg/info/quiesced.postrm /root/
"""
# Purged once more, with something mounted within the state directory.
AGAIN = """set -e
kill "$(cat /root/sleeper)"; umount /var/lib/quiesced
mkdir -p /var/lib/quiesced/staging /var/lib/quiesced/pki && touch /var/lib/quiesced/pki/ca.key
mkdir /srv/elsewhere && touch /srv/elsewhere/theirs && mount --bind /srv/elsewhere /var/lib/quiesced/staging
umount /srv/again && rmdir /srv/kept/.quiesced/a
sh /root/quiesced.postrm purge
ls /var/lib/quiesced /var/lib/quiesced/staging
[ -e /srv/elsewhere/theirs ]; umount /var/lib/quiesced/staging && rm -r /var/lib/quiesced /srv/elsewhere
"""


def purged_with_mounts_in_the_way(nest):
    """What purge said."""
    nest.run(IN_THE_WAY)
    for place in HOSTS:
        nest.run(f"mount -t tmpfs -o mode=1777 none {place}")
    said = nest.run("dpkg --purge quiesced-writer-postgresql quiesced quiescectl")
    assert nest.run("grep -c ' /run/quiesced' /proc/self/mountinfo", check=False)[1].strip() == "0", said
    assert nest.run("ls -A /var/lib/quiesced").strip() == "" and "quiesced: /var/lib/quiesced has been emptied, and is kept: " in said, said
    assert nest.run("ls -Ad /srv/cow/.quiesced /srv/kept/.quiesced/a /srv/others/.quiesced 2>/dev/null", check=False)[1].split() == ["/srv/kept/.quiesced/a", "/srv/others/.quiesced"]
    assert said.count(".quiesced is kept: it is not empty") == said.count("/srv/kept/.quiesced is kept: it is not empty") == 1, said
    again = nest.run(AGAIN)
    assert "not all of /var/lib/quiesced could be removed" in again and again.split()[-3:] == ["staging", "/var/lib/quiesced/staging:", "theirs"], again
    assert nest.run("ls -A /srv/kept").strip() == ""
    nest.run(f"umount {' '.join(HOSTS)} /srv/kept /srv/others && rmdir /srv/kept /srv/others /srv/again")
    return said


def test_removed_it_thaws_first_and_purged_it_leaves_nothing(installed):
    nest = installed
    nest.run('quiescectl hold delete "$(quiescectl hold create /srv/cow)"')
    frozen(nest)
    nest.run("systemctl kill --signal=STOP --kill-who=main quiesced-agent.service")  # it can help nobody any more
    nest.run("dpkg --remove quiesced-writer-postgresql quiesced quiescectl", seconds=500)
    assert nest.run(THAWED, check=False)[0] == 0
    assert nest.run("ls /var/lib/quiesced/pki/admin.token /etc/quiesced/quiesced.yaml")
    nest.run("install -o quiesced-courier /dev/null /srv/of-a-user")
    said = purged_with_mounts_in_the_way(nest)
    assert "the user quiesced-courier still has files (/srv/of-a-user): kept" in said, said
    users = nest.run("getent passwd quiesced quiesced-front quiesced-courier; getent group quiesced quiesced-front", check=False)[1]
    assert [line.split(":")[0] for line in users.splitlines()] == ["quiesced-courier"], "a user without files goes with its group"
    nest.run("rm /srv/of-a-user && userdel quiesced-courier")
    assert nest.run("ls -d /var/lib/quiesced /etc/quiesced /run/quiesced /var/log/quiesced* /usr/libexec/quiesced 2>/dev/null", check=False)[1].strip() == ""
    assert nest.run("systemctl list-units --all --no-legend 'quiesced*'").strip() == ""
    nest.run("rm -rf /var/tmp/quiesced-packages")
    kept = {"srv/backups/", "srv/restored/"}  # backups, and what was restored
    left = {path for path in nest.changed() - nest.server if not any(path.startswith(name.rstrip("/")) for name in kept) and "postgresql" not in path}
    assert not left, left
