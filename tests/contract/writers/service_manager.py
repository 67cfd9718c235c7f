"""What systemd is to a server: it starts and stops it when it is asked over a socket, and is its parent."""
import os
import socket
import sys
import threading

ASK = """import socket, sys
s = socket.socket(socket.AF_UNIX)
s.connect(sys.argv[1])
s.sendall(sys.argv[2].encode())
s.shutdown(socket.SHUT_WR)
answer = s.recv(65536).decode()
sys.stderr.write(answer)
sys.exit(answer != "done")
"""


class Manager:
    """server: has launch() and halt(). asked: what was asked, in order. on: a function that an order runs instead."""

    def __init__(self, server, path):
        self.server, self.path, self.asked, self.on, self.idle = server, path, [], {}, True
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.bind(path)
        os.chmod(path, 0o777)
        self.socket.listen()
        self.thread = threading.Thread(target=self.serve)
        self.thread.start()

    def serve(self):
        while True:
            try:
                client, _ = self.socket.accept()
            except OSError:
                return
            with client:
                order = client.recv(64).decode()
                if order == "end":
                    return
                self.idle = False
                self.asked.append(order)
                try:
                    self.on.get(order, {"start": self.start, "stop": self.server.halt}[order])()
                    answer = "done"
                except Exception as error:  # told to whoever asked
                    answer = "failed: %s" % error
                try:
                    client.sendall(answer.encode())
                except OSError:
                    pass  # whoever asked has gone
                self.idle = True

    def start(self):
        if self.server.process.poll() is not None:
            self.server.launch()

    def command(self, order):
        return [sys.executable, "-c", ASK, self.path, order]

    @property
    def commands(self):
        return {"stop": self.command("stop"), "start": self.command("start")}

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        with socket.socket(socket.AF_UNIX) as last:
            last.connect(self.path)
            last.sendall(b"end")
        self.thread.join()
        self.socket.close()
