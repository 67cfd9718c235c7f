"""The same record as pulse.c keeps, for Python: the last beat, and every pause worth noting."""
import mmap
import os
import struct
import time

NOTABLE_NS = 20_000_000


class Heart:
    """Kept by a load: beat() after every acknowledged write."""

    def __init__(self, path):
        self.fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
        os.ftruncate(self.fd, 8)
        self.map = mmap.mmap(self.fd, 8)
        self.last = time.monotonic_ns()
        self.map[:8] = struct.pack("=q", self.last)

    def beat(self):
        now = time.monotonic_ns()
        if now - self.last > NOTABLE_NS:
            os.write(self.fd, struct.pack("=qq", now, now - self.last))
        self.last = now
        self.map[:8] = struct.pack("=q", now)


def longest_pause_ms(path, since_ns):
    """The longest pause since then, one that lasts until now included. A pause that began before counts whole."""
    with open(path, "rb") as file:
        record = file.read()
    last = struct.unpack_from("=q", record)[0]
    longest = time.monotonic_ns() - last
    for ended, length in struct.iter_unpack("=qq", record[8:8 + (len(record) - 8) // 16 * 16]):
        if ended >= since_ns:
            longest = max(longest, length)
    return longest / 1e6


def last_beat_ns(path):
    with open(path, "rb") as file:
        return struct.unpack("=q", file.read(8))[0]
