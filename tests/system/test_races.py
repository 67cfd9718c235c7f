"""The thousand races of DELETE against the end of BackupComplete, with the release build: a sanitizer's cost per process would make hours of it."""
import pytest

import races
from conduct import configuration, gate_writer
from daemon import SOURCE

RELEASE = SOURCE / "build" / "release"


@pytest.mark.skipif(not (RELEASE / "quiesced").exists(), reason="needs the release build: scripts/build release")
def test_a_thousand_races_end_as_their_delete_was_answered(daemon):
    node = daemon(configuration(daemon.place, [gate_writer(daemon.place)]), binaries=RELEASE)
    races.run(node, 1000, 100)
