"""The page of `pixeltraj view`: what it is told over HTTP, and what a real browser makes of it."""

import base64
import http.client
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pixeltraj.cli.view import Config, find, serve
from pixeltraj.cli.view_server import ViewServer
from pixeltraj.errors import PixeltrajError
from pixeltraj.store import Store

ASKED = {"episode": 4, "step": 3, "seed": 1, "k": 5}


@pytest.fixture(scope="module")
def server(store_path: Path, base_path: Path, decoder_path: Path, served: Callable[[Config], ViewServer]) -> ViewServer:
    return served(Config(store=store_path, decoder=decoder_path, base=str(base_path), num_inference_steps=2))


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
    (imagined,), real = said["imagined"], said["real"]
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
        imagine(server, **changes)[1]["imagined"][0]["frames"]
        for changes in ({}, {}, {"seed": 2}, {"prompt": "the red red red puck"}, {"prompt": store.task.prompt})
    )
    assert first == again == own
    assert first[1:] != other[1:]
    assert first[1:] != words[1:]


def test_samples_are_different_futures_of_one_state(server: ViewServer) -> None:
    first, again = (imagine(server, samples=3)[1]["imagined"] for _ in range(2))
    assert first == again
    assert len(first) == 3
    assert all(part["frames"][0] == first[0]["frames"][0] for part in first)
    assert len({part["frames"][1] for part in first}) == 3


def test_guidance_steers_by_the_prompt(server: ViewServer) -> None:
    plain, one, none, other, strong = (
        imagine(server, **changes)[1]["imagined"][0]["frames"]
        for changes in (
            {},
            {"guidance": 1},
            {"guidance": 0},
            {"guidance": 0, "prompt": "the red red red puck"},
            {"guidance": 7.5},
        )
    )
    assert plain == one
    assert none == other  # at 0 nothing is left of the words
    assert plain[1:] != none[1:]
    assert plain[1:] != strong[1:]


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
        ({"seed": -1}, "seed"),
        ({"seed": 1.5}, "whole number"),
        ({"samples": 0}, "1 to 4 samples"),
        ({"samples": 5}, "1 to 4 samples"),
        ({"seed": 2**32}, "seed"),
        ({"guidance": -1}, "guidance must be a number from 0"),
        ({"guidance": float("nan")}, "guidance must be a number from 0"),
        ({"guidance": "1"}, "guidance must be a number from 0"),
    ],
)
def test_what_cannot_be_imagined_is_said_in_one_line(
    server: ViewServer, changes: dict[str, object], reason: str
) -> None:
    status, said = imagine(server, **changes)
    assert status == 400
    assert reason in said["error"]
    assert "\n" not in said["error"]


def test_nothing_follows_the_last_state(server: ViewServer, store: Store) -> None:
    last = store.episodes[4]["transitions"]
    assert "nothing follows" in imagine(server, step=last)[1]["error"]
    assert imagine(server, step=last - 1)[0] == 200


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
    (run,) = find(Config(tmp_path))
    parts = run.whole_parts()
    assert (run.store, parts.decoder, parts.lora) == (tmp_path / "demos", tmp_path / "decoder", tmp_path / "lora")
    assert (parts.base, parts.length) == ("a/base", None)
    (other,) = find(Config(tmp_path, store=Path("other"), base="my/base"))
    assert (other.store, other.whole_parts().base) == (Path("other"), "my/base")


def test_what_is_missing_is_named(tmp_path: Path, server: ViewServer, store_path: Path, decoder_path: Path) -> None:
    with pytest.raises(PixeltrajError, match="give --decoder, or"):
        find(Config(store=tmp_path))
    with pytest.raises(PixeltrajError, match="no run at"):
        find(Config(tmp_path / "none"))
    with pytest.raises(PixeltrajError, match="another base"):
        serve(Config(store=store_path, decoder=decoder_path))


@pytest.fixture
def page(server: ViewServer, browse: Callable[[str], Any]) -> Any:
    return browse(f"{server.url}#episode=4&step=3&seed=1&k=5")


STATE = "document.querySelector('main')?.dataset.state"
CIRCLES = "[...document.querySelectorAll('#{} circle:has(title)')].map(c => [c.cx.baseVal.value, c.cy.baseVal.value])"
TABLE = "[...document.querySelectorAll('tbody tr')].map(r => [...r.children].map(c => c.firstChild.data))"


def figures(values: list[float]) -> list[str]:
    return [f"{value:.3f}".replace("-0.000", "0.000").replace("-", "\N{MINUS SIGN}") for value in values]


def test_in_chromium_a_trajectory_is_imagined_and_looked_at(page: Any, server: ViewServer, store: Store) -> None:
    said = imagine(server)[1]
    (imagined,), real = said["imagined"], said["real"]
    page.wait(f"{STATE} === 'waiting'")
    assert page("document.querySelector('#prompt').value") == store.task.prompt
    assert page("document.querySelector('#split').textContent") == "held out"
    page.wait("document.querySelector('#start img').naturalWidth === 84")
    assert page("document.querySelector('#run').offsetParent === null"), "one run: nothing to pick"

    page.click("#go")
    page.wait(f"{STATE} === 'ready'")
    page.click("#play")  # it plays by itself: this stops it
    page("turn(0)")
    last = max(len(imagined["frames"]), len(real["frames"])) - 1
    for moment in range(last + 1):
        assert page("document.querySelector('main').dataset.frame") == str(moment)
        table = page(TABLE)
        assert [row[0] for row in table] == [d.name.replace("_", " ") for d in store.task.state]
        for side, part, column in (("sample-0", imagined, 1), ("real", real, 2)):
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
    assert page("document.querySelectorAll('#sample-0 circle').length") == 0
    page.click("#dice")
    page.wait(f"{STATE} === 'ready' && result.seed !== 1")
    assert page("location.hash").endswith("&go")


def test_in_chromium_samples_stand_side_by_side(page: Any, server: ViewServer) -> None:
    samples = imagine(server, samples=4)[1]["imagined"]
    page.wait(f"{STATE} === 'waiting'")
    page("document.querySelector('#samples').value = '4'")
    page.click("#go")
    page.wait(f"{STATE} === 'ready'")
    page.click("#play")
    page("turn(1)")
    for i, part in enumerate(samples):
        at = min(1, len(part["frames"]) - 1)
        assert page(f"document.querySelector('#sample-{i} img').src") == part["frames"][at]
        assert np.allclose(page(CIRCLES.format(f"sample-{i}")), part["keypoints"][at], atol=0.01)
    for choose in (lambda: page.click("#sample-2"), lambda: page.press("1"), lambda: page.press("3")):
        choose()
        chosen = page("which")
        assert [row[1] for row in page(TABLE)] == figures(samples[chosen]["states"][1])
    assert chosen == 2
    states = np.array([part["states"][1] for part in samples])
    assert [row[4] for row in page(TABLE)] == figures(np.ptp(states, axis=0).tolist())
    assert page("document.querySelectorAll('#lines figure:first-child polyline').length") == 5
    assert page("document.documentElement.scrollHeight <= innerHeight")


def test_in_chromium_what_cannot_be_done_is_one_line(page: Any) -> None:
    page.wait(f"{STATE} === 'waiting'")
    page("document.querySelector('#prompt').value = 'push '.repeat(150)")
    page.click("#go")
    page.wait(f"{STATE} === 'failed'")
    status = page("document.querySelector('#status').textContent")
    assert "tokens, the text encoder of" in status
    assert "\n" not in status and "Traceback" not in status
    assert page("document.querySelector('#go').disabled") is False
