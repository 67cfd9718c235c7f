import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from daemon import BUILD, CONTRACT, SOURCE, Daemon, Reply, daemon  # noqa: E402,F401

# Files that wait longest, first: what is begun last is waited for by everybody.
LONG = ("test_repository.py", "test_faults.py", "test_external.py", "test_hanging_disk.py", "test_holds.py", "test_stuck_freeze.py", "test_webhooks.py", "test_audit_seal.py")


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: LONG.index(item.path.name) if item.path.name in LONG else len(LONG))
