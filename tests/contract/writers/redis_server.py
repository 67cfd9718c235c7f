"""A Redis server of our own: temporary directory, Unix socket only."""
import functools
import os
import pwd
import shutil
import subprocess
import tempfile
import time

import pytest
import redis

from writer_driver import Writer

SERVER = shutil.which("redis-server", path="/usr/bin:/usr/local/bin")
USER = "redis" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name
IDENTITY = {"user": USER, "group": USER, "extra_groups": []} if os.geteuid() == 0 else {}


def own(path):
    if IDENTITY:
        entry = pwd.getpwnam(USER)
        os.chown(path, entry.pw_uid, entry.pw_gid)


def directory():
    path = tempfile.mkdtemp(prefix="quiesced-redis-", dir="/tmp")
    own(path)
    return path


class Server:
    """data: its directory; made when it is not there."""

    def __init__(self, data, sockets, aof=True, options=()):
        if not SERVER:
            pytest.skip("no Redis server is installed")
        self.data, self.socket, self.aof = str(data), os.path.join(sockets, "redis.sock"), aof
        if not os.path.exists(self.data):
            os.mkdir(self.data)
            own(self.data)
        self.log = open(os.path.join(sockets, "log"), "ab")
        self.command = [SERVER, "--port", "0", "--unixsocket", self.socket, "--unixsocketperm", "777", "--dir", self.data, "--save", "",
                        "--appendonly", "yes" if aof else "no", "--daemonize", "no", *options]
        self.launch()

    def launch(self):
        self.process = subprocess.Popen(self.command, stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log, cwd="/", **IDENTITY)
        end = time.monotonic() + 60
        while time.monotonic() < end and self.process.poll() is None:
            try:
                self.client().ping()
                return
            except (redis.exceptions.AuthenticationError, redis.exceptions.ResponseError):
                return  # it serves, and wants a password
            except (redis.exceptions.BusyLoadingError, redis.exceptions.ConnectionError):
                time.sleep(0.05)
        self.halt()
        with open(self.log.name, errors="replace") as log:
            raise AssertionError("the server does not start: " + log.read()[-3000:])

    def client(self, **more):
        return redis.Redis(unix_socket_path=self.socket, **more)

    def halt(self):
        if self.process.poll() is None:
            self.process.terminate()
            self.process.wait(60)

    def stop(self):
        self.halt()
        self.log.close()

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        self.stop()

    def writer(self, **more):
        return Writer("redis", {"name": "cache", "type": "redis", "socket": self.socket, **more}, user=USER if IDENTITY else None)

    def held(self):
        """Are writes paused? Asked by trying, with a short wait."""
        try:
            self.client(socket_timeout=0.3).set("probe", 1)
            return False
        except redis.exceptions.TimeoutError:
            return True


@functools.lru_cache(maxsize=1)
def shared():
    """One idle server for the tests that change nothing. Stopped at the end (conftest.py)."""
    place = directory()
    server = Server(place + "/data", place)
    server.place = place
    return server


def stop_shared():
    if shared.cache_info().currsize:
        server = shared()
        server.stop()
        shutil.rmtree(server.place)
        shared.cache_clear()
