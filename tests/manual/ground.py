#!/usr/bin/python3
"""A machine of one page's own, on which its blocks are run: mounts, processes and network of their own, and everything that is written goes to memory.

usage: unshare --mount --net --pid --fork --kill-child --mount-proc ground.py JOB      JOB: {"build","source","config","servers","steps":[[name, shell]…]}
Prints one line: {"done": names, "failed": name or null, "output": {name: text}, "sanitizer": [text]}. When this process ends, everything ends with it.
"""
import json
import os
import pathlib
import re
import subprocess
import sys
import time

MARK = "@@ step "
# What the service manager does, for the one unit that there is.
SYSTEMCTL = """#!/bin/bash
set -euo pipefail
gone() { [ ! -s /run/quiesced.pid ] || ! kill -0 "$(cat /run/quiesced.pid)" 2>/dev/null; }
stop() { gone && return; kill -TERM "$(cat /run/quiesced.pid)"; until gone; do sleep 0.05; done; }
start() {
  rm -f /run/quiesced.ready
  setsid quiesced serve --config /etc/quiesced/quiesced.yaml --ready-file /run/quiesced.ready >>/run/quiesced.log 2>&1 </dev/null &
  echo $! >/run/quiesced.pid
  until [ -s /run/quiesced.ready ]; do if gone; then tail /run/quiesced.log; exit 1; fi; sleep 0.05; done
}
case "$*" in
  "start quiesced") start ;;
  "stop quiesced") stop ;;
  "restart quiesced") stop; start ;;
  "reload quiesced") kill -HUP "$(cat /run/quiesced.pid)" ;;
  *) echo "systemctl $*: this machine has the unit quiesced alone" >&2; exit 1 ;;
esac
"""


def sh(command):
    subprocess.run(["bash", "-euo", "pipefail", "-c", command], check=True, stdin=subprocess.DEVNULL, stdout=sys.stderr)


def furnish(job):
    """Every place that a page writes to is a layer in memory above the real one."""
    memory = pathlib.Path("/mnt")
    sh(f"mount -t tmpfs -o mode=755 manual {memory}; ip link set lo up")
    for number, place in enumerate(("/etc", "/var", "/opt", "/root", "/run", "/usr/share")):
        upper, work = memory / f"upper-{number}", memory / f"work-{number}"
        upper.mkdir()
        work.mkdir()
        sh(f"chmod --reference={place} {upper}; mount -t overlay manual -o lowerdir={place},upperdir={upper},workdir={work} {place}")
    sh(f"truncate -s 2G {memory}/disk; mkfs.btrfs -q {memory}/disk; mount -o loop {memory}/disk /srv")  # a provider with real snapshots fits it
    for place in ("/etc/quiesced", "/run/manual", "/run/sanitizer", "/usr/share/doc/quiesced"):
        pathlib.Path(place).mkdir(parents=True, exist_ok=True)
    pathlib.Path("/run/sanitizer").chmod(0o1777)
    pathlib.Path("/usr/share/doc/quiesced/examples").symlink_to(f"{job['source']}/examples")
    shim = pathlib.Path("/run/manual/systemctl")
    shim.write_text(SYSTEMCTL)
    shim.chmod(0o755)
    pathlib.Path("/etc/quiesced/quiesced.yaml").write_text(job["config"])
    os.environ.update(PATH=f"/run/manual:{job['build']}:/usr/sbin:/usr/bin:/sbin:/bin", HOME="/root", LC_ALL="C.UTF-8", ASAN_OPTIONS=f"log_path=/run/sanitizer/asan:{os.environ.get('QUIESCED_ASAN', '')}",
                      UBSAN_OPTIONS="print_stacktrace=1:log_path=/run/sanitizer/ubsan")


def until(check, what):
    deadline = time.monotonic() + 120
    while subprocess.run(["bash", "-c", check], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL).returncode != 0:
        if time.monotonic() > deadline:
            sys.exit(f"{what} does not come up")
        time.sleep(0.1)


def postgresql():
    sh("rm -rf /etc/postgresql/15/main /var/lib/postgresql/15/main; install -d -o postgres -g postgres -m 2775 /run/postgresql; "
       "pg_createcluster 15 main -- --no-sync; pg_ctlcluster 15 main start")
    until("runuser -u postgres -- psql -c 'SELECT 1'", "PostgreSQL")


def mariadb():
    sh("install -d -o mysql -g mysql /run/mysqld /srv/mysql; "
       "mariadb-install-db --user=mysql --datadir=/srv/mysql --tmpdir=/run/mysqld --skip-test-db --auth-root-authentication-method=socket; "
       "mariadb --version; setsid mariadbd --user=mysql --datadir=/srv/mysql --tmpdir=/run/mysqld --socket=/run/mysqld/mysqld.sock --skip-networking >/run/mariadb.log 2>&1 </dev/null &")
    until("mariadb -e 'SELECT 1'", "MariaDB")
    sh("mariadb -e \"CREATE USER IF NOT EXISTS mysql@localhost IDENTIFIED VIA unix_socket; GRANT ALL ON *.* TO mysql@localhost WITH GRANT OPTION\"")


def redis():
    sh("install -d -o redis -g redis /var/lib/redis; cd /var/lib/redis; setsid runuser -u redis -- redis-server --port 6379 --bind 127.0.0.1 --dir /var/lib/redis "
       ">/run/redis.log 2>&1 </dev/null &")
    until("redis-cli ping", "Redis")


SERVERS = {"postgresql": postgresql, "mariadb": mariadb, "redis": redis}


def run(steps):
    """In one shell, as whoever types them would; the first command that fails ends it."""
    script = "set -euo pipefail\nexec 2>&1\ncd /root\n" + "".join(f"printf '\\n{MARK}%s\\n' '{name}'\n{text}\n" for name, text in steps) + f"printf '\\n{MARK}end\\n'\n"
    done = subprocess.run(["bash", "-c", script], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
    parts = re.split(rf"^{MARK}(.*)$\n?", done.stdout, flags=re.M)
    output = dict(zip(parts[1::2], parts[2::2]))
    begun = [name for name in output if name != "end"]
    return {"done": begun if "end" in output else begun[:-1], "failed": None if "end" in output else begun[-1] if begun else "nothing was begun", "output": output}


def work():
    job = json.loads(pathlib.Path(sys.argv[1]).read_text())
    furnish(job)
    for server in job["servers"]:
        SERVERS[server]()
    sh("systemctl start quiesced")
    result = run(job["steps"])
    sh("systemctl stop quiesced")
    reports = [f"{path.name}: {path.read_text(errors='replace')[:4000]}" for path in pathlib.Path("/run/sanitizer").iterdir()]
    log = pathlib.Path("/run/quiesced.log").read_text(errors="replace")
    result |= {"sanitizer": reports + [line for line in log.splitlines() if "Sanitizer" in line or "runtime error" in line], "log": log[-3000:]}
    print(json.dumps(result))


def main():
    """The first process of a machine is there to bury the dead."""
    worker = os.fork()
    if worker == 0:
        work()
        return 0
    while True:
        pid, status = os.wait()
        if pid == worker:
            return os.waitstatus_to_exitcode(status)


if __name__ == "__main__":
    sys.exit(main())
