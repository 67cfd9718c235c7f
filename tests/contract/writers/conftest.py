import os
import sys

import pytest

sys.path.insert(0, os.path.dirname(__file__))


@pytest.fixture(scope="session", autouse=True)
def no_server_stays():
    yield
    import postgresql_server
    postgresql_server.stop_shared()
