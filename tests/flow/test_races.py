"""A hundred races with the sanitizers; tests/system has the thousand, with the release build."""
import races
from conduct import configuration, gate_writer


def test_a_202_is_always_cancelled_and_a_409_always_finished(daemon):
    races.run(daemon(configuration(daemon.place, [gate_writer(daemon.place)])), 100, 10)
