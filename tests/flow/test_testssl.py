"""testssl.sh looks at the front: nothing at MEDIUM or above, but that a private CA has no revocation list to point to."""
import json
import subprocess

import pytest

PRIVATE_CA = {"cert_revocation"}  # certificates of the private CA are revoked in the daemon's own records (docs/access.md)
SEVERE = ("MEDIUM", "HIGH", "CRITICAL", "FATAL")


@pytest.mark.full
@pytest.mark.timeout(3600)  # six minutes on a machine that does little else
def test_testssl_finds_nothing(daemon):
    node = daemon()
    found = node.place / "testssl.json"
    done = subprocess.run(["testssl", "--quiet", "--color", "0", "--warnings", "off", "--add-ca", node.ready["ca"], "-n", "none", "--jsonfile", found,
                           node.ready["url"].removeprefix("https://")], capture_output=True, text=True, timeout=3500)
    rows = json.loads(found.read_text())
    seen = {row["id"] for row in rows}
    assert {"TLS1_3", "cipher_order", "heartbleed", "ROBOT", "cert_chain_of_trust"} <= seen, done.stdout[-3000:]  # it came to its end
    severe = {row["id"]: (row["severity"], row["finding"]) for row in rows if row["severity"] in SEVERE and row["id"] not in PRIVATE_CA}
    assert not severe, severe
