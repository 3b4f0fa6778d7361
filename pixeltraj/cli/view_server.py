"""ViewServer: the page of `pixeltraj view` and its JSON, for this machine only.

    GET  /                             the page
    GET  /api/runs                     name, task and error of each run
    GET  /api/about                    what can be chosen of a run: Viewer.about; the first time, it is loaded for this
    GET  /api/frame?episode=E&step=T   a PNG
    POST /api/imagine                  {episode, step, seed, samples, k, prompt, guidance} -> Viewer.imagine

Where there are several runs, the last three name theirs: `run`. Whatever cannot be done is answered with
{"error": one line}.
"""

import json
import sys
import traceback
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from typing import Any
from urllib.parse import parse_qs, urlsplit

from pixeltraj.cli.view_runs import Run, line
from pixeltraj.cli.viewer import Viewer, whole
from pixeltraj.errors import PixeltrajError

LARGEST = 1 << 16
"""Bytes of a request."""
POLICY = (
    "default-src 'none'; img-src 'self' data:; connect-src 'self'; style-src 'unsafe-inline'; "
    "script-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""The page may load nothing from anywhere else."""
Answer = tuple[str, bytes]  # content type, body


class ViewServer(ThreadingHTTPServer):
    """Answers until it is shut down. Raises OSError where the port is taken."""

    def __init__(self, runs: list[Run], port: int = 0) -> None:
        self.runs = {run.name: run for run in runs}
        self.page = (files("pixeltraj.cli") / "view.html").read_bytes()
        super().__init__(("127.0.0.1", port), _Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/"


class _Handler(BaseHTTPRequestHandler):
    server: ViewServer

    def do_GET(self) -> None:
        self._answer({"/": self._page, "/api/runs": self._runs, "/api/about": self._about, "/api/frame": self._frame})

    def do_POST(self) -> None:
        self._answer({"/api/imagine": self._imagine})

    def _answer(self, routes: dict[str, Callable[[], Answer]]) -> None:
        # A page elsewhere must not reach this one by giving its own name the address 127.0.0.1.
        host = (self.headers.get("Host") or "").rsplit(":", 1)[0]
        route = routes.get(urlsplit(self.path).path)
        if host not in ("127.0.0.1", "localhost"):
            self._fail(403, "this page is served to this machine only")
        elif route is None:
            self._fail(404, f"there is no {self.command} {urlsplit(self.path).path}")
        else:
            try:
                kind, body = route()
            except PixeltrajError as error:
                self._fail(400, str(error))
            except Exception as error:  # the page gets one line, the terminal the rest
                traceback.print_exc(file=sys.stderr)
                self._fail(500, f"this failed, and the terminal says where: {line(error)}")
            else:
                self._send(200, kind, body)

    def _page(self) -> Answer:
        return "text/html; charset=utf-8", self.server.page

    def _runs(self) -> Answer:
        return _json({"runs": [{"name": r.name, "task": r.task, "error": r.error} for r in self.server.runs.values()]})

    def _about(self) -> Answer:
        return _json(self._viewer(self._query()).about())

    def _frame(self) -> Answer:
        query = self._query()
        asked = {name: _number(value) for name, value in query.items()}
        return "image/png", self._viewer(query).frame(whole(asked, "episode"), whole(asked, "step"))

    def _imagine(self) -> Answer:
        if self.headers.get_content_type() != "application/json":  # else any other page could post here
            raise PixeltrajError("the request must be application/json")
        length = self.headers.get("Content-Length", "")
        if not length.isdigit() or int(length) > LARGEST:
            raise PixeltrajError(f"the request must say its length, at most {LARGEST} bytes")
        try:
            asked = json.loads(self.rfile.read(int(length)))
        except ValueError as error:
            raise PixeltrajError(f"the request is not JSON: {error}") from error
        if not isinstance(asked, dict):
            raise PixeltrajError("the request must be a JSON object")
        return _json(self._viewer(asked).imagine(asked))

    def _query(self) -> dict[str, str]:
        return {name: values[0] for name, values in parse_qs(urlsplit(self.path).query).items()}

    def _viewer(self, asked: Mapping[str, Any]) -> Viewer:
        runs, name = self.server.runs, asked.get("run")
        if name is None and len(runs) == 1:
            name = next(iter(runs))
        if not isinstance(name, str) or name not in runs:
            raise PixeltrajError(f"there is no run {name!r}; there are {', '.join(runs)}")
        return runs[name].open()

    def _fail(self, status: int, reason: str) -> None:
        self._send(status, *_json({"error": " ".join(reason.split())}))

    def _send(self, status: int, kind: str, body: bytes) -> None:
        self.close_connection = status != 200  # what is left of a refused request is not read
        try:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Cache-Control", "no-store")
            self.send_header("X-Content-Type-Options", "nosniff")
            self.send_header("Content-Security-Policy", POLICY)
            self.end_headers()
            self.wfile.write(body)
        except ConnectionError:  # the page was closed meanwhile
            self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing: the page shows what went wrong."""


def _number(text: str) -> int | str:
    return int(text) if text.removeprefix("-").isdecimal() and len(text) < 20 else text


def _json(value: dict[str, Any]) -> Answer:
    return "application/json", json.dumps(value).encode()
