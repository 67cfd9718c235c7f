"""The checker itself, and the contract's own rules: a checker that lets everything through would make every other test worthless."""
import json
import os
import pathlib
import shutil
import subprocess
import sys

import pytest

SOURCE = pathlib.Path(os.environ.get("QUIESCED_SOURCE", pathlib.Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(SOURCE / "tests" / "api"))
from contract import Contract  # noqa: E402

CONTRACT = Contract(SOURCE / "openapi.yaml")
SCHEMAS = CONTRACT.document["components"]["schemas"]
ID = "0197b0c2-7c1e-7d10-9d0b-5a0f6a1a2b3c"
HEAD = {"X-Request-Id": "r1", "Content-Type": "application/json"}
ACCEPTED = {**HEAD, "Location": f"/jobs/{ID}", "Retry-After": "1"}


def problem(status, **more):
    body = {**SCHEMAS["Problem"]["example"], "status": status, "request_id": "r1", **more}
    return {"X-Request-Id": "r1", "Content-Type": "application/problem+json"}, json.dumps(body).encode()


def job(**more):
    return json.dumps({**SCHEMAS["Job"]["example"], **more}).encode()


def test_replies_of_the_contract_pass():
    CONTRACT.check("GET", f"/sessions/{ID}", 200, HEAD, json.dumps(SCHEMAS["Session"]["example"]).encode())
    CONTRACT.check("HEAD", f"/sessions/{ID}", 200, HEAD, b"")
    CONTRACT.check("POST", f"/sessions/{ID}/complete", 202, ACCEPTED, job(), b"{}")
    CONTRACT.check("POST", f"/jobs/{ID}/release", 204, {"X-Request-Id": "r1"}, b"")
    CONTRACT.check("GET", "/nowhere", 404, *problem(404))
    CONTRACT.check("OPTIONS", "/jobs", 204, {"Allow": "GET, HEAD, OPTIONS"}, b"")
    head, body = problem(405)
    CONTRACT.check("PUT", "/jobs", 405, {**head, "Allow": "OPTIONS, GET, HEAD"}, body)


@pytest.mark.parametrize("call", [
    ("POST", f"/sessions/{ID}/complete", 200, ACCEPTED, job()),                                # a status that is not there
    ("POST", f"/sessions/{ID}/complete", 202, {**ACCEPTED, "Retry-After": "soon"}, job()),     # a header off its schema
    ("POST", f"/sessions/{ID}/complete", 202, HEAD, job()),                                    # required headers missing
    ("POST", f"/sessions/{ID}/complete", 202, {**ACCEPTED, "Content-Type": "text/html"}, job()),
    ("POST", f"/sessions/{ID}/complete", 202, ACCEPTED, job(state="done")),                    # a value that is not there
    ("POST", f"/sessions/{ID}/complete", 202, ACCEPTED, job(), b'{"force": true}'),            # a success for a wrong request
    ("GET", f"/jobs/{ID}", 200, HEAD, b'{"id": "x"}'),                                         # members missing
    ("GET", f"/jobs/{ID}", 404, *problem(409)),                                                # two different statuses
    ("GET", f"/jobs/{ID}", 404, *problem(404, request_id="r2")),
    ("GET", f"/jobs/{ID}", 404, *problem(404, hresult="VSS_E_NONE")),
    ("POST", f"/jobs/{ID}/release", 204, {"X-Request-Id": "r1"}, b"{}"),                       # a body where none belongs
    ("GET", "/nowhere", 200, HEAD, b"{}"),
    ("PUT", "/jobs", 405, *problem(405)),                                                      # without Allow
    ("OPTIONS", "/jobs", 204, {"Allow": "GET"}, b""),
])
def test_anything_else_does_not(call):
    with pytest.raises(AssertionError):
        CONTRACT.check(*call)


@pytest.mark.parametrize("old, new, complaint", [
    ("label: {type: string, maxLength: 256}", "label: {type: string, maxLength: 256, pattern: x}", "cannot be checked"),
    ("label: {type: string, maxLength: 256}", "label: {type: string}", "without maxLength"),
    ("x-role: operator", "x-role: king", "needs x-role"),
    ("x-error-codes: [E_INVALIDARG,", "x-error-codes: [E_NONE,", "not in hresult.def"),
    ("operationId: sessionList", "operationId: sessionCreate", "used twice"),
    ("x-max-body: 524288", "x-max: 1", "needs x-max-body"),
    ("      additionalProperties: false\n", "", "without additionalProperties"),
    ("x-error-codes: [E_INVALIDARG, E_ACCESSDENIED, E_NOTIMPL]", "x-error-codes: [E_INVALIDARG]", "neither succeeds nor answers E_NOTIMPL"),
])
def test_the_generator_refuses_what_the_daemon_could_not_check(tmp_path, old, new, complaint):
    text = (SOURCE / "openapi.yaml").read_text()
    assert old in text
    (tmp_path / "openapi.yaml").write_text(text.replace(old, new, 1))
    (tmp_path / "daemon" / "base").mkdir(parents=True)
    shutil.copy(SOURCE / "daemon" / "base" / "hresult.def", tmp_path / "daemon" / "base")
    run = subprocess.run(["/usr/bin/python3", SOURCE / "scripts" / "generate-api.py", "--openapi", tmp_path / "openapi.yaml", "--out",
                          tmp_path / "out"], capture_output=True, text=True)
    assert run.returncode != 0 and complaint in run.stderr, run.stderr
