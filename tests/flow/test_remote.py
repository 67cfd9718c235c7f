"""Remote use: curl in another network namespace drives a whole session by host name, over IPv4 and over IPv6, and verifies the certificate."""
import contextlib
import hashlib
import os
import pathlib
import random
import re
import shutil
import subprocess
import time

import pytest

import journey

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")
HOST, CONFIGURED, WRONG = "backup1.example.org", "backup2.example.org", "elsewhere.example.org"
REFUSED_BY_CURL, NO_ANSWER = 60, (35, 55, 56)  # curl's exit codes: the peer's certificate does not verify; the peer ended the handshake
TOKEN = "qsd1_" + "remote-test" * 4


def run(*argv, check=True, **more):
    done = subprocess.run([str(word) for word in argv], capture_output=True, text=True, **more)
    assert done.returncode == 0 or not check, (argv, done.stdout, done.stderr)
    return done


class Network:
    """This host's end of a cable, and another host at the other end that knows us by name."""

    def __init__(self):
        for _ in range(20):  # addresses of RFC 2544, kept for tests; another run on this machine may have drawn the same
            self.number = random.randrange(1 << 14)
            self.name = f"qsd{self.number}"
            if run("ip", "netns", "add", self.name, check=False).returncode == 0:
                break
        third, fourth = divmod(self.number * 4, 256)
        net4, net6 = f"198.18.{third}." if third < 256 else f"198.19.{third - 256}.", f"fd00:{self.number:x}::"
        self.v4, self.v6 = f"{net4}{fourth + 1}", f"{net6}1"
        self.hosts = pathlib.Path("/etc/netns") / self.name
        try:
            run("ip", "link", "add", self.name, "type", "veth", "peer", "name", "eth0", "netns", self.name)
            for where, tail4, tail6, link in ((("ip",), fourth + 1, 1, self.name), (("ip", "-n", self.name), fourth + 2, 2, "eth0")):
                run(*where, "addr", "add", f"{net4}{tail4}/30", "dev", link)
                run(*where, "addr", "add", f"{net6}{tail6}/64", "dev", link, "nodad")
                run(*where, "link", "set", link, "up")
            self.hosts.mkdir(parents=True)
            (self.hosts / "hosts").write_text("".join(f"{address} {HOST} {CONFIGURED} {WRONG}\n" for address in (self.v4, self.v6)))
        except BaseException:
            self.remove()
            raise

    def inside(self, *argv):
        return ("ip", "netns", "exec", self.name, *argv)

    def remove(self):
        run("ip", "netns", "del", self.name, check=False)
        run("ip", "link", "del", self.name, check=False)  # usually gone with its peer
        shutil.rmtree(self.hosts, ignore_errors=True)
        with contextlib.suppress(OSError):  # not ours alone
            self.hosts.parent.rmdir()


@pytest.fixture
def network():
    one = Network()
    yield one
    one.remove()


def serve(daemon, network, tls, more=""):
    """A daemon on both addresses; its ports by family."""
    node = daemon(journey.lay_out(daemon.place) + f"tls: {tls}\n" + more,
                  options=("--listen", f"{network.v4}:0", "--listen", f"[{network.v6}]:0"))
    node.client = network.inside()
    deadline = time.monotonic() + 60
    while not (words := re.search(r"^quiesced serves .*\n", node.words(), re.M)):  # comes behind the ready file
        assert time.monotonic() < deadline, node.words()
        time.sleep(0.02)
    words = words.group(0)
    node.ports = {"-4": re.search(re.escape(network.v4) + r":(\d+)", words).group(1), "-6": re.search(r"\]:(\d+)", words).group(1)}
    return node


def use(node, family, host, **credentials):
    node.curl = (family,)
    node.ready.update(url=f"https://{host}:{node.ports[family]}", **credentials)


def bare(node, *arguments):
    """curl without the credentials of the ready file: its exit code and the reply's status (000: none came)."""
    done = run(*node.client, "curl", *node.curl, "-s", "-o", "/dev/null", "-w", "%{http_code}", *arguments, node.ready["url"] + "/whoami", check=False)
    return done.returncode, done.stdout


class Authority:
    """A CA as an organisation has one."""

    def __init__(self, place, name):
        self.place, self.name = place, name
        place.mkdir(exist_ok=True)
        self.pem, self.key = place / f"{name}.pem", place / f"{name}.key"
        run("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={name}", "-keyout", self.key, "-out", self.pem,
            "-addext", "keyUsage=critical,keyCertSign", "-addext", "basicConstraints=critical,CA:TRUE")

    def issue(self, common_name, usage):
        key, request, pem = (self.place / f"{common_name}.{end}" for end in ("key", "csr", "pem"))
        extensions = self.place / f"{common_name}.ext"
        extensions.write_text(f"subjectAltName=DNS:{common_name}\nextendedKeyUsage={usage}\nkeyUsage=digitalSignature,keyEncipherment\n")
        run("openssl", "req", "-new", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={common_name}", "-keyout", key, "-out", request)
        run("openssl", "x509", "-req", "-in", request, "-CA", self.pem, "-CAkey", self.key, "-CAcreateserial", "-days", "2", "-extfile", extensions, "-out", pem)
        return str(pem), str(key)


def test_the_private_ca_serves_the_host_by_name_and_address(daemon, network):
    node = serve(daemon, network, f"{{hostnames: [{HOST}]}}")
    use(node, "-4", HOST)
    backup = journey.back_up(node)
    use(node, "-6", HOST)
    journey.restore(node, backup)
    journey.restore(node, journey.back_up(node))
    for family, address in (("-4", network.v4), ("-6", f"[{network.v6}]")):
        use(node, family, address)
        node.curl += ("-g",)
        assert node.call("GET", "/whoami").json["principal"] == "admin", "the certificate carries every address of the host"


def test_who_may_come_in_from_remote(daemon, network):
    node = serve(daemon, network, f"{{hostnames: [{HOST}]}}")
    token = pathlib.Path(node.ready["token_file"]).read_text().strip()
    ca = ("--cacert", node.ready["ca"])
    stranger = Authority(node.place / "stranger", "stranger")
    for family in ("-4", "-6"):
        use(node, family, HOST)
        assert bare(node, *ca, "-H", f"Authorization: Bearer {token}") == (0, "200"), "no certificate is needed beside a token"
        assert bare(node, *ca) == (0, "401")
        assert bare(node, "--cacert", stranger.pem) == (REFUSED_BY_CURL, "000"), "a server of another CA is not ours"
        certificate, key = stranger.issue("admin", "clientAuth")
        code, status = bare(node, *ca, "--cert", certificate, "--key", key, "-H", f"Authorization: Bearer {token}")
        assert code in NO_ANSWER and status == "000", "a client certificate of a foreign CA never gets as far as HTTP"
        use(node, family, WRONG)
        assert bare(node, *ca, "-H", f"Authorization: Bearer {token}") == (REFUSED_BY_CURL, "000"), "not the name that was asked for"


def test_a_configured_certificate_and_client_ca(daemon, network):
    servers, clients = (Authority(daemon.place / name, name) for name in ("servers", "clients"))
    certificate, key = servers.issue(CONFIGURED, "serverAuth")
    console = clients.issue("console.example.org", "clientAuth")
    unknown = clients.issue("unknown.example.org", "clientAuth")
    principals = f"""principals:
  - {{name: console, role: operator, certificate: console.example.org}}
  - {{name: keeper, role: restorer, token_sha256: {hashlib.sha256(TOKEN.encode()).hexdigest()}}}
"""
    node = serve(daemon, network, f"{{certificate: {certificate}, key: {key}, client_ca: {clients.pem}, hostnames: [{CONFIGURED}]}}", principals)
    own = dict(cert=node.ready["cert"], key=node.ready["key"])
    for family in ("-4", "-6"):
        use(node, family, CONFIGURED, ca=str(servers.pem), cert=console[0], key=console[1])
        assert node.call("GET", "/whoami").json["principal"] == "console"
        backup = journey.back_up(node)
        target = {"target": str(node.place / "restored"), "paths": []}
        assert node.call("POST", f"/backups/{backup}/restore", target).status == 403, "an operator does not restore"
        use(node, family, CONFIGURED, ca=str(servers.pem), **own)
        journey.restore(node, backup)
        assert node.call("GET", "/whoami", token=TOKEN).json["principal"] == "keeper"
        ca = ("--cacert", servers.pem)
        assert bare(node, *ca, "--cert", unknown[0], "--key", unknown[1]) == (0, "401"), "of the right CA, but nobody we know"
        code, status = bare(node, *ca, "--cert", certificate, "--key", key)
        assert code in NO_ANSWER and status == "000", "the server's own CA says nothing about clients"
        use(node, family, WRONG)
        assert bare(node, *ca)[0] == REFUSED_BY_CURL
    handshakes(node, network)


def handshakes(node, network):
    """Old versions and suites without forward secrecy are refused by the server (its alert), not by the client. The key is RSA, so all could be."""
    where = f"{CONFIGURED}:{node.ports['-4']}"

    def handshake(*arguments):
        return run(*network.inside("openssl"), "s_client", "-4", "-connect", where, "-CAfile", node.ready["ca"], "-verify_return_error", *arguments,
                   check=False, input="")

    for good in (("-tls1_3",), ("-tls1_2", "-cipher", "ECDHE-RSA-AES128-GCM-SHA256")):
        assert handshake(*good).returncode == 0, good
    for version in ("-tls1", "-tls1_1"):
        done = handshake(version, "-cipher", "ALL:@SECLEVEL=0")
        assert done.returncode != 0 and "alert protocol version" in done.stderr, (version, done.stderr)
    for suite in ("AES128-GCM-SHA256", "AES256-SHA256", "ECDHE-RSA-AES128-SHA"):
        done = handshake("-tls1_2", "-cipher", f"{suite}:@SECLEVEL=0")
        assert done.returncode != 0 and "handshake failure" in done.stderr, (suite, done.stderr)
