"""A server that says what its script says, one answer for each request."""

import json
import socket
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Scripted:
    """One answer.

    Attributes:
        status: Its status.
        body: Its body, or the pieces of a stream.
        headers: Its headers.
        cut: Whether the connection breaks behind the body.
        held: Keeps the connection open behind the body, until it is set.
        endless: Sent again and again behind the body, until the client leaves.
        pause: Seconds before each time.
    """

    status: int = 200
    body: object = b""
    headers: dict = field(default_factory=dict)
    cut: bool = False
    held: threading.Event | None = None
    endless: bytes = b""
    pause: float = 0.0

    @property
    def content(self) -> bytes:
        return self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()


def refusal(status, message="no", code=None, **headers) -> Scripted:
    return Scripted(status, {"error": {"message": message, "type": "x", "code": code}}, headers)


def events(*chunks, done=True, **settings) -> Scripted:
    """A stream of these chunks."""
    data = [json.dumps(chunk, ensure_ascii=False).encode() for chunk in chunks] + [b"[DONE]"] * done
    return Scripted(200, b"".join(b"data: " + each + b"\n\n" for each in data), **settings)


class ScriptedServer:
    """Answers requests in order: those of a path from its list in `paths`, all others from `script`."""

    def __init__(self) -> None:
        self.script: list[Scripted] = []
        self.paths: dict[str, Scripted] = {}
        self.asked: list[tuple[str, str, dict, bytes]] = []
        self.connections = 0
        self.left = threading.Event()
        """Set once a client has closed a connection that was held open, or to which there is no end."""

    @property
    def bodies(self) -> list:
        return [json.loads(body) for _, _, _, body in self.asked if body]


@contextmanager
def scripted_server():
    running = ScriptedServer()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def setup(self):
            running.connections += 1
            super().setup()

        def handle_any(self):
            content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            running.asked.append((self.command, self.path, dict(self.headers), content))
            path = self.path.partition("?")[0]
            answer = running.paths[path] if path in running.paths else running.script.pop(0)
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            if answer.content:
                self.write(answer.content)
            if answer.endless:
                self.repeat(answer.endless, answer.pause)
            if answer.held is not None:
                self.watch(answer.held)
            if answer.cut:
                self.connection.shutdown(socket.SHUT_RDWR)
                self.close_connection = True
            else:
                self.wfile.write(b"0\r\n\r\n")

        def write(self, content):
            self.wfile.write(b"%x\r\n%s\r\n" % (len(content), content))

        def repeat(self, content, pause):
            try:
                while True:
                    time.sleep(pause)
                    self.write(content)
            except OSError:
                running.left.set()
                raise

        def watch(self, held):
            self.connection.settimeout(0.01)
            while not held.is_set():
                try:
                    if not self.connection.recv(1):
                        running.left.set()
                        return
                except TimeoutError:
                    continue
                except OSError:
                    running.left.set()
                    return

        do_GET = do_POST = handle_any  # noqa: N815

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.handle_error = lambda *_: None  # clients that leave
    running.url = f"http://127.0.0.1:{server.server_port}/v1"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield running
    finally:
        server.shutdown()
        server.server_close()
