"""Servers of `pixeltraj view`, and a real browser to open their page in."""

import json
import os
import select
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pixeltraj.cli.view import Config, serve
from pixeltraj.cli.view_server import ViewServer

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
MIDDLE = "(b => [b.x + b.width / 2, b.y + b.height / 2])(document.querySelector('{}').getBoundingClientRect())"


@pytest.fixture(scope="module")
def served() -> Iterator[Callable[[Config], ViewServer]]:
    """A server that answers until the module's tests are done."""
    servers = []

    def start(config: Config) -> ViewServer:
        server = serve(config)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        servers.append((server, thread))
        return server

    yield start
    for server, thread in servers:
        server.shutdown()
        thread.join()
        server.server_close()


class Chromium:
    """A headless browser that is driven through a pipe, as its --remote-debugging-pipe has it: JSON and a zero byte."""

    SECONDS = 60

    def __init__(self, folder: Path, url: str) -> None:
        assert CHROMIUM
        its_input, self.output = os.pipe()
        self.input, its_output = os.pipe()
        flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
        flags += ["--remote-debugging-pipe", f"--user-data-dir={folder}", "--window-size=1280,800", "about:blank"]
        script = f'exec "$@" 3<&{its_input} 4>&{its_output}'  # the browser reads 3 and writes 4
        self.process = subprocess.Popen(
            ["bash", "-c", script, "bash", CHROMIUM, *flags],
            pass_fds=(its_input, its_output),
            stderr=subprocess.DEVNULL,
        )
        os.close(its_input)
        os.close(its_output)
        self.count, self.read, self.session = 0, b"", None
        target = self.send("Target.createTarget", url=url)["targetId"]
        self.session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self.send("Page.bringToFront")

    def send(self, method: str, **params: object) -> dict[str, Any]:
        self.count += 1
        message = {"id": self.count, "method": method, "params": params}
        message |= {"sessionId": self.session} if self.session else {}
        os.write(self.output, json.dumps(message).encode() + b"\0")
        while (answer := self.receive()).get("id") != self.count:
            pass
        assert "error" not in answer, answer
        return answer["result"]

    def receive(self) -> dict[str, Any]:
        while b"\0" not in self.read:
            assert select.select([self.input], [], [], self.SECONDS)[0], "the browser does not answer"
            more = os.read(self.input, 1 << 20)
            assert more, "the browser ended"
            self.read += more
        message, self.read = self.read.split(b"\0", 1)
        return json.loads(message)

    def __call__(self, script: str) -> Any:
        """The value of an expression in the page."""
        said = self.send("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in said, said
        return said["result"].get("value")

    def wait(self, script: str) -> None:
        for _ in range(20 * self.SECONDS):
            if self(script):
                return
            time.sleep(0.05)
        raise AssertionError(f"never became true: {script}")

    def press(self, key: str, text: str = "") -> None:
        self.send("Input.dispatchKeyEvent", type="keyDown", key=key, text=text)
        self.send("Input.dispatchKeyEvent", type="keyUp", key=key)

    def click(self, selector: str) -> None:
        self(f"document.querySelector('{selector}').scrollIntoView()")
        x, y = self(MIDDLE.format(selector))
        for kind in ("mousePressed", "mouseReleased"):
            self.send("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def close(self) -> None:
        self.session = None
        self.send("Browser.close")
        self.process.wait(self.SECONDS)
        os.close(self.output)
        os.close(self.input)


@pytest.fixture
def browse(tmp_path: Path) -> Iterator[Callable[[str], Chromium]]:
    """Opens a page in a browser of its own; skips the test where there is no Chromium."""
    browsers = []

    def start(url: str) -> Chromium:
        if CHROMIUM is None:
            pytest.skip("nothing can open the page: install Chromium (apt-get install chromium)")
        browsers.append(Chromium(tmp_path / f"profile{len(browsers)}", url))
        return browsers[-1]

    yield start
    for browser in browsers:
        browser.close()
