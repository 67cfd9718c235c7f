"""What restic and borg complain of reaches people as: whose, why, what to do; and the program's own line beside it."""
import http.server
import re
import shutil
import ssl
import subprocess
import threading

import pytest

import conftest
from conftest import ROOT

REFUSED = {"restic": "rest:http://127.0.0.1:1/", "borg": "ssh://127.0.0.1/repository"}


def said(ground, code, cause, hint, line, **call):
    error = ground.call("list", **call)["error"]
    assert error["hresult"] == code and re.search(hint, error["hint"]), error
    assert re.fullmatch(rf"repository r: {cause} \({ground.kind}: .*{line}.*; exit status \d+\)", error["detail"]), error
    assert "Fatal" not in error["detail"], error
    return error


@pytest.fixture(params=["restic", "borg"])
def ground(request):
    return request.getfixturevalue(f"{request.param}_ground")


def test_a_wrong_password(ground):
    ground.run()
    ground.password.write_text("wrong")
    said(ground, "E_ACCESSDENIED", "the password does not open it", "password_file", "passphrase supplied" if ground.kind == "borg" else "wrong password or no key found")


def test_no_repository(ground):
    ground.run()
    shutil.move(ground.path, ground.path.with_name("elsewhere"))
    said(ground, "VSS_E_OBJECT_NOT_FOUND", "there is no repository", "disk mounted", "does not exist" if ground.kind == "borg" else "config")


def test_nobody_answers(ground):
    rsh = ground.place / "rsh"
    rsh.write_text("#!/bin/sh\necho 'ssh: connect to host 127.0.0.1 port 22: Connection refused' >&2\nsleep 0.5 # borg reads it\nexit 255\n")
    rsh.chmod(0o755)
    ground.more.update({"url": REFUSED[ground.kind]} if ground.kind == "restic" else {"url": REFUSED["borg"], "path": None, "rsh": str(rsh)})
    error = said(ground, "VSS_E_UNEXPECTED", "its (?:server|host) does not answer", "try again", "onnection refused")
    assert error["reason"] == "repository_unreachable"


def test_a_certificate_that_nobody_has_signed(restic_ground, tmp_path):
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1",
                    "-keyout", tmp_path / "key", "-out", tmp_path / "cert"], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert", tmp_path / "key")

    class Empty(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self):
            self.send_error(404)
        do_GET = do_HEAD

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Empty)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        restic_ground.more.update(url=f"rest:https://127.0.0.1:{server.server_port}/")
        said(restic_ground, "E_ACCESSDENIED", "the certificate of its server is not trusted", "SSL_CERT_FILE", "x509: certificate signed by unknown authority")
        restic_ground.more.update(environment={"SSL_CERT_FILE": str(tmp_path / "cert")})  # what the hint advises
        assert "x509" not in str(restic_ground.call("list").get("error"))
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


BORG = '{"type":"log_message","levelname":"ERROR","message":"%s","msgid":"%s"}'
WORDS = [  # what the programs say, as they say it
    ("restic", "unable to create lock in backend: repository is already locked exclusively by PID 7 on host by root (UID 0, GID 0)", "VSS_E_VOLUME_IN_USE", "it is locked", "restic unlock"),
    ("restic", "Fatal: unable to save snapshot: write /r/data/x: no space left on device", "VSS_E_INSUFFICIENT_STORAGE", "its disk is full", "Make room"),
    ("restic", '{"message_type":"exit_error","code":12,"message":"wrong password or no key found"}', "E_ACCESSDENIED", "the password does not open it", "password_file"),
    ("restic", "Fatal: unable to open config file: Head http://h/config: dial tcp: lookup h: no such host", "VSS_E_UNEXPECTED", "the name of its server is not known", "try again"),
    ("restic", "Fatal: unable to open config file: unexpected HTTP response (401): 401 Unauthorized", "E_ACCESSDENIED", "its server refuses the user or the password", "url_file"),
    ("restic", "Fatal: unable to open config file: unexpected HTTP response (500): 500 Internal Server Error\nIs there a repository at the following location?\nrest:http://h/", "VSS_E_UNEXPECTED",
     "its server fails", "try again"),
    ("borg", BORG % ("Failed to create/acquire the lock /r/lock.exclusive (timeout).", "LockTimeout"), "VSS_E_VOLUME_IN_USE", "it is locked", "borg break-lock"),
    ("borg", BORG % ("Insufficient free space to complete transaction (required: 1 GB, available: 1 MB).", "Repository.InsufficientFreeSpaceError"), "VSS_E_INSUFFICIENT_STORAGE", "its disk is full", "Make room"),
    ("borg", "Host key verification failed.\n" + BORG % ("Connection closed by remote host. Is borg working on the server?", "ConnectionClosedWithHint"), "E_ACCESSDENIED",
     "the key of its host is not known, or not the one that it was", "known_hosts"),
    ("borg", "u@h: Permission denied (publickey).\n" + BORG % ("Connection closed by remote host.", "ConnectionClosedWithHint"), "E_ACCESSDENIED", "its host refuses the key of ssh", "ssh -i"),
    ("borg", BORG % ("Connection closed by remote host.", "ConnectionClosed"), "VSS_E_UNEXPECTED", "the connection to its host broke off", "try again"),
]


@pytest.fixture
def says(tmp_path, monkeypatch):
    """says(kind, words): from now on the program fails with these words."""
    def put(kind, words):
        (tmp_path / "words").write_text(words + "\n")
        fake = tmp_path / "fake"
        fake.write_text(f"#!/bin/sh\ncat {tmp_path}/words >&2\nexit 2\n")
        fake.chmod(0o755)
        binary = tmp_path / "bin" / "quiesced-agent"
        binary.parent.mkdir()
        binary.write_text(f'#!/bin/sh\nexec unshare -m sh -c \'mount --bind {fake} "$(command -v {kind})" && exec {real}/quiesced-agent "$@"\' sh "$@"\n')
        binary.chmod(0o755)
        monkeypatch.setattr(conftest, "BUILD", binary.parent)
    if not ROOT:
        pytest.skip("puts another program in the place of the real one, which needs mounts")
    real = conftest.BUILD
    return put


@pytest.mark.parametrize("kind,words,code,cause,hint", WORDS, ids=[f"{kind}: {cause}" for kind, _, _, cause, _ in WORDS])
def test_what_is_said_is_understood(request, says, kind, words, code, cause, hint):
    ground = request.getfixturevalue(f"{kind}_ground")
    assert "result" in ground.run()
    says(kind, words)
    said(ground, code, re.escape(cause), re.escape(hint), "")


def test_what_is_not_known_is_told_as_it_is(restic_ground, says):
    assert "result" in restic_ground.run()
    says("restic", "something else\nof two lines")
    error = restic_ground.call("list")["error"]
    assert error["detail"] == "repository r: restic: something else;of two lines (exit status 2)" and error["hint"], error


# --- passwords that an address holds ---

@pytest.mark.parametrize("letter", ["/", " ", '"', "%zz", "#", "?", "@", "/@", ":"])
def test_no_part_of_a_password_in_an_address_is_told(restic_ground, letter):
    """restic quotes the whole of an address that it cannot read, and then the piece that it stumbles over."""
    (restic_ground.place / "url").write_text(f"rest:http://user:sesame{letter}opens@127.0.0.1:1/")
    restic_ground.more.update(url=None, url_file=str(restic_ground.place / "url"))
    error = restic_ground.call("list")["error"]
    assert error["reason"] == "repository_unreachable" and not re.search("sesame|opens", str(error)), error
    if letter not in ("@", ":"):  # these two may stand there
        assert error["detail"] == "repository r: its address cannot be read (restic: exit status 1)" and "url_file" in error["hint"], error


@pytest.mark.parametrize("words, detail", [
    ('Fatal: cannot do it: Head "http://user:sesame/opens@h/config": something new', 'restic: Fatal: cannot do it: Head "http://user:************@h/config": something new (exit status 2)'),
    ('at http://user:sesame opens@sesame"opens@h/\nof http://h/', "restic: at http://user:*************************@h/;of http://h/ (exit status 2)"),
    ('{"message_type":"exit_error","code":1,"message":"Fatal: parse \\"http://user:sesame#opens@h/\\": invalid port \\":sesame\\" after host"}',
     "its address cannot be read (restic: exit status 2)"),
    ("no way: http://user:already locked@h/", "it is locked (restic: no way: http://user:**************@h/; exit status 2)"),  # found by what is hidden then
], ids=["until the host", "to the last of the line", "JSON", "the known words are in the password"])
def test_what_is_told_of_an_address_is_without_its_password(restic_ground, says, words, detail):
    assert "result" in restic_ground.run()
    says("restic", words)
    error = restic_ground.call("list")["error"]
    assert error["detail"] == f"repository r: {detail}", error
