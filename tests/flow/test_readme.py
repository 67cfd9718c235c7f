"""The README's tour, executed as it is printed against a fresh daemon."""
import json
import re
import subprocess

import journey
from conftest import SOURCE


def test_the_tour_runs_as_pasted(daemon):
    (block,) = re.findall(r"^```bash\n(.*?)^```$", (SOURCE / "README.md").read_text(), re.M | re.S)
    node = daemon(journey.lay_out(daemon.place))
    done = subprocess.run(["bash", "-euo", "pipefail", "-c", block], env={"PATH": "/usr/bin:/bin", "QUICKSTART_DIR": str(node.place)}, capture_output=True, text=True,
                          stdin=subprocess.DEVNULL)
    assert done.returncode == 0, (done.stdout, done.stderr, node.words()[-2000:])
    said = [json.loads(line) for line in done.stdout.splitlines()]
    frozen = [line for line in said if line.get("type") == "session.thawed"]
    assert frozen and all(line["window_ms"] > 0 for line in frozen), said
    said = [line for line in said if line not in frozen]
    ended = [(job["operation"], job["state"]) for job in said if "operation" in job]
    assert ended == [(operation, "succeeded") for operation in
                     ("GatherWriterMetadata", "PrepareForBackup", "DoSnapshotSet", "BackupComplete", "Restore",
                      "GatherWriterMetadata", "PreRestore", "RestoreFiles", "PostRestore")], ended
    assert {"name": "app", "file_restore_status": "all", "failure": None} in said
    assert {"name": "app", "state": "VSS_WS_STABLE", "failure": "S_OK"} in said
    assert [item["complete"] for item in said if "complete" in item] == [True]
    if said[-2]["cancel"] == "S_OK":
        assert said[-1] == {"state": "cancelled", "hresult": "VSS_S_ASYNC_CANCELLED"}, said
    else:  # the backup was faster than the DELETE
        assert said[-1] == {"state": "succeeded", "hresult": "VSS_S_ASYNC_FINISHED"} and said[-2]["state"] == "succeeded", said
    journey.compare(node)
