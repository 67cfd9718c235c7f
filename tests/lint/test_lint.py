"""openapi.yaml under Redocly CLI and Spectral, in the versions that package-lock.json pins, run by the Node that it pins too."""
import os
import pathlib
import sys

import pytest

SOURCE = pathlib.Path(os.environ.get("QUIESCED_SOURCE", pathlib.Path(__file__).resolve().parents[2]))
HERE = SOURCE / "tests" / "lint"
QUIET = {"REDOCLY_TELEMETRY": "off", "REDOCLY_SUPPRESS_UPDATE_NOTICE": "true"}
sys.path.insert(0, str(SOURCE / "tests"))
import npm  # noqa: E402


@pytest.fixture(scope="session")
def modules():
    return npm.installed(HERE)


def node(modules, script, *arguments):
    return npm.node(modules, modules / script, *arguments, cwd=HERE, environment=QUIET)


def redocly(modules, contract):
    return node(modules, "@redocly/cli/bin/cli.js", "lint", "--config", HERE / "redocly.yaml", contract)


def spectral(modules, contract):
    return node(modules, "@stoplight/spectral-cli/dist/index.js", "lint", "--ruleset", HERE / ".spectral.yaml", "--fail-severity", "hint", contract)


LINTERS = pytest.mark.parametrize("lint", [redocly, spectral])


@LINTERS
def test_the_contract_is_clean(modules, lint):
    done = lint(modules, SOURCE / "openapi.yaml")
    assert done.returncode == 0, done.stdout + done.stderr


@LINTERS
@pytest.mark.parametrize("fault", [
    ("#/components/responses/NotFound", "#/components/responses/Nowhere"),  # a reference to nothing
    pytest.param(("      operationId: sessionGet\n", ""), marks=pytest.mark.full),  # a name missing
], ids=["reference", "nameless"])
def test_a_faulty_contract_is_refused(modules, lint, fault, tmp_path):
    """A linter that lets everything through would make the test above worthless."""
    text = (SOURCE / "openapi.yaml").read_text()
    assert fault[0] in text
    (tmp_path / "openapi.yaml").write_text(text.replace(*fault, 1))
    assert lint(modules, tmp_path / "openapi.yaml").returncode == 1
