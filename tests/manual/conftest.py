import pathlib
import sys

sys.path[:0] = [str(pathlib.Path(__file__).resolve().parents[1]), str(pathlib.Path(__file__).resolve().parents[2] / "scripts" / "manual")]
from daemon import daemon  # noqa: E402,F401
