"""Writer protocol 1 for test writers: JSON lines on standard input and output.

Every test writer is told what to do by its environment:
  RECORD                file that gets one JSON line per event (and one for end-of-file), with a monotonic time
  NAME, CLASS_ID, INSTANCE_NAME, LEVEL, FREEZE_TIMEOUT_MS   metadata
  COMPONENTS            JSON array of components (default: one filegroup "main")
  FILES                 colon-separated directories: the file sets of the default component
  EXCLUDE               JSON array of file sets
  SCHEMA                backup_schema, words separated by commas
  RESTORE_METHOD        restore_method (default custom)
  ALTERNATE             JSON array: alternate_locations
  DELAY_EVENT           seconds to wait before the answer to EVENT (DELAY_FREEZE=2)
  DELAY_END             seconds that an undo at end-of-file takes; "undone" is recorded after it
  WAIT_EVENT            file that must appear before the answer to EVENT
  TOUCH_EVENT           file to make when EVENT arrives
  FAIL_EVENT            failure code for {"ok": false} (FAIL_FREEZE=VSS_E_WRITERERROR_RETRYABLE)
  UNLESS_EVENT          file: once it exists, FAIL_EVENT does not count
  SOFT_EVENT            failure code for {"ok": true, "failure": ...}
  PARTIAL_EVENT         failure code for the first component of the answer
  STAMP                 stamp of every component in prepare_backup; "session" is the session's id
  SAY_EVENT             JSON object: members that every component gets in the answer to EVENT
  POINT                 "consistent_at" of every component in post_snapshot
  ADD                   JSON object {path: text}: files that the first component adds in post_snapshot
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
             "restore_method": os.environ.get("RESTORE_METHOD", "custom"),
             "backup_schema": [word for word in os.environ.get("SCHEMA", "").split(",") if word], "components": components,
             "alternate_locations": json.loads(os.environ.get("ALTERNATE", "[]")), "exclude": json.loads(os.environ.get("EXCLUDE", "[]"))}
    for key in ("CLASS_ID", "INSTANCE_NAME"):
        if key in os.environ:
            found[key.lower()] = os.environ[key]
    if "FREEZE_TIMEOUT_MS" in os.environ:
        found["freeze_timeout_ms"] = int(os.environ["FREEZE_TIMEOUT_MS"])
    return found


def added_files(wanted, staging):
    for number, text in enumerate(wanted.values()):
        with open(f"{staging}/{number}", "w", encoding="utf-8") as file:
            file.write(text)
    return [{"path": path, "source": f"{staging}/{number}"} for number, path in enumerate(wanted)]


def answer_for(request):
    event = request["event"]
    answer = {"id": request["id"], "ok": True}
    if environment("FAIL", event) and not os.path.exists(environment("UNLESS", event) or ""):
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
            component["stamp"] = request["session"] if os.environ["STAMP"] == "session" else os.environ["STAMP"]
    if event == "post_snapshot" and "POINT" in os.environ:
        for component in components:
            component["consistent_at"] = os.environ["POINT"]
    if event == "post_snapshot" and "ADD" in os.environ and components:
        components[0]["extra_files"] = added_files(json.loads(os.environ["ADD"]), request["staging"])
    if environment("SAY", event):
        for component in components:
            component.update(json.loads(environment("SAY", event)))
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
        if environment("TOUCH", request["event"]):
            open(environment("TOUCH", request["event"]), "w").close()
        delay = environment("DELAY", request["event"])
        if delay:
            time.sleep(float(delay))
        gate = environment("WAIT", request["event"])
        while gate and not os.path.exists(gate):
            time.sleep(0.02)
        if misbehave and request["event"] == bad_at:
            misbehave(request)
        else:
            answer = answer_for(request)
            record({"event": request["event"] + ".answered"})  # before it is: what follows the answer is recorded after this
            send(answer)
    record({"event": "end_of_file"})
    if "DELAY_END" in os.environ:
        time.sleep(float(os.environ["DELAY_END"]))
        record({"event": "undone"})
