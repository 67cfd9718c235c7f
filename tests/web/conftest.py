import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
import pytest  # noqa: E402

from daemon import daemon  # noqa: E402,F401
from project import configuration  # noqa: E402


@pytest.fixture
def node_(daemon):
    one = daemon(configuration(daemon.place))
    one.token = pathlib.Path(one.ready["token_file"]).read_text().strip()
    return one
