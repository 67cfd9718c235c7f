"""Writer protocol 1 for test writers: JSON lines on standard input and output.

Every test writer is told what to do by its environment:
  RECORD                file that gets one JSON line per event (and one for end-of-file), with a monotonic time
  NAME, CLASS_ID, INSTANCE_NAME, LEVEL, FREEZE_TIMEOUT_MS   metadata
  COMPONENTS            JSON array of components (default: one filegroup "main")
  FILES                 colon-separated directories: the file sets of the default component
  EXCLUDE               JSON array of file sets
  DELAY_EVENT           seconds to wait before the answer to EVENT (DELAY_FREEZE=2)
  FAIL_EVENT            failure code for {"ok": false} (FAIL_FREEZE=VSS_E_WRITERERROR_RETRYABLE)
  SOFT_EVENT            failure code for {"ok": true, "failure": ...}
  PARTIAL_EVENT         failure code for the first component of the answer
  STAMP                 stamp of every component in prepare_backup
  BAD_AT                event at which a bad writer is bad (default freeze)
"""
import json
import os
import sys
import time


def environment(prefix, event):
    return os.environ.get(f"{prefix}_{event.upper()}")


def record(entry):
    path = os.environ.get("RECORD")
    if not path:
        return
    line = json.dumps({"t": time.monotonic(), "pid": os.getpid(), "uid": os.getuid(), "writer": os.environ.get("NAME", ""), **entry})
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    os.write(fd, line.encode() + b"\n")
    os.close(fd)


def metadata():
    files = [p for p in os.environ.get("FILES", "").split(":") if p]
    components = [{"type": "filegroup", "logical_path": "", "name": "main", "caption": "test data", "selectable": True,
                   "file_sets": [{"path": p, "spec": "*", "recursive": True} for p in files]}]
    if "COMPONENTS" in os.environ:
        components = json.loads(os.environ["COMPONENTS"])
    found = {"name": os.environ.get("NAME", "recorder"), "usage": "user_data", "level": os.environ.get("LEVEL", "front_end"),
             "restore_method": "custom", "backup_schema": [], "components": components,
             "exclude": json.loads(os.environ.get("EXCLUDE", "[]"))}
    for key in ("CLASS_ID", "INSTANCE_NAME"):
        if key in os.environ:
            found[key.lower()] = os.environ[key]
    if "FREEZE_TIMEOUT_MS" in os.environ:
        found["freeze_timeout_ms"] = int(os.environ["FREEZE_TIMEOUT_MS"])
    return found


def answer_for(request):
    event = request["event"]
    answer = {"id": request["id"], "ok": True}
    if environment("FAIL", event):
        answer.update(ok=False, failure=environment("FAIL", event), message=f"told to fail at {event}")
        return answer
    if environment("SOFT", event):
        answer.update(failure=environment("SOFT", event), message=f"told to complain at {event}")
    if event == "identify":
        answer["metadata"] = metadata()
        return answer
    components = [{"logical_path": c["logical_path"], "name": c["name"]} for c in request.get("components", [])]
    if event == "prepare_backup" and "STAMP" in os.environ:
        for component in components:
            component["stamp"] = os.environ["STAMP"]
    if environment("PARTIAL", event) and components:
        components[0].update(failure=environment("PARTIAL", event), application_code=7,
                             application_message=f"component failed at {event}")
    answer["components"] = components
    return answer


def send(answer):
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


def run(misbehave=None):
    """misbehave(request) is called instead of answering when the event is BAD_AT."""
    bad_at = os.environ.get("BAD_AT", "freeze")
    for line in sys.stdin:
        request = json.loads(line)
        record({"event": request["event"], "request": request})
        delay = environment("DELAY", request["event"])
        if delay:
            time.sleep(float(delay))
        if misbehave and request["event"] == bad_at:
            misbehave(request)
        else:
            send(answer_for(request))
            record({"event": request["event"] + ".answered"})
    record({"event": "end_of_file"})
