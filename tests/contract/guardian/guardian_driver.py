"""Speaks to `quiesced-agent --role=guardian` as the agent (fd 3) and the worker (fd 4) do: a length, then JSON, fds on the first byte."""
import array
import json
import os
import pathlib
import select
import socket
import struct
import subprocess

SOURCE = pathlib.Path(os.environ.get("QUIESCED_SOURCE", pathlib.Path(__file__).resolve().parents[3]))
BUILD = pathlib.Path(os.environ.get("QUIESCED_BUILD", SOURCE / "build" / "asan"))


def send(sock, message, fds=()):
    body = json.dumps(message).encode()
    sock.sendmsg([struct.pack(">I", len(body)) + body], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else [])


def receive(sock, seconds=60):
    """(message, fds), or (None, []) at end of file."""
    if not select.select([sock], [], [], seconds)[0]:
        raise AssertionError("no message in time")
    head, ancillary, _, _ = sock.recvmsg(4, socket.CMSG_SPACE(64))
    fds = array.array("i")
    for _, _, data in ancillary:
        fds.frombytes(data[:len(data) - len(data) % fds.itemsize])
    if not head:
        return None, []
    size, body = struct.unpack(">I", head)[0], b""
    while len(body) < size:
        body += sock.recv(size - len(body))
    return json.loads(body), list(fds)


class Guardian:
    def __init__(self, records, filesystems, freeze_ms=20000, set_id="set-1", faults=None):
        self.agent, theirs3 = socket.socketpair()
        self.worker, theirs4 = socket.socketpair()
        launcher = ("import fcntl, os, sys; a, b = (fcntl.fcntl(int(n), fcntl.F_DUPFD, 100) for n in sys.argv[1:3]); os.dup2(a, 3); os.dup2(b, 4);"
                    "os.closerange(5, 256); os.execv(sys.argv[3], [sys.argv[3], '--role=guardian'])")
        self.process = subprocess.Popen(["/usr/bin/python3", "-c", launcher, str(theirs3.fileno()), str(theirs4.fileno()), str(BUILD / "quiesced-agent")],
                                        pass_fds=[theirs3.fileno(), theirs4.fileno()], env=dict(os.environ, ASAN_OPTIONS="detect_leaks=0", **({"QUIESCED_FAULT_DIR": str(faults)} if faults else {})))
        theirs3.close()
        theirs4.close()
        boot_id = pathlib.Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        entries = [{"device": fs.devno, "mount_point": str(fs.path), "source": fs.device, "fs_type": fs.kind} for fs in filesystems]
        fds = [os.open(fs.path, os.O_RDONLY | os.O_DIRECTORY) for fs in filesystems]
        send(self.agent, {"type": "guard", "records": str(records), "freeze_ms": freeze_ms,
                          "record": {"installation": "test", "set": set_id, "session": "s", "boot_id": boot_id, "file_systems": entries}}, fds)
        for fd in fds:
            os.close(fd)
        self.answer, self.record = receive(self.agent)

    def ask(self, word):
        send(self.worker, {"type": word})

    def freeze(self):
        self.ask("freeze")
        return receive(self.worker)[0]

    def thaw(self):
        self.ask("thaw")
        return receive(self.worker)[0]

    def end(self):
        for sock in (self.agent, self.worker):
            sock.close()
        for fd in self.record:
            os.close(fd)
        if self.process.poll() is None:
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
