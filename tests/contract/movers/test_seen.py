"""A repository that has been seen is not made again, and another one is not taken for it: the backup's disk may not be mounted."""
import os
import shutil
import uuid

import pytest


def seen(ground, repository_id):
    ground.more["seen"] = repository_id
    ground.backup = str(uuid.uuid4())


def test_the_first_copy_makes_the_repository_and_tells_which_it_is(ground):
    shutil.rmtree(ground.path, ignore_errors=True)
    first = ground.run()["result"]["repository_id"]
    assert len(first) >= 32
    for known in (first, ""):
        seen(ground, known)
        assert ground.run()["result"]["repository_id"] == first
    assert len(ground.items()) == 3


@pytest.mark.parametrize("place", ["gone", "empty"])
@pytest.mark.parametrize("known", [True, False], ids=["id known", "id not known"])
def test_one_that_is_gone_is_not_made_again(ground, place, known):
    told = ground.run()["result"]["repository_id"]
    os.rename(ground.path, ground.place / "unmounted")
    if place == "empty":
        ground.path.mkdir()
    seen(ground, told if known else "")
    error = ground.run()["error"]
    assert error["hresult"] == "VSS_E_OBJECT_NOT_FOUND" and str(ground.path) in error["detail"] and "disk mounted" in error["hint"], error
    assert not ground.path.exists() if place == "gone" else list(ground.path.iterdir()) == []
    ground.path.rmdir() if place == "empty" else None
    os.rename(ground.place / "unmounted", ground.path)
    assert "result" in ground.run() and len(ground.items()) == 2


def test_another_one_at_its_place_is_refused(ground):
    told = ground.run()["result"]["repository_id"]
    os.rename(ground.path, ground.place / "first")
    assert "result" in ground.call("open", create=True)
    seen(ground, told)
    error = ground.run()["error"]
    assert error["hresult"] == "VSS_E_OBJECT_NOT_FOUND" and str(ground.path) in error["detail"] and "right disk" in error["hint"], error
    assert ground.is_clean()
