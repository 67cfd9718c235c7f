"""The store's thread and the loop of core under ThreadSanitizer: a whole session, and races of DELETE against its end. A report fails the test."""
import pytest

import races
from conduct import Session, configuration, gate_writer
from daemon import SOURCE

TSAN = SOURCE / "build" / "tsan"


@pytest.mark.skipif(not (TSAN / "quiesced").exists(), reason="needs the tsan build: scripts/build tsan")
def test_a_session_and_its_races_have_no_data_race(daemon):
    node = daemon(configuration(daemon.place, [gate_writer(daemon.place)]), binaries=TSAN)
    session = Session(node).to("snapshotted")
    session.copy()
    session.done("complete")
    races.run(node, 30, 0)  # which side wins is counted elsewhere
    assert node.stop() == 0
