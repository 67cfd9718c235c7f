#!/usr/bin/python3
"""Looks at the machine after a cell of the kill matrix and says what is wrong. It is no part of the daemon, asks it nothing,
and knows only what the rig tells it (rig.describe).

usage: judge.py < {"rig": {...}, "since_ns": N, "limit_ms": N | null}
Prints {"wrong": [...], "pause_ms": {NAME: N}} ; exit status 1 when something is wrong."""
import fcntl
import json
import os
import pathlib
import socket
import sqlite3
import subprocess
import sys
import time

from beats import last_beat_ns, longest_pause_ms

FIFREEZE, FITHAW = 0xC0045877, 0xC0045878
NOISE_MS = 700  # of the machine: two cores, other tests beside us; the lease itself is whole seconds
SETTLE_SECONDS = 30


class Verdict:
    def __init__(self):
        self.wrong, self.pause_ms = [], {}

    def expect(self, holds, text):
        if not holds:
            self.wrong.append(text)

    def until(self, looks, text, seconds=5):
        """looks() gives what is still wrong, as text; nothing within that time is right."""
        deadline = time.monotonic() + seconds
        found = looks()
        while found and time.monotonic() < deadline:
            time.sleep(0.05)
            found = looks()
        self.expect(not found, f"{text}: {found}")


def judge_pauses(rig, since_ns, limit_ms, verdict):
    """Every heart beats again, and none was still for longer than a freeze may last."""
    now = time.monotonic_ns()
    for name, path in {**rig["pulses"], **rig["loads"]}.items():
        verdict.until(lambda path=path: None if last_beat_ns(path) > now else f"no write for {longest_pause_ms(path, now):.0f} ms", f"{name} stands still", 10)
        verdict.pause_ms[name] = round(longest_pause_ms(path, since_ns))
        if limit_ms is not None:
            verdict.expect(verdict.pause_ms[name] <= limit_ms + NOISE_MS, f"{name} stood still for {verdict.pause_ms[name]} ms (limit {limit_ms})")


def judge_file_systems(rig, verdict):
    """A file system that somebody left frozen, or that somebody still wants to freeze, cannot be frozen and thawed by us."""
    for name, point in rig["file_systems"].items():
        fd = os.open(point, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.ioctl(fd, FIFREEZE, 0)
            fcntl.ioctl(fd, FITHAW, 0)
        except OSError as error:
            verdict.wrong.append(f"{name}: FIFREEZE and FITHAW: {error.strerror}")
            try:
                fcntl.ioctl(fd, FITHAW, 0)  # the next cell shall not be judged by this one
            except OSError:
                pass
        finally:
            os.close(fd)


def judge_sqlite(rig, verdict):
    def locked():
        database = sqlite3.connect(rig["database"], timeout=3, isolation_level=None)
        try:
            database.execute("BEGIN IMMEDIATE")
            database.execute("ROLLBACK")
        except sqlite3.OperationalError as error:
            return str(error)
        finally:
            database.close()
        return None
    verdict.until(locked, "SQLite", 5)


def judge_postgresql(rig, verdict):
    import psycopg2
    server = psycopg2.connect(rig["connection"], connect_timeout=5)
    server.autocommit = True
    cursor = server.cursor()

    def traces():
        cursor.execute("SELECT pid, application_name, state FROM pg_stat_activity WHERE application_name LIKE 'quiesced%'")
        sessions = cursor.fetchall()
        cursor.execute("SELECT slot_name, active FROM pg_replication_slots")
        slots = cursor.fetchall()
        cursor.execute("SELECT count(*) FROM pg_locks WHERE NOT granted")
        return (f"sessions {sessions}, " if sessions else "") + (f"slots {slots}, " if slots else "") + (
            "somebody waits for a lock" if cursor.fetchone()[0] else "")
    verdict.until(traces, "PostgreSQL")
    server.close()


def judge_mariadb(rig, verdict):
    """As with the file systems: a hold that is left (BACKUP STAGE, FLUSH TABLES WITH READ LOCK) lets nobody else begin one."""
    import pymysql
    server = pymysql.connect(unix_socket=rig["mariadb"], user="tester", password="secret", connect_timeout=5)
    cursor = server.cursor()
    cursor.execute("SET SESSION lock_wait_timeout = 1")

    def held():
        cursor.execute("SELECT ID, COMMAND, STATE, INFO FROM information_schema.PROCESSLIST WHERE USER = %s OR STATE LIKE 'Waiting for %%lock'", (rig["mariadb_user"],))
        sessions = cursor.fetchall()
        if sessions:
            return f"sessions {sessions}"
        try:
            cursor.execute("BACKUP STAGE START")
            cursor.execute("BACKUP STAGE END")
        except pymysql.err.MySQLError as error:
            return str(error)
        return None
    verdict.until(held, "MariaDB")
    server.close()


def judge_redis(rig, verdict):
    """A pause holds up whoever writes. Spoken to without a library: the answers are one line, or one bulk."""
    def paused():
        with socket.socket(socket.AF_UNIX) as server:
            server.settimeout(1)
            server.connect(rig["redis"])
            try:
                server.sendall(b"SET judge 1\r\n")
                answer = server.recv(4096)
            except TimeoutError:
                return "a write waits"
            if answer != b"+OK\r\n":
                return repr(answer)
            server.sendall(b"CLIENT LIST\r\n")
            clients = [line for line in server.recv(65536).decode().splitlines() if line.startswith("id=")]
            return f"clients {clients}" if len(clients) != 2 else None  # the load and the judge
    verdict.until(paused, "Redis")


def judge_lock(rig, verdict):
    """The exec writer's hold: a lock that its death, abort or end-of-file gives back."""
    def held():
        with open(rig["lock"], "a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return "is held"
        return None
    verdict.until(held, "the exec writer's lock")


def mounts_below(place):
    found = []
    for line in pathlib.Path("/proc/self/mountinfo").read_text().splitlines():
        point = line.split()[4]
        if point.startswith(place + "/"):
            found.append(point)
    return sorted(found)


def judge_leftovers(rig, verdict):
    """Nothing lies about: snapshots (btrfs tells them itself), copies in the staging directory, mounts, loop devices."""
    def subvolumes():
        listing = subprocess.run(["btrfs", "subvolume", "list", "-o", rig["file_systems"]["btrfs"]], capture_output=True, text=True).stdout
        return [line.split()[-1] for line in listing.splitlines() if line.split()[-1] != "volume"]

    def staged():
        return [str(path) for path in pathlib.Path(rig["staging"]).glob("*/*") if path.exists()] + [
            str(path) for path in pathlib.Path(rig["staging"]).glob("*") if path.is_dir() and not path.name.startswith(".")]

    def mounted():
        return [point for point in mounts_below(rig["place"]) if point not in rig["file_systems"].values()]

    def loops():
        listing = subprocess.run(["losetup", "-n", "-O", "BACK-FILE"], capture_output=True, text=True).stdout.split()
        mine = sorted(path for path in listing if path.startswith(rig["place"] + "/"))
        return None if len(mine) == len(rig["file_systems"]) else mine

    for looks, text in ((subvolumes, "snapshots are left"), (staged, "staging is not empty"), (mounted, "mounts are left"), (loops, "loop devices")):
        verdict.until(looks, text, SETTLE_SECONDS)


def judge(case):
    rig, verdict = case["rig"], Verdict()
    judge_pauses(rig, case["since_ns"], case["limit_ms"], verdict)
    judge_file_systems(rig, verdict)
    judge_sqlite(rig, verdict)
    judge_postgresql(rig, verdict)
    judge_mariadb(rig, verdict)
    judge_redis(rig, verdict)
    judge_lock(rig, verdict)
    judge_leftovers(rig, verdict)
    return verdict


if __name__ == "__main__":
    found = judge(json.load(sys.stdin))
    print(json.dumps({"wrong": found.wrong, "pause_ms": found.pause_ms}))
    sys.exit(1 if found.wrong else 0)
