"""The audit trail's seals: who holds core's store can write every record anew, and it is found out, because the key and the memory of what was sealed are the signer's."""
import base64
import hashlib
import json
import re
import sqlite3
import subprocess

import pytest

import leftovers
import metrics
import receiver
from conftest import BUILD
from test_audit import trail, verify
from test_external import configuration, held, make_fs, prepared  # noqa: F401

QUICK = "audit: {seal_seconds: 1}\n"
ZEROS = "0" * 64


def last_seal(node):
    return node.call("GET", "/audit?limit=1").json["last_seal"]


def head(node):
    return node.call("GET", "/audit?limit=1").json["items"][0]["seq"]


def sealed(node):
    """Waits until every record there is is sealed."""
    def whole():
        page = node.call("GET", "/audit?limit=1").json
        return page["last_seal"] if page["last_seal"] and page["last_seal"]["seal"] == page["items"][0]["seq"] else None
    return receiver.until(whole)


def change(node, n=1):
    for number in range(n):
        assert node.call("POST", "/sessions", {"label": f"session {number}"}).status == 201


def state(node):
    return node.place / "state"


def store(node):
    return sqlite3.connect(next((state(node) / "store").glob("*.db")))


def rehash(lines):
    """The records as they stand, numbered and chained anew: what the trail would be if they had been written so."""
    made, prev = [], ZEROS
    for number, line in enumerate(lines, 1):
        content = line[line.index(',"prev"') + len(f',"prev":"{ZEROS}",'):line.index(',"hash"')]
        bare = f'{{"seq":{number},"prev":"{prev}",{content}}}'
        prev = hashlib.sha256(bare.encode()).hexdigest()
        made.append(f'{bare[:-1]},"hash":"{prev}"}}')
    return made


def signer(place, seq, digest):
    done = subprocess.run([BUILD / "quiesced", "--role=signer", "--state-dir", place, "--seal"], input=json.dumps({"seq": seq, "hash": digest}),
                          capture_output=True, text=True)
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """A trail of two seals and some records behind them; and what a client of that daemon may keep of it."""
    from daemon import Daemon
    import os
    import tempfile
    kept = tmp_path_factory.mktemp("kept")
    with tempfile.TemporaryDirectory(prefix="quiesced-test-", dir="/var/tmp") as place:
        os.chmod(place, 0o755)
        one = Daemon(place, QUICK).start()
        for _ in range(2):
            change(one, 2)
            sealed(one)
        lines = trail(one, seals=True)
        for name in ("audit.pem", "audit.seal", "ca.pem"):
            (kept / name).write_bytes((state(one) / name).read_bytes())
        one.stop()
        assert not one.sanitized()
    last = max(number for number, line in enumerate(lines) if line.startswith('{"seal"'))
    return kept, lines[:last + 1]


def test_what_is_sealed_can_be_verified_by_whoever_has_the_key_or_the_ca(sound, tmp_path):
    kept, lines = sound
    numbers = [json.loads(line)["seal"] for line in lines if line.startswith('{"seal"')]
    records = len(lines) - len(numbers)
    assert len(numbers) >= 2 and numbers[-1] == records
    for options in (["--key", kept / "audit.pem"], ["--ca", kept / "ca.pem"], ["--key", kept / "audit.pem", "--ca", kept / "ca.pem", "--seal", kept / "audit.seal"]):
        status, said = verify(tmp_path, lines, *options)
        assert status == 0 and said.startswith(f"ok: {records} records, head {records}:"), said
        assert f"seals that hold: {len(numbers)}, the last one of record {records} at 20" in said and "; 0 records stand behind it" in said, said
    assert "signatures were not looked at" in verify(tmp_path, lines)[1]
    first = lines.index(next(line for line in lines if line.startswith('{"seal"')))
    status, said = verify(tmp_path, lines[:first + 2], "--key", kept / "audit.pem")
    assert status == 0 and f"the last one of record {numbers[0]} at " in said and "; 1 records stand behind it" in said, said
    key = subprocess.run(["openssl", "x509", "-in", kept / "audit.pem", "-pubkey", "-noout"], check=True, capture_output=True).stdout
    (tmp_path / "public.pem").write_bytes(key)
    assert verify(tmp_path, lines, "--key", tmp_path / "public.pem")[0] == 0
    assert subprocess.run(["openssl", "verify", "-CAfile", kept / "ca.pem", kept / "audit.pem"], capture_output=True).returncode == 0


def test_an_auditor_elsewhere_gets_the_key_and_pins_it(daemon, tmp_path):
    node = daemon(QUICK)
    tokens = {role: node.call("POST", "/tokens", {"name": role, "role": role}).json["token"] for role in ("viewer", "operator", "restorer", "auditor")}
    for role, token in tokens.items():
        assert node.call("GET", "/audit/key", token=token).status == (200 if role == "auditor" else 403), role
    assert node.call("GET", "/audit/key", token="").status == 401
    told = node.call("GET", "/audit/key", token=tokens["auditor"])
    assert told.headers["content-type"] == "application/pem-certificate-chain" and told.raw == (state(node) / "audit.pem").read_bytes()
    assert node.call("GET", "/audit/key", headers=[f"If-None-Match: {told.headers['etag']}"]).status == 304
    pinned = tmp_path / "pinned.pem"
    pinned.write_bytes(told.raw)
    shown = subprocess.run(["openssl", "x509", "-in", pinned, "-noout", "-fingerprint", "-sha256"], check=True, capture_output=True, text=True).stdout
    assert shown.partition("=")[2].strip() in node.words(), "the log of the first start has it"
    sealed(node)
    assert verify(tmp_path, trail(node, seals=True), "--key", pinned)[0] == 0
    node.stop()
    node.start()
    assert node.call("GET", "/audit/key").raw == told.raw
    node.stop()  # who has root begins anew, with a key of his own and a trail that only that one has sealed
    for name in ("pki/audit.key", "pki/audit.seal", "audit.pem", "audit.seal"):
        (state(node) / name).unlink()
    with store(node) as database:
        database.execute("DELETE FROM seals")
    database.close()
    node.start()
    change(node)
    sealed(node)
    other = tmp_path / "other.pem"
    other.write_bytes(node.call("GET", "/audit/key").raw)
    lines = trail(node, seals=True)
    assert other.read_bytes() != told.raw and verify(tmp_path, lines, "--key", other)[0] == 0, "who asks anew believes it"
    status, said = verify(tmp_path, lines, "--key", pinned)
    assert status == 1 and "BROKEN" in said, said


def test_a_seal_can_be_verified_by_hand(sound, tmp_path):
    """As docs/audit.md says it."""
    kept, lines = sound
    seal = json.loads(lines[-1])
    before = seal["previous"] or {"seal": 0, "hash": "none"}
    text = (f"quiesced audit seal 1\ninstallation {seal['installation']}\nrecord {seal['seal']} {seal['hash']}\n"
            f"previous {before['seal']} {before['hash']}\ntime {seal['time']}\n")
    (tmp_path / "text").write_text(text)
    (tmp_path / "signature").write_bytes(base64.b64decode(seal["signature"]))
    (tmp_path / "public.pem").write_bytes(subprocess.run(["openssl", "x509", "-in", kept / "audit.pem", "-pubkey", "-noout"], check=True, capture_output=True).stdout)
    done = subprocess.run(["openssl", "dgst", "-sha256", "-verify", tmp_path / "public.pem", "-signature", tmp_path / "signature", tmp_path / "text"], capture_output=True)
    assert done.returncode == 0, done


def seals_at(lines):
    return [number for number, line in enumerate(lines) if line.startswith('{"seal"')]


def records_of(lines):
    return [line for line in lines if not line.startswith('{"seal"')]


def forged(lines):
    """The same trail with another principal in its first record, hashed anew to the end; every seal at its place."""
    fresh = iter(rehash([line.replace('"principal":"admin"', '"principal":"nobody"') if not number else line for number, line in enumerate(records_of(lines))]))
    return [line if line.startswith('{"seal"') else next(fresh) for line in lines]


def change_member(line, name, value):
    return json.dumps({**json.loads(line), name: value}, separators=(",", ":"))


def cut(lines):
    """The last two records are gone, the last seal is not."""
    gone = [number for number, line in enumerate(lines) if not line.startswith('{"seal"')][-2:]
    return [line for number, line in enumerate(lines) if number not in gone]


def swap(lines):
    first, second = seals_at(lines)[0], seals_at(lines)[-1]
    made = list(lines)
    made[first], made[second] = made[second], made[first]
    return made


def other_signature(lines):
    first = json.loads(lines[seals_at(lines)[0]])
    return lines[:-1] + [change_member(lines[-1], "signature", first["signature"])]


TAMPERED = [
    ("a record is edited", lambda lines: [lines[0].replace('"principal":"admin"', '"principal":"nobody"'), *lines[1:]], r"record 1 was edited"),
    ("rewritten, the seals left", forged, r"record \d+ is another one than was sealed: the trail was written anew"),
    ("rewritten, the early seals dropped", lambda lines: [line for number, line in enumerate(forged(lines)) if number not in seals_at(lines)[:-1]],
     r"record \d+ is another one than was sealed"),
    ("the end is cut", cut, r"the seal of record \d+ comes after record \d+: [12] records were cut off"),
    ("seals are swapped", swap, r"the seal of record \d+ comes after record \d+"),
    ("a seal is put elsewhere", lambda lines: lines[:seals_at(lines)[0]] + lines[seals_at(lines)[0] + 1:seals_at(lines)[0] + 2] + [lines[seals_at(lines)[0]]]
     + lines[seals_at(lines)[0] + 2:], r"the seal of record \d+ comes after record \d+: it was put elsewhere"),
    ("a seal has another one's signature", other_signature, r"the seal of record \d+ does not hold: its signature"),
    ("a seal is of another time", lambda lines: lines[:-1] + [change_member(lines[-1], "time", "2020-01-01T00:00:00.000Z")], r"the seal of record \d+ does not hold: its signature"),
    ("a seal is of another installation", lambda lines: lines[:-1] + [change_member(lines[-1], "installation", "01900000-0000-7000-8000-000000000000")],
     r"the seal of record \d+ does not hold"),
    ("a seal is none", lambda lines: [*lines, '{"seal":"x"}'], r"this is no seal"),
]


@pytest.mark.parametrize("how, words", [row[1:] for row in TAMPERED], ids=[row[0] for row in TAMPERED])
@pytest.mark.parametrize("trusted", [["--key", "audit.pem"], ["--ca", "ca.pem"]], ids=["key", "ca"])
def test_tampering_is_named(sound, tmp_path, how, words, trusted):
    kept, lines = sound
    status, said = verify(tmp_path, how(lines), trusted[0], kept / trusted[1])
    assert status == 1 and re.match(r"BROKEN at line \d+: " + words, said), said


def test_a_trail_without_seals_is_not_called_good(sound, tmp_path):
    """Rewritten, and every seal dropped: the chain holds in itself."""
    kept, lines = sound
    status, said = verify(tmp_path, records_of(forged(lines)), "--key", kept / "audit.pem")
    assert status == 1 and said.startswith("UNSEALED: "), said
    assert verify(tmp_path, records_of(forged(lines)))[0] == 0, "the chain alone has no key"


def test_an_end_that_was_cut_with_its_seal_is_found_by_the_copy_of_the_last_seal(sound, tmp_path):
    kept, lines = sound
    shorter = lines[:seals_at(lines)[0] + 1]
    assert verify(tmp_path, shorter, "--key", kept / "audit.pem")[0] == 0, "by itself it looks like a trail of before"
    status, said = verify(tmp_path, shorter, "--key", kept / "audit.pem", "--seal", kept / "audit.seal")
    assert status == 1 and re.search(r"the trail ends with record \d+, and record \d+ was sealed: its end was cut off", said), said
    status, said = verify(tmp_path, records_of(forged(lines)), "--ca", kept / "ca.pem", "--seal", kept / "audit.seal")
    assert status == 1 and "is another one than was sealed" in said, said


def test_somebody_elses_key_seals_nothing(sound, tmp_path):
    kept, lines = sound
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "installation").write_text(json.loads(lines[-1])["installation"])
    assert subprocess.run([BUILD / "quiesced", "--role=signer", "--state-dir", tmp_path / "other"], capture_output=True).returncode == 0
    made = signer(tmp_path / "other", len(records_of(lines)), json.loads(lines[-1])["hash"])["seal"]
    status, said = verify(tmp_path, [*lines[:-1], json.dumps(made)], "--key", kept / "audit.pem")
    assert status == 1 and "does not hold" in said, said
    status, said = verify(tmp_path, [*lines[:-1], json.dumps(made)], "--ca", kept / "ca.pem")
    assert status == 1 and "not one that the CA of --ca has issued" in said, said


def test_wrong_files_are_no_verdict(sound, tmp_path):
    kept, lines = sound
    (tmp_path / "trail").write_text("\n".join(lines) + "\n")
    for options in (["--key", tmp_path / "none"], ["--key", kept / "audit.seal"], ["--ca", tmp_path / "none"], ["--seal", tmp_path / "none"], ["--seal", kept / "ca.pem"], ["--what", "x"]):
        done = subprocess.run([BUILD / "quiesced", "audit-verify", *options, tmp_path / "trail"], capture_output=True, text=True)
        assert done.returncode == 2 and done.stderr, (options, done)


def test_a_chain_that_was_written_anew_gets_no_second_seal(daemon, tmp_path):
    """The whole store is the attacker's: the trail is rewritten, its seals are gone. The signer remembers, and so the next seal tells."""
    node = daemon(QUICK)
    change(node, 3)
    before = sealed(node)
    node.stop()
    kept = json.loads((state(node) / "audit.seal").read_text())
    assert kept == json.loads((state(node) / "pki" / "audit.seal").read_text()) and kept["seal"] >= before["seal"]
    base = store(node)
    rows = base.execute("SELECT id, doc FROM audit ORDER BY id").fetchall()
    fresh = rehash([doc.replace('"label":"session 0"', '"label":"session 7"') for _, doc in rows])
    assert fresh != [doc for _, doc in rows]
    base.executemany("UPDATE audit SET doc = ? WHERE id = ?", [(doc, name) for (name, _), doc in zip(rows, fresh)])
    base.execute("DELETE FROM seals")
    base.commit()
    base.close()
    assert signer(state(node), kept["seal"], json.loads(fresh[-1])["hash"])["error"]["reason"] == "seal_behind"
    assert signer(state(node), kept["seal"] - 1, kept["hash"])["error"]["reason"] == "seal_behind"
    node.start()
    warnings = receiver.until(lambda: node.call("GET", "/health/ready").json["warnings"])
    assert len(warnings) == 1 and "the audit trail is not sealed" in warnings[0] and "was sealed already" in warnings[0], warnings
    assert verify(tmp_path, trail(node, seals=True))[0] == 0, "the chain alone is as it should be"
    status, said = verify(tmp_path, trail(node, seals=True), "--key", state(node) / "audit.pem", "--seal", state(node) / "audit.seal")
    assert status == 1 and "is another one than was sealed" in said, said
    change(node)
    receiver.until(lambda: last_seal(node))
    status, said = verify(tmp_path, trail(node, seals=True), "--key", state(node) / "audit.pem")
    assert status == 1 and re.search(r"the seal of record \d+ knows another record \d+, which was sealed before: the trail was written anew", said), said


def test_the_end_and_the_start_seal_what_has_no_seal_yet(daemon, tmp_path):
    node = daemon()
    change(node, 2)
    assert node.call("GET", "/audit?limit=1").json["last_seal"] is None
    assert node.stop() == 0
    kept = json.loads((state(node) / "audit.seal").read_text())
    rows = store(node).execute("SELECT (SELECT max(id) FROM audit), (SELECT max(id) FROM seals)").fetchone()
    assert int(rows[0]) == int(rows[1]) == kept["seal"] == 4
    node.start()
    change(node)
    number = head(node)
    node.process.kill()  # nobody seals at such an end
    node.process.wait()
    node.start()
    receiver.until(lambda: (last_seal(node) or {"seal": 0})["seal"] >= number)
    status, said = verify(tmp_path, trail(node, seals=True), "--key", state(node) / "audit.pem", "--seal", state(node) / "audit.seal")
    assert status == 0 and "seals that hold: 2," in said, said


def test_by_the_number_of_records(daemon):
    node = daemon("audit: {seal_records: 4}\n")
    change(node)
    assert last_seal(node) is None
    change(node)
    receiver.until(lambda: last_seal(node))


def test_a_signer_that_fails_harms_no_request_and_is_told_once(daemon, tmp_path):
    node = daemon(QUICK)
    (node.faults / "signer.seal").write_text("fail")
    change(node, 2)
    warnings = receiver.until(lambda: node.call("GET", "/health/ready").json["warnings"])
    assert len(warnings) == 1 and re.match(r"the audit trail is not sealed, \d+ records since the last seal: audit trail: fault injected", warnings[0]), warnings
    receiver.until(lambda: metrics.scrape(node).value("quiesced_audit_seal_failures_total") >= 2)
    assert metrics.scrape(node).value("quiesced_audit_unsealed_records") == head(node)
    change(node)
    assert node.words().count("the audit trail could not be sealed") == 1
    (node.faults / "signer.seal").unlink()
    seal = sealed(node)
    assert node.call("GET", "/health/ready").json["warnings"] == []
    scraped = metrics.scrape(node)
    assert scraped.value("quiesced_audit_unsealed_records") == 0 and scraped.value("quiesced_audit_sealed_records") == seal["seal"]
    words = node.words()
    assert words.count("the audit trail could not be sealed") == 1 and words.count("the audit trail is sealed again") == 1
    assert verify(tmp_path, trail(node, seals=True), "--key", state(node) / "audit.pem")[0] == 0


@pytest.mark.parametrize("point", ["signer.seal", "signer.sealed"])
def test_a_signer_that_dies(daemon, tmp_path, point):
    """Behind its memory of a seal, too: the number is used up, and its seal comes again for the same record."""
    node = daemon(QUICK)
    (node.faults / point).write_text("once crash")
    change(node, 2)
    seal = sealed(node)
    assert leftovers.hits(node, point)
    assert verify(tmp_path, trail(node, seals=True), "--key", state(node) / "audit.pem")[0] == 0
    assert seal == json.loads((state(node) / "audit.seal").read_text())


def test_a_signer_that_hangs_holds_up_nobody(daemon):
    node = daemon(QUICK)
    (node.faults / "signer.seal").write_text("pause")
    change(node, 2)
    receiver.until(lambda: leftovers.hits(node, "signer.seal"))
    change(node, 2)
    (node.faults / "signer.seal").unlink()
    sealed(node)


def test_a_store_that_refuses_the_seal_gets_it_later(daemon, tmp_path):
    node = daemon(QUICK)
    (node.faults / "signer.sealed").write_text("pause")
    change(node)
    receiver.until(lambda: leftovers.hits(node, "signer.sealed"))
    (node.faults / "store.commit").write_text("fail")
    (node.faults / "signer.sealed").unlink()
    receiver.until(lambda: node.call("GET", "/health/ready", check=False).json["warnings"])
    (node.faults / "store.commit").unlink()
    sealed(node)
    assert verify(tmp_path, trail(node, seals=True), "--key", state(node) / "audit.pem")[0] == 0


def test_pages_carry_each_seal_once(daemon, tmp_path):
    node = daemon(QUICK)
    for _ in range(3):
        change(node, 2)
        sealed(node)
    lines = trail(node, seals=True, limit=1)
    assert lines == trail(node, seals=True, limit=500)
    numbers = [json.loads(line)["seal"] for line in lines if line.startswith('{"seal"')]
    assert len(numbers) == len(set(numbers)) >= 3 and verify(tmp_path, lines, "--key", state(node) / "audit.pem")[0] == 0
    filtered = node.call("GET", "/audit?format=ndjson&principal=admin").raw.decode()
    assert '"seq":1,' in filtered and '"seal":' not in filtered


def test_nothing_is_sealed_while_something_is_frozen(make_fs, daemon):  # noqa: F811
    """What was recorded during the hold has its seal after the thaw, whatever the interval."""
    fs = make_fs()
    node = daemon(configuration(daemon.place, freeze_seconds=8, more=QUICK))
    session, _ = prepared(node, fs.path)
    job = held(node, session)
    change(node)
    during = head(node)
    assert node.call("GET", session).json["hold"], "the hold has not outlasted what was recorded in it"
    assert node.wait(job)["state"] == "failed", "nobody has released it"
    receiver.until(lambda: (last_seal(node) or {"seal": 0})["seal"] >= during)
    thawed = [json.loads(line.removeprefix("data: ")) for line in node.call("GET", "/events?after=0&follow=false&types=session.thawed").raw.decode().splitlines()
              if line.startswith("data: ")]
    first = next(seal for seal in map(json.loads, trail(node, seals=True)) if seal.get("seal", 0) >= during)
    assert len(thawed) == 1 and first["time"] >= thawed[0]["data"]["until"], (first, thawed)


def test_a_signer_that_hangs_holds_up_no_thaw(make_fs, daemon):  # noqa: F811
    fs = make_fs()
    node = daemon(configuration(daemon.place, more=QUICK))
    (node.faults / "signer.seal").write_text("pause")
    change(node)
    receiver.until(lambda: leftovers.hits(node, "signer.seal"))
    session, _ = prepared(node, fs.path)
    held(node, session)
    reply = node.call("POST", session + "/snapshot-set/release", {"outside_id": "x"})
    assert reply.status == 200 and reply.json["state"] == "succeeded", reply
    (node.faults / "signer.seal").unlink()
    sealed(node)
