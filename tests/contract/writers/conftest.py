import os
import sys

import pytest

sys.path.insert(0, os.path.dirname(__file__))


@pytest.fixture(scope="session", autouse=True)
def no_server_stays():
    yield
    for name in ("postgresql_server", "mariadb_server", "redis_server"):
        if name in sys.modules:
            sys.modules[name].stop_shared()
