"""quiescectl as a person or a script calls it."""
import json
import os
import subprocess

from daemon import BUILD

OK, FAILED, USAGE, UNREACHED, REFUSED, NOT_THERE, BAD_STATE, CANCELLED, DAEMON, BAD_ARGUMENT = range(10)


class Ctl:
    def __init__(self, node, home):
        self.node, self.home = node, home
        self.argv = [str(BUILD / "quiescectl"), "--ready", str(node.place / "ready.json")]
        self.called = []  # the arguments of each call that ended well

    def environment(self):
        return {"HOME": str(self.home), "PATH": os.environ["PATH"], "ASAN_OPTIONS": os.environ.get("ASAN_OPTIONS", "")}

    def run(self, *arguments, code=OK, base=None, **environment):
        argv = [*(self.argv if base is None else base), *map(str, arguments)]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=240, env={**self.environment(), **environment}, stdin=subprocess.DEVNULL)
        assert "Sanitizer" not in done.stderr, done.stderr
        assert done.returncode == code, (argv, done.returncode, done.stdout, done.stderr)
        if code == OK:
            self.called.append([str(argument) for argument in arguments if not str(argument).startswith("--")])
        return done

    def json(self, *arguments, **more):
        return json.loads(self.run("--json", *arguments, **more).stdout)
