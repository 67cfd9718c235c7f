"""Certificates over time: renewed by themselves, read again, revoked by a list; connections that are open stay open."""
import hashlib
import http.client
import signal
import ssl
import subprocess
import threading
import time
import urllib.parse

import pytest

CONFIG = """[ca]
default_ca = d
[d]
dir = .
database = {place}/index.txt
serial = {place}/serial
crlnumber = {place}/crlnumber
new_certs_dir = {place}
default_md = sha256
default_days = 7
default_crl_days = 7
policy = p
unique_subject = no
[p]
commonName = supplied
[e]
basicConstraints = critical,CA:FALSE
extendedKeyUsage = {usage}
subjectAltName = {names}
"""


def openssl(*arguments):
    return subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True, text=True).stdout


class Authority:
    """A CA of the test's own, or the daemon's, whose key lies in the state directory."""

    def __init__(self, place, certificate=None, key=None):
        place.mkdir()
        self.place, self.certificate, self.key = place, certificate or place / "ca.pem", key or place / "ca.key"
        if certificate is None:
            openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", 7, "-subj", "/CN=company", "-keyout", self.key,
                    "-out", self.certificate, "-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign,cRLSign")
        (place / "index.txt").touch()
        for name in ("serial", "crlnumber"):
            (place / name).write_text("1001\n")

    def ca(self, *arguments, usage="clientAuth", names="DNS:nobody.example"):
        config = self.place / "ca.cnf"
        config.write_text(CONFIG.format(place=self.place, usage=usage, names=names))
        return openssl("ca", "-config", config, "-batch", "-notext", "-cert", self.certificate, "-keyfile", self.key, *arguments)

    def issue(self, name, key=None, dates=(), **more):
        certificate, key, request = self.place / f"{name}.pem", key or self.place / f"{name}.key", self.place / f"{name}.csr"
        if not key.exists():
            openssl("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", key)
        openssl("req", "-new", "-key", key, "-subj", f"/CN={name}", "-out", request)
        self.ca("-extensions", "e", "-in", request, "-out", certificate, *dates, **more)
        return certificate, key

    def crl(self, path):
        self.ca("-gencrl", "-out", path)


class Client:
    """One connection that has to stay the same."""

    def __init__(self, node, certificate=None, key=None):
        context = ssl.create_default_context(cafile=node.ready["ca"])
        context.load_cert_chain(certificate or node.ready["cert"], key or node.ready["key"])
        where = urllib.parse.urlsplit(node.ready["url"])
        self.connection = http.client.HTTPSConnection(where.hostname, where.port, context=context, timeout=60)
        self.connection.connect()
        self.socket = self.connection.sock

    def status(self):
        self.connection.request("GET", "/whoami")
        reply = self.connection.getresponse()
        reply.read()
        assert self.connection.sock is self.socket
        return reply.status

    def served(self):
        return hashlib.sha256(self.socket.getpeercert(binary_form=True)).hexdigest()


def gone(client):
    try:
        client.status()
    except (OSError, http.client.HTTPException):
        return True
    return False


def reload(node):
    before = node.words().count("configuration read again")
    node.process.send_signal(signal.SIGHUP)
    deadline = time.monotonic() + 30
    while node.words().count("configuration read again") == before:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def until(condition):
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_server_certificate_is_renewed_in_time_and_no_connection_feels_it(daemon):
    node = daemon()
    pki = node.place / "state" / "pki"
    names = openssl("x509", "-in", pki / "server.pem", "-noout", "-ext", "subjectAltName").split("\n", 1)[1].strip().replace("IP Address:", "IP:")
    node.stop()
    own = Authority(node.place / "own", pki / "ca.pem", pki / "ca.key")
    now = time.time()
    start, end = (time.strftime("%Y%m%d%H%M%SZ", time.gmtime(moment)) for moment in (now - 60, now + 48))  # two thirds of it are over in 12 s
    own.issue("server", pki / "server.key", ("-startdate", start, "-enddate", end), usage="serverAuth", names=names)
    (pki / "server.pem").write_bytes((own.place / "server.pem").read_bytes())
    node.start()
    held = Client(node)
    first, served = held.served(), None
    while served in (None, first):
        assert time.time() < now + 48, "it has ended and was not renewed"
        fresh = Client(node)
        served = fresh.served()
        assert held.status() == 200 and fresh.status() == 200, "no request fails meanwhile"
        time.sleep(0.1)
    assert held.status() == 200 and held.served() == first
    assert "issued the server certificate" in node.words()


def test_a_revocation_list_is_felt_by_whom_it_names_and_by_nobody_else(daemon):
    company = Authority(daemon.place / "company")
    good, bad = company.issue("good.example"), company.issue("bad.example")
    crl = daemon.place / "clients.crl"
    company.crl(crl)
    rows = "".join(f"  - {{name: {name}, role: viewer, certificate: {name}.example}}\n" for name in ("good", "bad"))
    node = daemon(f"tls: {{client_ca: {company.certificate}, client_crl: {crl}}}\nprincipals:\n{rows}")
    own, stays, goes = Client(node), Client(node, *good), Client(node, *bad)
    assert [client.status() for client in (own, stays, goes)] == [200] * 3, "the private CA needs no list"
    company.ca("-revoke", bad[0])
    company.crl(crl)
    assert goes.status() == 200, "not before it is read"
    reload(node)
    until(lambda: gone(goes))
    until(lambda: gone_at_once(node, bad))
    assert [client.status() for client in (own, stays)] == [200] * 2, "on the same connections"
    assert Client(node, *good).status() == 200 and Client(node).status() == 200
    assert "revoked" in node.words()
    crl.write_text("nonsense")  # leaves the old one in force
    reload(node)
    until(lambda: "client revocation list" in node.words())
    assert gone_at_once(node, bad) and Client(node, *good).status() == 200 and stays.status() == 200


def test_client_authorities_come_and_go_with_a_reload(daemon):
    first, second = Authority(daemon.place / "first"), Authority(daemon.place / "second")
    one, other = first.issue("one.example"), second.issue("other.example")
    trusted = daemon.place / "trusted.pem"
    trusted.write_text(first.certificate.read_text())
    rows = "".join(f"  - {{name: {name}, role: viewer, certificate: {name}.example}}\n" for name in ("one", "other"))
    node = daemon(f"tls: {{client_ca: {trusted}}}\nprincipals:\n{rows}")
    held = Client(node, *one)
    assert held.status() == 200 and gone_at_once(node, other)
    trusted.write_text(first.certificate.read_text() + second.certificate.read_text())
    reload(node)
    until(lambda: not gone_at_once(node, other))
    assert Client(node, *one).status() == 200
    trusted.write_text(second.certificate.read_text())
    reload(node)
    until(lambda: gone_at_once(node, one))
    assert Client(node, *other).status() == 200 and Client(node).status() == 200
    assert held.status() == 200, "what is open stays"


def gone_at_once(node, credential):
    try:
        return gone(Client(node, *credential))
    except OSError:
        return True


def test_a_list_needs_its_authority(daemon):
    with pytest.raises(AssertionError, match="tls.client_crl: needs tls.client_ca"):
        daemon("tls: {client_crl: /nowhere.crl}\n")


class Load:
    """Clients that ask all the while, each on a connection that it keeps and on a new one each time."""

    def __init__(self, node, clients):
        self.node, self.over, self.rounds, self.failures = node, threading.Event(), [0] * clients, []
        self.threads = [threading.Thread(target=self.ask, args=(number,), daemon=True) for number in range(clients)]
        for thread in self.threads:
            thread.start()

    def ask(self, number):
        try:
            kept = Client(self.node)
            while not self.over.is_set():
                fresh = Client(self.node)
                assert kept.status() == 200 and fresh.status() == 200
                fresh.connection.close()
                self.rounds[number] += 1
        except (OSError, http.client.HTTPException, AssertionError) as error:
            self.failures.append(repr(error))

    def end(self):
        self.over.set()
        for thread in self.threads:
            thread.join(120)
        assert self.failures == [] and not any(thread.is_alive() for thread in self.threads)


def reloads(node, count):
    """Under load, reloads with a certificate of the operator's that changes each time; every request on old and new connections is answered."""
    authority = Authority(node.place / "servers")
    both = authority.certificate.read_text() + (node.place / "state" / "ca.pem").read_text()
    (node.place / "both.pem").write_text(both)
    node.ready["ca"] = str(node.place / "both.pem")
    held, seen, load = Client(node), set(), Load(node, 4)
    for number in range(count):
        certificate, key = authority.issue("localhost", usage="serverAuth", names="IP:127.0.0.1")
        (node.place / "server.pem").write_bytes(certificate.read_bytes())
        (node.place / "server.key").write_bytes(key.read_bytes())
        (node.place / "quiesced.yaml").write_text(f"tls: {{certificate: {node.place}/server.pem, key: {node.place}/server.key}}\n")
        before = list(load.rounds)
        node.process.send_signal(signal.SIGHUP)
        want = hashlib.sha256(ssl.PEM_cert_to_DER_cert(certificate.read_text())).hexdigest()
        deadline, served = time.monotonic() + 30, None
        while served != want:
            assert time.monotonic() < deadline, number
            fresh = Client(node)
            served = fresh.served()
            assert fresh.status() == 200 and held.status() == 200, number
        seen.add(served)
        until(lambda: load.failures or all(now > then for now, then in zip(load.rounds, before)))  # each of them has asked since
        assert load.failures == [], number
    load.end()
    assert len(seen) == count and held.status() == 200


def test_each_reload_serves_the_new_certificate_and_fails_no_request(daemon):
    reloads(daemon(), 5)


@pytest.mark.full
def test_a_hundred_reloads_fail_no_request(daemon):
    reloads(daemon(), 100)
