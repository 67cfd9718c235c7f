"""A receiver of webhooks: HTTPS (or HTTP) on loopback, with a certificate of its own, that answers as a test says."""
import base64
import hashlib
import hmac
import http.server
import json
import ssl
import subprocess
import threading
import time


def until(condition, seconds=90):
    """The first true value of condition()."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, "it did not come to be"
        time.sleep(0.02)


class Received:
    def __init__(self, handler, body):
        self.method, self.path, self.headers, self.body = handler.command, handler.path, dict(handler.headers.items()), body
        self.id = self.headers.get("webhook-id")

    @property
    def event(self):
        return json.loads(self.body)

    def signed_with(self, secret):
        """By which signature of the header; None: by none. The test's own arithmetic, after Standard Webhooks."""
        key = base64.b64decode(secret.removeprefix("whsec_"), validate=True)
        content = f"{self.id}.{self.headers['webhook-timestamp']}.".encode() + self.body
        want = "v1," + base64.b64encode(hmac.new(key, content, hashlib.sha256).digest()).decode()
        signatures = self.headers["webhook-signature"].split(" ")
        return signatures.index(want) if want in signatures else None


class Receiver:
    def __init__(self, place, tls=True, port=0):
        self.received, self.connections, self.answer = [], 0, lambda request: 204
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                request = Received(self, self.rfile.read(int(self.headers["Content-Length"])))
                outer.received.append(request)
                answer = outer.answer(request)
                if callable(answer):
                    answer(self)
                    return
                status, headers = answer if isinstance(answer, tuple) else (answer, {})
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", "0")
                self.end_headers()

            do_GET = do_POST

            def log_message(self, *args):
                pass

        class Server(http.server.ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 128

            def get_request(self):
                outer.connections += 1
                return super().get_request()

            def handle_error(self, request, client_address):
                pass  # a client that has had enough

            def finish_request(self, request, client_address):
                if tls:
                    request.settimeout(60)
                    request = outer.context.wrap_socket(request, server_side=True)
                super().finish_request(request, client_address)
                if tls:
                    request.close()

        if tls:
            subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj", "/CN=receiver",
                            "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost", "-days", "2", "-keyout", place / "receiver.key", "-out",
                            place / "receiver.pem"], check=True, capture_output=True)
            self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self.context.load_cert_chain(place / "receiver.pem", place / "receiver.key")
            self.ca = (place / "receiver.pem").read_text()
        self.server = Server(("127.0.0.1", port), Handler)
        self.port = self.server.server_address[1]
        self.url = f"http{'s' if tls else ''}://127.0.0.1:{self.port}/hook"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True)
        self.thread.start()

    def of(self, kind):
        return [request for request in list(self.received) if request.event["type"] == kind]

    def close(self):
        self.server.shutdown()
        self.server.server_close()
