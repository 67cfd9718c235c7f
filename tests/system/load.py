"""What writes while backups run: pgbench, and a client that notes what was acknowledged."""
import hashlib
import os
import re
import subprocess
import threading
import time

import psycopg2

from postgresql_server import BIN, USER

CLIENTS = 4
RATE = 150  # transactions a second: load enough, and two processors still have time for the backup
PROGRESS_SECONDS = 2


class Pgbench:
    """TPC-B without end. Its progress lines tell whether it ever stood still."""

    def __init__(self, server, log):
        self.log = open(log, "w+")
        self.process = subprocess.Popen([BIN + "/pgbench", "-n", "-c", str(CLIENTS), "-R", str(RATE), "-T", "3600", "-P",
                                         str(PROGRESS_SECONDS), "-h", server.sockets, "-U", "postgres", "postgres"], stdin=subprocess.DEVNULL, stdout=self.log, stderr=subprocess.STDOUT, cwd="/",
                                        user=USER, group=USER, extra_groups=[])

    def rates(self):
        self.log.seek(0)
        return [float(rate) for rate in re.findall(r"^progress: .*? ([0-9.]+) tps", self.log.read(), re.M)]

    def stop(self):
        alive = self.process.poll() is None
        self.process.kill()
        self.process.wait()
        rates = self.rates()
        self.log.close()
        assert alive, "pgbench ended by itself"
        return rates


class Numbers:
    """Inserts 1, 2, 3... and notes when each commit was acknowledged."""

    def __init__(self, server):
        self.acknowledged, self.error, self.ended = [], None, threading.Event()  # (number, time)
        server.query("CREATE TABLE numbers (n bigint PRIMARY KEY)")
        self.db = psycopg2.connect(server.connection + " dbname=postgres")
        self.db.autocommit = True
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def run(self):
        try:
            cursor = self.db.cursor()
            number = 0
            while not self.ended.is_set():
                number += 1
                cursor.execute("INSERT INTO numbers VALUES (%s)", (number,))
                self.acknowledged.append((number, time.time()))
                self.ended.wait(0.005)
        except psycopg2.Error as error:
            self.error = error

    def before(self, moment):
        return max((number for number, at in list(self.acknowledged) if at < moment), default=0)

    def stop(self):
        self.ended.set()
        self.thread.join()
        self.db.close()
        assert self.error is None, self.error


def fill(directory, seed):
    """Static files; returns their hashes by path relative to the directory."""
    for i in range(40):
        path = directory / f"d{i % 5}" / f"file-{i}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(hashlib.sha512(b"%d %d" % (seed, i)).digest() * (i * i))
    return hashes(directory)


def hashes(directory):
    return {os.path.relpath(os.path.join(place, name), directory): hashlib.sha256(open(os.path.join(place, name), "rb").read()).hexdigest()
            for place, _, names in os.walk(directory) for name in names}
