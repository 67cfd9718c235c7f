#!/usr/bin/env python3
"""A writer for quiesced, in Python: an application keeps files in DIRECTORY, and takes a shared lock on DIRECTORY/.lock
(flock(2)) around every change. The writer takes the exclusive one: then nothing changes.

usage: directory_writer.py DIRECTORY        (docs/writing-a-writer.md explains it line by line)
"""
import fcntl
import json
import os
import signal
import sys
import time

LINE_MAX = 1024 * 1024


class Refusal(Exception):
    """failure: one of VSS_E_WRITERERROR_*."""

    def __init__(self, failure, message):
        super().__init__(message)
        self.failure = failure


class Hold:
    """The application's lock, held as a lease: it ends with its time, and with this process, whatever happens."""

    def __init__(self, path):
        self.file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        self.held = self.waiting = False
        signal.signal(signal.SIGALRM, self.lapse)

    def take(self, seconds):
        end = time.monotonic() + seconds
        self.waiting = True
        try:
            signal.setitimer(signal.ITIMER_REAL, max(seconds * 0.9, 0.001))  # leave time to answer
            fcntl.flock(self.file, fcntl.LOCK_EX)
            self.held = True
        finally:
            self.waiting = False
        signal.setitimer(signal.ITIMER_REAL, max(end - time.monotonic(), 0.001))

    def release(self):
        signal.setitimer(signal.ITIMER_REAL, 0)
        was_held, self.held = self.held, False
        fcntl.flock(self.file, fcntl.LOCK_UN)
        return was_held

    def lapse(self, *_):
        self.release()
        if self.waiting:
            raise Refusal("VSS_E_WRITERERROR_RETRYABLE", "the application did not let go of its lock in time")


class DirectoryWriter:
    def __init__(self, directory):
        self.directory = os.path.realpath(directory)
        self.hold = Hold(os.path.join(self.directory, ".lock"))
        self.stamp = None

    def identify(self, _request):
        files = {"path": self.directory, "spec": "*", "recursive": True}
        return {"metadata": {
            "name": "directory", "class_id": "6d0c4b52-3a5e-4c8e-9d3c-1f0a7f4b2e11", "instance_name": self.directory,
            "usage": "user_data", "level": "front_end", "freeze_timeout_ms": 30000, "restore_method": "custom", "backup_schema": [],
            "components": [{"type": "filegroup", "logical_path": "", "name": "files", "selectable": True, "hold": "writes",
                            "file_sets": [files]}],
            "exclude": [{"path": self.directory, "spec": ".lock", "recursive": False}]}}

    def freeze(self, request):
        self.hold.take(request["deadline_ms"] / 1000)
        self.stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())

    def thaw(self, _request):
        if not self.hold.release():
            raise Refusal("VSS_E_WRITERERROR_TIMEOUT", "the hold did not last until thaw")

    def post_snapshot(self, request):
        return {"components": [{"logical_path": component["logical_path"], "name": component["name"], "stamp": self.stamp}
                               for component in request["components"]]}

    def release(self, _request):
        self.hold.release()

    abort = backup_shutdown = post_restore = release

    def pre_restore(self, request):
        self.hold.take(request["deadline_ms"] / 1000)
        signal.setitimer(signal.ITIMER_REAL, 0)  # a restore may take hours: post_restore, or our end, lets go


EVENTS = {"identify", "freeze", "thaw", "post_snapshot", "abort", "backup_shutdown", "pre_restore", "post_restore"}


def answer(writer, line):
    number = None
    try:
        request = json.loads(line)
        number = int(request["id"])
        event = request["event"]
        said = getattr(writer, event)(request) if event in EVENTS else None  # what we do not know, we pass over
        return {"id": number, "ok": True, **(said or {})}
    except Refusal as refusal:
        return {"id": number, "ok": False, "failure": refusal.failure, "message": str(refusal)}
    except (ValueError, KeyError, TypeError, OSError) as error:
        return {"id": number, "ok": False, "failure": "VSS_E_WRITERERROR_NONRETRYABLE", "message": repr(error)}


def main():
    writer = DirectoryWriter(sys.argv[1])
    while (line := sys.stdin.buffer.readline(LINE_MAX + 1)).endswith(b"\n"):  # end of file, or a line that is too long: we end
        print(json.dumps(answer(writer, line)), flush=True)


if __name__ == "__main__":
    main()
