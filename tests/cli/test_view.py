"""The page of `pixeltraj view`: what it is told over HTTP, and what a real browser makes of it."""

import base64
import http.client
import io
import json
import os
import select
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pixeltraj.cli.view import Config, find, serve
from pixeltraj.cli.view_server import ViewServer
from pixeltraj.decode.train import TrainConfig, train
from pixeltraj.errors import PixeltrajError
from pixeltraj.store import Store

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
ASKED = {"episode": 4, "step": 3, "seed": 1, "k": 5}


@pytest.fixture(scope="module")
def decoder_path(store_path: Path, base_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("decoders") / "decoder"
    train(TrainConfig(store_path, folder, str(base_path), k=(5,), steps=2, head_steps=2))
    return folder


@pytest.fixture(scope="module")
def server(store_path: Path, base_path: Path, decoder_path: Path) -> Iterator[ViewServer]:
    config = Config(store=store_path, decoder=decoder_path, base=str(base_path), num_inference_steps=2)
    server = serve(config)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def ask(server: ViewServer, method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(*server.server_address[:2])
    try:
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def post(server: ViewServer, body: bytes) -> tuple[int, dict[str, Any]]:
    status, answer = ask(server, "POST", "/api/imagine", body, **{"Content-Type": "application/json"})
    return status, json.loads(answer)


def imagine(server: ViewServer, **changes: object) -> tuple[int, dict[str, Any]]:
    return post(server, json.dumps(ASKED | changes).encode())


def pixels(url: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(url.split(",", 1)[1]))))


def test_about_tells_what_can_be_chosen(server: ViewServer, store: Store) -> None:
    status, answer = ask(server, "GET", "/api/about")
    about = json.loads(answer)
    assert status == 200
    assert (about["task"], about["prompt"]) == (store.task.name, store.task.prompt)
    assert about["lengths"] == [5]  # the generator could more, the decoder was trained to read these
    assert about["episodes"] == [episode["transitions"] for episode in store.episodes]
    assert about["heldout"] == [4]
    assert [point["name"] for point in about["keypoints"]] == [point.name for point in store.task.keypoints]
    assert [(d["name"], d["unit"]) for d in about["state"]] == [(d.name, d.unit) for d in store.task.state]


def test_a_frame_is_the_stores(server: ViewServer, store: Store) -> None:
    status, answer = ask(server, "GET", "/api/frame?episode=2&step=7")
    assert status == 200
    row = int(store.offsets[2]) + 7
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(answer))), store.read("frames", row, row + 1)[0])


def test_imagines_from_the_state_and_tells_what_really_followed(server: ViewServer, store: Store) -> None:
    status, said = imagine(server)
    assert status == 200
    imagined, real = said["imagined"], said["real"]
    whole = store.trajectory(4)
    assert whole.frames is not None
    assert np.allclose(real["states"], whole.states[3:8], atol=1e-6)
    assert np.allclose(real["actions"], whole.actions[3:7], atol=1e-6)
    assert np.array_equal([pixels(url) for url in real["frames"]], whole.frames[3:8])
    assert np.allclose(imagined["states"][0], whole.states[3], atol=1e-6)
    assert np.array_equal(pixels(imagined["frames"][0]), whole.frames[3])
    frames = len(imagined["frames"])
    assert 2 <= frames <= 5
    assert {len(imagined[name]) for name in ("states", "keypoints")} == {frames}
    assert {len(imagined[name]) for name in ("actions", "rewards", "terminations", "truncations")} == {frames - 1}
    truth = store.task.camera.project(whole.keypoints[3:8])[..., :2]
    assert np.allclose(real["keypoints"], truth, atol=0.01)


def test_the_seed_and_the_prompt_decide(server: ViewServer, store: Store) -> None:
    first, again, other, words, own = (
        imagine(server, **changes)[1]["imagined"]["frames"]
        for changes in ({}, {}, {"seed": 2}, {"prompt": "the red red red puck"}, {"prompt": store.task.prompt})
    )
    assert first == again == own
    assert first[1:] != other[1:]
    assert first[1:] != words[1:]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"k": 10}, "not k=10"),
        ({"k": "5"}, "k must be a whole number"),
        ({"prompt": "push " * 150}, "tokens"),
        ({"prompt": "push " * 1000}, "characters"),
        ({"prompt": "\ud800"}, "surrogate"),
        ({"prompt": 3}, "must be a text"),
        ({"episode": 5}, "episodes 0 to 4"),
        ({"episode": True}, "whole number"),
        ({"step": -1}, "has steps 0 to"),
        ({"step": 12}, "nothing follows"),
        ({"seed": -1}, "seed"),
        ({"seed": 1.5}, "whole number"),
    ],
)
def test_what_cannot_be_imagined_is_said_in_one_line(
    server: ViewServer, changes: dict[str, object], reason: str
) -> None:
    status, said = imagine(server, **changes)
    assert status == 400
    assert reason in said["error"]
    assert "\n" not in said["error"]


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff", b"null", b" " * 70_000])
def test_requests_that_are_none(server: ViewServer, body: bytes) -> None:
    status, said = post(server, body)
    assert status == 400
    assert said["error"].startswith("the request")


def test_other_pages_and_other_paths_get_nothing(server: ViewServer) -> None:
    assert ask(server, "POST", "/api/imagine", json.dumps(ASKED).encode(), **{"Content-Type": "text/plain"})[0] == 400
    assert ask(server, "GET", "/api/about", Host="elsewhere.example")[0] == 403
    assert ask(server, "GET", "/../view.py")[0] == 404
    assert ask(server, "GET", "/api/frame?episode=x&step=0")[0] == 400


def test_the_page_needs_nothing_from_elsewhere(server: ViewServer) -> None:
    status, page = ask(server, "GET", "/")
    assert status == 200
    assert b"http://" not in page and b"https://" not in page and b"src=//" not in page


def test_a_run_folder_has_all_parts(tmp_path: Path) -> None:
    (tmp_path / "lora").mkdir()
    (tmp_path / "config.json").write_text(json.dumps({"base": "a/base"}))
    store, parts = find(Config(tmp_path))
    assert (store, parts.decoder, parts.lora) == (tmp_path / "demos", tmp_path / "decoder", tmp_path / "lora")
    assert (parts.base, parts.length) == ("a/base", None)
    assert find(Config(tmp_path, store=Path("other"), base="my/base"))[0] == Path("other")


def test_what_is_missing_is_named(tmp_path: Path, server: ViewServer, store_path: Path, decoder_path: Path) -> None:
    with pytest.raises(PixeltrajError, match="give --decoder, or"):
        find(Config(store=tmp_path))
    with pytest.raises(PixeltrajError, match="no run at"):
        find(Config(tmp_path / "none"))
    with pytest.raises(PixeltrajError, match="another base"):
        serve(Config(store=store_path, decoder=decoder_path))


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
def page(server: ViewServer, tmp_path: Path) -> Iterator[Chromium]:
    if CHROMIUM is None:
        pytest.skip("no Chromium is installed here: nothing can open the page")
    browser = Chromium(tmp_path / "profile", f"{server.url}#episode=4&step=3&seed=1&k=5")
    try:
        yield browser
    finally:
        browser.close()


STATE = "document.querySelector('main')?.dataset.state"
MIDDLE = "(b => [b.x + b.width / 2, b.y + b.height / 2])(document.querySelector('{}').getBoundingClientRect())"
CIRCLES = "[...document.querySelectorAll('#{} circle:has(title)')].map(c => [c.cx.baseVal.value, c.cy.baseVal.value])"
TABLE = "[...document.querySelectorAll('tbody tr')].map(r => [...r.children].map(c => c.firstChild.data))"


def figures(values: list[float]) -> list[str]:
    return [f"{value:.3f}".replace("-0.000", "0.000").replace("-", "\N{MINUS SIGN}") for value in values]


def test_in_chromium_a_trajectory_is_imagined_and_looked_at(page: Chromium, server: ViewServer, store: Store) -> None:
    said = imagine(server)[1]
    imagined, real = said["imagined"], said["real"]
    page.wait(f"{STATE} === 'waiting'")
    assert page("document.querySelector('#prompt').value") == store.task.prompt
    assert page("document.querySelector('#split').textContent") == "held out"
    page.wait("document.querySelector('#start img').naturalWidth === 84")

    page.click("#go")
    page.wait(f"{STATE} === 'ready'")
    page.click("#play")  # it plays by itself: this stops it
    page("turn(0)")
    last = max(len(imagined["frames"]), len(real["frames"])) - 1
    for moment in range(last + 1):
        assert page("document.querySelector('main').dataset.frame") == str(moment)
        table = page(TABLE)
        assert [row[0] for row in table] == [d.name.replace("_", " ") for d in store.task.state]
        for side, part, column in (("imagined", imagined, 1), ("real", real, 2)):
            at = min(moment, len(part["frames"]) - 1)
            assert page(f"document.querySelector('#{side} img').src") == part["frames"][at]
            assert np.allclose(page(CIRCLES.format(side)), part["keypoints"][at], atol=0.01)
            if moment == at:
                assert [row[column] for row in table] == figures(part["states"][at])
        page.press("ArrowRight")
    assert page("document.querySelectorAll('#lines figure').length") == store.task.state_size
    assert page("document.documentElement.scrollHeight <= innerHeight"), "1280x800 is enough for all of it"

    page.press("ArrowLeft")
    assert page("document.querySelector('main').dataset.frame") == str(last - 1)
    page.click("#marks")
    assert page("document.querySelectorAll('#imagined circle').length") == 0
    page.click("#dice")
    page.wait(f"{STATE} === 'ready' && result.seed !== 1")
    assert page("location.hash").endswith("&go")


def test_in_chromium_what_cannot_be_done_is_one_line(page: Chromium) -> None:
    page.wait(f"{STATE} === 'waiting'")
    page("document.querySelector('#prompt').value = 'push '.repeat(150)")
    page.click("#go")
    page.wait(f"{STATE} === 'failed'")
    status = page("document.querySelector('#status').textContent")
    assert "tokens, the text encoder of" in status
    assert "\n" not in status and "Traceback" not in status
    assert page("document.querySelector('#go').disabled") is False
