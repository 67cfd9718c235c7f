"""The packages, built once, and one machine to install them on."""
import os
import pathlib
import subprocess
import sys
import tempfile

import pytest

HERE = pathlib.Path(__file__).resolve().parent
SOURCE = pathlib.Path(os.environ.get("QUIESCED_SOURCE", HERE.parents[1]))
sys.path[:0] = [str(HERE.parent), str(HERE)]


def build(out, **environment):
    """packaging/build-deb into out; the debug symbols' packages cost time, and nobody here looks at them."""
    done = subprocess.run([SOURCE / "packaging" / "build-deb", out], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          env={**os.environ, "DEB_BUILD_OPTIONS": "noautodbgsym nocheck", **environment})
    assert done.returncode == 0, done.stdout[-6000:]
    return sorted(pathlib.Path(out).glob("*.deb"))


@pytest.fixture(scope="session")
def packages():
    """$QUIESCED_PACKAGES: where they lie already, of this very tree."""
    if os.environ.get("QUIESCED_PACKAGES"):
        yield sorted(pathlib.Path(os.environ["QUIESCED_PACKAGES"]).glob("*.deb"))
        return
    with tempfile.TemporaryDirectory(prefix="quiesced-packages-", dir="/var/tmp") as out:
        yield build(out)


@pytest.fixture(scope="module")
def nest():
    if os.geteuid() != 0:
        pytest.skip("only root can boot a container")
    from nest import Nest, unable
    why = unable()
    if why:
        pytest.skip(f"no container with an overlay of this machine's files: {why}")
    one = Nest()
    yield one
    one.end()
