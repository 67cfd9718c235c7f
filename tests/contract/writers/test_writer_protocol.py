"""What every built-in writer does alike: writer protocol 1."""
import signal
import sqlite3

import pytest

import mariadb_server
import postgresql_server
import redis_server
from writer_driver import Writer


SERVERS = {"postgresql": postgresql_server, "mariadb": mariadb_server, "redis": redis_server}


@pytest.fixture(params=["sqlite", "postgresql", "mariadb", "redis"])
def writer(request, tmp_path):
    if request.param == "sqlite":
        sqlite3.connect(tmp_path / "app.db").close()
        with Writer("sqlite", {"name": "app", "databases": [str(tmp_path / "app.db")]}) as started:
            yield started
    else:
        with SERVERS[request.param].shared().writer() as started:
            yield started


def test_identify_gives_every_member_of_the_metadata_and_can_be_repeated(writer):
    first = writer.metadata()
    for member in ("name", "class_id", "instance_name", "usage", "level", "freeze_timeout_ms", "restore_method", "backup_schema",
                   "components", "exclude"):
        assert member in first
    for component in first["components"]:
        for member in ("type", "logical_path", "name", "caption", "selectable", "selectable_for_restore", "file_sets", "dependencies"):
            assert member in component
    assert writer.metadata() == first


def test_an_unknown_event_is_answered_ok(writer):
    writer.metadata()
    assert writer.ok("some_event_of_the_future")
    assert writer.ok("backup_complete")


def test_an_event_before_identify_is_refused_but_those_that_undo_are_not(writer):
    writer.refused("freeze", "NONRETRYABLE")
    writer.ok("abort")
    writer.ok("backup_shutdown")


@pytest.mark.parametrize("line", [b"{", b"nonsense", b"\xff\xfe", b"[1]", b'"text"', b'{"id":1}', b'{"event":"freeze"}',
                                  b'{"id":1,"id":1,"event":"abort"}', b"[" * 5000])
def test_garbage_is_a_failure_and_the_conversation_goes_on(writer, line):
    writer.send_bytes(line + b"\n")
    answer = writer.answer()
    assert answer["ok"] is False
    assert answer["failure"] == "VSS_E_WRITERERROR_NONRETRYABLE"
    assert writer.metadata()


def test_a_line_over_one_mebibyte_is_a_failure_and_the_conversation_goes_on(writer):
    writer.send_bytes(b'{"id":1,"event":"' + b"x" * (3 * 1024 * 1024) + b'"}\n')
    answer = writer.answer()
    assert answer["ok"] is False
    assert answer["id"] is None
    assert writer.metadata()


def test_several_requests_in_one_write_are_answered_in_order(writer):
    for _ in range(50):
        writer.send("some_event")
    assert [writer.answer()["id"] for _ in range(50)] == list(range(1, 51))


def test_end_of_file_ends_the_writer(writer):
    writer.metadata()
    writer.process.stdin.close()
    assert writer.process.wait(60) == 0


def test_sigterm_ends_the_writer(writer):
    writer.metadata()
    writer.process.send_signal(signal.SIGTERM)
    assert writer.process.wait(60) == 0


def test_absurd_numbers_and_types_are_survived(writer):
    writer.metadata()
    for members in ({"deadline_ms": -1}, {"deadline_ms": 2**62}, {"deadline_ms": "soon"}, {"components": {}}, {"components": [1, None]},
                    {"volumes": 7}, {"component_mode": "yes"}, {"staging": 5}):
        assert "ok" in writer.ask("prepare_snapshot", **members)
        assert "ok" in writer.ask("post_snapshot", **members)
        writer.ok("abort")
