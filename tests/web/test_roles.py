"""Who is offered what: each role, and tokens with scopes, in a real browser. What one may not do has no button; what one may do is done."""
import pytest

from project import back_up, browse, given


@pytest.fixture
def host(node_):
    """A host with a backup and a kept snapshot of the administrator's; tokens(role, scopes) makes one more principal."""
    back_up(node_, components=[], paths=[str(node_.place / "data")])
    made = node_.call("POST", "/sessions", {"kind": "backup", "context": "nas_rollback", "label": "kept"}).json["id"]
    s = f"/sessions/{made}"
    assert node_.call("POST", s + "/snapshot-set", {}).status == 201
    assert node_.call("POST", s + "/snapshot-set/volumes", {"path": str(node_.place / "data")}).status == 201
    assert node_.job("POST", s + "/snapshot")["state"] == "succeeded"

    def seen_by(role, *scopes):
        token = node_.call("POST", "/tokens", {"name": f"{role}-{len(scopes)}", "role": role, "scopes": list(scopes)})
        assert token.status == 201, token
        (backup,) = node_.call("GET", "/backups").json["items"]
        (snapshot,) = node_.call("GET", "/snapshots").json["items"]
        (job,) = node_.call("GET", "/jobs?operation=Backup").json["items"]
        return given(node_, token=token.json["token"], backup=backup["id"], snapshot=snapshot["id"], job=job["id"], session=made)

    node_.seen_by = seen_by
    return node_


def backups_of(host, principal):
    """Backups that jobs of this principal have made."""
    jobs = host.call("GET", "/jobs?operation=Backup").json["items"]
    return [job["result"]["backup_id"] for job in jobs if job["owner"] == principal and job["state"] == "succeeded"]


def test_an_operator(host):
    done = browse("roles/operator", host.seen_by("operator"))
    assert backups_of(host, "operator-0") == [done["backup"]]


def test_a_restorer(host):
    browse("roles/restorer", host.seen_by("restorer"))
    restored = host.place / "restored"
    assert [path.read_text() for path in restored.rglob("*") if path.is_file()] == ["inside\n"]
    assert (restored / host.place.relative_to("/") / "data" / "folder" / "inside.txt").is_file()


def test_a_viewer(host):
    secret = browse("roles/viewer", host.seen_by("viewer"))["token"]
    who = host.call("GET", "/whoami", token=secret).json
    assert (who["role"], who["principal"]) == ("viewer", "viewer-0")


def test_a_token_that_only_reads(host):
    browse("roles/reading", host.seen_by("restorer", "read"))
    assert not any((host.place / "restored").iterdir())


def test_a_token_for_backups_alone(host):
    done = browse("roles/backups", host.seen_by("operator", "read", "/backups"))
    assert backups_of(host, "operator-2") == [done["backup"]]
