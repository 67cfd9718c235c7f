"""Reading streams of events, as any client would: line by line, each event held against the contract."""
import hashlib
import http.client
import json
import threading

from conduct import address, checking, tls
from daemon import CONTRACT


def token_of(name):
    return "qsd1_" + hashlib.sha256(name.encode()).hexdigest()[:43]


EVENT = {"$ref": "#/components/schemas/Event"}


class Stream:
    """GET of a stream. `last` goes with Last-Event-ID. An answer that is none is in `status` and `problem`."""

    def __init__(self, node, path="/events", token=None, last=None, cookie=None):
        self.connection = http.client.HTTPSConnection(*address(node), context=tls(node), timeout=120)
        headers = {} if token is None else {"Authorization": "Bearer " + token}
        if cookie:
            headers["Cookie"] = "__Host-quiesced=" + cookie
        if last is not None:
            headers["Last-Event-ID"] = str(last)
        self.connection.request("GET", path, headers=headers)
        self.answer = self.connection.getresponse()
        self.status, self.headers = self.answer.status, {name.lower(): value for name, value in self.answer.getheaders()}
        self.last, self.heartbeats, self.retry, self.problem = last, 0, None, None
        body = b"" if self.status == 200 else self.answer.read()
        with checking:
            CONTRACT.check("GET", path, self.status, self.headers, body)
        if self.status == 200:
            assert self.take() is None and self.retry, "it begins by saying where it is"
        elif body:
            self.problem = json.loads(body)

    def take(self):
        """One block up to its empty line: the event, or None when it has no data (a heartbeat). EOFError at the end of the stream."""
        kind = data = None
        while True:
            line = self.answer.readline()  # IncompleteRead when the connection broke
            if not line:
                raise EOFError
            name, _, value = line.decode().rstrip("\n").partition(": ")
            if name == "id":
                self.last = int(value)
            elif name == "event":
                kind = value
            elif name == "data":
                data = json.loads(value)
            elif name == "retry":
                self.retry = int(value)
            elif not name and value:
                self.heartbeats += 1
            elif not name:
                break
        if data:
            with checking:
                CONTRACT.check_schema(EVENT, data, f"event {data}")
            assert data["type"] == kind and data["id"] in (None, self.last), (kind, data)
        return data

    def next(self):
        while not (event := self.take()):
            pass
        return event

    def until(self, enough):
        """What comes, up to the event of which `enough` is true."""
        got = [self.next()]
        while not enough(got[-1]):
            got.append(self.next())
        return got

    def rest(self):
        """What comes until the stream's end."""
        got = []
        try:
            while True:
                got.append(self.next())
        except EOFError:
            return got

    def close(self):
        self.answer.close()
        self.connection.close()


def past(node, after=0, path="/events", **more):
    """Every event after that id."""
    stream = Stream(node, f"{path}?after={after}&follow=false", **more)
    return stream.rest()


def ended(job):
    """Is this event the end of the job?"""
    return lambda event: event["job_id"] == job["id"] and event["type"] == "job.changed" and event["data"]["state"] in ("succeeded", "failed", "cancelled")


def principals(**roles):
    """Rows of the configuration; each one's token is token_of(name)."""
    return "principals:\n" + "".join(f"  - {{name: {name}, role: {role}, token_sha256: {hashlib.sha256(token_of(name).encode()).hexdigest()}}}\n" for name, role in roles.items())


class Background(threading.Thread):
    """Runs it; join() hands on what it returned, or raised."""

    def __init__(self, run, *arguments):
        super().__init__(daemon=True)
        self.run_it, self.arguments, self.result, self.error = run, arguments, None, None
        self.start()

    def run(self):
        try:
            self.result = self.run_it(*self.arguments)
        except BaseException as error:  # noqa: BLE001
            self.error = error

    def done(self):
        self.join(300)
        assert not self.is_alive(), "it has not ended in five minutes"
        if self.error:
            raise self.error
        return self.result
