"""Clients that send or read slowly, or stall their handshake, are got rid of, and nobody else's call fails meanwhile. How long those take: bench/attacks."""
import json
import os
import subprocess
import sys
import threading

import pytest

from conduct import Wire, address
from daemon import SOURCE

MANY = 1000 if os.environ.get("QUIESCED_FULL") == "1" else 150
PATIENCE = "head_seconds: 2, stall_seconds: 2, handshake_seconds: 2"


class Attack:
    """tests/attackers.py from an address of its own; `seen` is what it said last."""

    def __init__(self, node, kind, count):
        self.process = subprocess.Popen([sys.executable, SOURCE / "tests" / "attackers.py", kind, *map(str, address(node)), "127.0.0.9", str(count)],
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.seen, self.changed = {"open": 0, "closed": 0, "refused": 0}, threading.Condition()
        threading.Thread(target=self.listen, daemon=True).start()

    def listen(self):
        for line in self.process.stdout:
            with self.changed:
                self.seen = json.loads(line)
                self.changed.notify_all()

    def wait(self, until):
        with self.changed:
            assert self.changed.wait_for(lambda: until(self.seen), 300), self.seen

    def stop(self):
        self.process.stdin.close()
        assert self.process.wait(60) == 0


@pytest.mark.parametrize("kind", ["slow-head", "slow-body", "slow-read", "stalled-handshake"])
def test_others_are_served_meanwhile(daemon, kind):
    node = daemon(f"limits: {{{PATIENCE}}}\n")
    kept = Wire(node)
    assert kept.get("/whoami")["principal"] == "admin"
    attack = Attack(node, kind, MANY)
    attack.wait(lambda seen: seen["open"] + seen["closed"] >= MANY)
    calls = 0
    while attack.seen["closed"] < MANY // 2 or calls < 50:  # the server lets go of them, one after the other
        assert attack.process.poll() is None
        assert kept.get("/whoami")["principal"] == "admin"
        fresh = Wire(node)
        assert fresh.get("/sessions")["items"] == []
        fresh.close()
        calls += 1
    attack.stop()
    assert attack.seen["refused"] == 0, "their connections were taken: it is patience that ends"
    kept.close()
