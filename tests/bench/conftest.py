import http.server
import threading
from http import HTTPStatus

import pytest

from fastsample.bench import reference, run
from fastsample.models import download


@pytest.fixture(autouse=True)
def _own_home(tmp_path, monkeypatch):
    """Caches of a test stay in its own folder."""
    monkeypatch.setenv("FASTSAMPLE_HOME", str(tmp_path / "home"))


class Handler(http.server.BaseHTTPRequestHandler):
    """Breaks the first connection of each file in the middle."""

    def do_GET(self):
        data, wanted = self.server.files[self.path], self.headers.get("Range")
        self.server.ranges.append((self.path, wanted))
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted else 0
        self.send_response(HTTPStatus.PARTIAL_CONTENT if wanted else HTTPStatus.OK)
        if wanted:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.send_header("Content-Length", str(len(data) - start))
        self.send_header("ETag", '"1"')
        self.end_headers()
        self.wfile.write(data[start:] if wanted else data[: len(data) // 2])

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    """A server of `files` on this machine, which keeps the `ranges` that are asked for."""
    monkeypatch.setattr(download, "sleep", lambda _: None)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.files, server.ranges = {}, []
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def coarse(monkeypatch):
    """Reference solutions of few steps and few samples."""
    monkeypatch.setattr(reference, "NFE", 8)
    for module in (reference, run):
        monkeypatch.setattr(module, "BATCH", 8)
        monkeypatch.setattr(module, "PROBES", 2)
