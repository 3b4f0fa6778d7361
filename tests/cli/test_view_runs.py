"""`pixeltraj view` of a folder of runs: which ones it finds, what is loaded when, and how a task is picked."""

import http.client
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from pixeltraj.cli.view import Config, find, serve
from pixeltraj.cli.view_server import ViewServer
from pixeltraj.decode.train import TrainConfig, train
from pixeltraj.errors import PixeltrajError
from pixeltraj.render.collect import CollectConfig, collect
from pixeltraj.render.render import RenderConfig, render
from pixeltraj.store import Store
from tests.conftest import QUICK

MAZE = "PointMaze_UMaze-v3"
STATE = "document.querySelector('main')?.dataset.state"
STATUS = "document.querySelector('#status').textContent"


@pytest.fixture(scope="module")
def maze_path(base_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of another task: a store, a decoder, and the base's name in config.json."""
    folder = tmp_path_factory.mktemp("runs") / "maze"
    collect(CollectConfig(MAZE, folder / "store", policy="random", episodes=5, max_steps=8))
    render(RenderConfig(folder / "store"))
    train(TrainConfig(folder / "store", folder / "decoder", str(base_path), k=(5,), **QUICK))
    (folder / "config.json").write_text(json.dumps({"base": str(base_path)}))
    return folder


@pytest.fixture(scope="module")
def runs_path(
    store_path: Path,
    decoder_path: Path,
    maze_path: Path,
    base_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """Two runs that work, three that do not, each in its own way, and two folders that are no runs."""
    folder = tmp_path_factory.mktemp("several")
    (folder / MAZE).symlink_to(maze_path)
    settings = json.dumps({"base": str(base_path)})
    parts = {
        "a decoder of another": {"demos": store_path, "decoder": maze_path / "decoder"},
        "my push": {"demos": store_path, "decoder": decoder_path},
        "unfinished": {"demos": store_path},
    }
    for name, links in parts.items():
        (folder / name).mkdir()
        (folder / name / "config.json").write_text(settings)
        for part, there in links.items():
            (folder / name / part).symlink_to(there)
    (folder / "empty" / "lora").mkdir(parents=True)
    (folder / "notes").mkdir()
    (folder / ".hidden" / "demos").mkdir(parents=True)
    return folder


@pytest.fixture
def server(runs_path: Path, served: Callable[[Config], ViewServer]) -> ViewServer:
    return served(Config(runs_path, num_inference_steps=2))


def ask(server: ViewServer, path: str, body: dict[str, Any] | None = None) -> tuple[int, dict[str, Any]]:
    connection = http.client.HTTPConnection(*server.server_address[:2])
    try:
        text = None if body is None else json.dumps(body)
        connection.request("GET" if body is None else "POST", path, text, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        connection.close()


def test_each_run_is_listed_and_none_is_loaded(server: ViewServer) -> None:
    listed = {run["name"]: run for run in ask(server, "/api/runs")[1]["runs"]}
    assert list(listed) == sorted([MAZE, "a decoder of another", "my push", "unfinished", "empty"])
    assert listed["my push"] == {"name": "my push", "task": "push-v3", "error": None}
    assert listed[MAZE] == {"name": MAZE, "task": MAZE, "error": None}
    assert "no decoder at" in listed["unfinished"]["error"]
    assert listed["empty"]["task"] is None
    assert "demos" in listed["empty"]["error"] and "\n" not in listed["empty"]["error"]
    assert [run.loaded for run in server.runs.values()] == [False] * 5


def test_a_run_is_loaded_once_when_it_is_asked_for(server: ViewServer, monkeypatch: pytest.MonkeyPatch) -> None:
    run, loads = server.runs["my push"], []
    load = run._load
    monkeypatch.setattr(run, "_load", lambda: loads.append(1) or load())
    asking = [threading.Thread(target=ask, args=(server, "/api/about?run=my%20push")) for _ in range(3)]
    for thread in asking:
        thread.start()
    for thread in asking:
        thread.join()
    assert loads == [1]
    assert [name for name, run in server.runs.items() if run.loaded] == ["my push"]


def test_runs_that_are_loaded_at_once_come_out_whole(server: ViewServer) -> None:
    paths = [f"/api/about?run={quote(name)}" for name in ("my push", MAZE)]
    asking = [threading.Thread(target=ask, args=(server, path)) for path in paths]
    for thread in asking:
        thread.start()
    for thread in asking:
        thread.join()
    for name in ("my push", MAZE):
        assert server.runs[name].loaded
        viewer = server.runs[name].open()
        assert not any(weight.is_meta for weight in viewer.imaginer.decoder.heads.parameters())


def test_each_run_imagines_for_its_own_task(server: ViewServer, maze_path: Path, store: Store) -> None:
    maze = Store.open(maze_path / "store")
    for name, of in (("my push", store), (MAZE, maze)):
        about = ask(server, f"/api/about?run={quote(name)}")[1]
        assert (about["task"], about["prompt"]) == (of.task.name, of.task.prompt)
        asked = {"run": name, "episode": 4, "step": 2, "seed": 0, "k": 5}
        status, said = ask(server, "/api/imagine", asked)
        assert status == 200
        assert len(said["imagined"][0]["states"][0]) == of.task.state_size
        assert ask(server, "/api/imagine", asked | {"run": "none"})[1]["error"].startswith("there is no run 'none'")
    assert "there is no run None" in ask(server, "/api/about")[1]["error"]
    assert ask(server, "/api/about?run=../runs")[0] == 400


def test_a_broken_run_leaves_the_others_alone(server: ViewServer) -> None:
    for _ in range(2):  # tried again, told again
        status, said = ask(server, "/api/about?run=a%20decoder%20of%20another")
        assert status == 400
        assert f"reads {MAZE}" in said["error"] and "holds push-v3" in said["error"]
    listed = {run["name"]: run["error"] for run in ask(server, "/api/runs")[1]["runs"]}
    assert listed["a decoder of another"] == said["error"]
    assert ask(server, f"/api/about?run={MAZE}")[0] == 200


def test_a_run_that_was_mended_is_shown(
    tmp_path: Path, store_path: Path, decoder_path: Path, base_path: Path, served: Callable[[Config], ViewServer]
) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "demos").symlink_to(store_path)
        (tmp_path / name / "config.json").write_text("{")
    with pytest.raises(PixeltrajError, match=r"none of the 2 runs in .* of one: .*config.json is not the JSON"):
        serve(Config(tmp_path))
    (tmp_path / "two" / "config.json").write_text(json.dumps({"base": str(base_path)}))
    (tmp_path / "two" / "decoder").symlink_to(decoder_path)
    server = served(Config(tmp_path))
    assert ask(server, "/api/about?run=one")[0] == 400
    (tmp_path / "one" / "config.json").unlink()
    (tmp_path / "one" / "config.json").symlink_to(tmp_path / "two" / "config.json")
    (tmp_path / "one" / "decoder").symlink_to(decoder_path)
    assert ask(server, "/api/about?run=one")[0] == 200
    assert ask(server, "/api/runs")[1]["runs"][0]["error"] is None


def test_what_a_folder_holds(tmp_path: Path, runs_path: Path, maze_path: Path) -> None:
    assert [run.store for run in find(Config(maze_path))] == [maze_path / "store"]
    with pytest.raises(PixeltrajError, match="holds 5 runs, --lora is for one"):
        find(Config(runs_path, lora=tmp_path))
    with pytest.raises(PixeltrajError, match="is no run and holds none; `pixeltraj demo --out"):
        find(Config(tmp_path))
    (alone,) = find(Config(tmp_path, store=maze_path / "store"))
    assert alone.parts.decoder == tmp_path / "decoder"


def test_in_chromium_a_task_is_picked(server: ViewServer, store: Store, browse: Callable[[str], Any]) -> None:
    page = browse(f"{server.url}#run=my+push&samples=2")
    page.wait(f"{STATE} === 'waiting'")
    options = page("[...document.querySelectorAll('#run option')].map(o => o.text)")
    usable = [MAZE, "push-v3 · a decoder of another", "push-v3 · my push"]  # as far as can be told without loading
    assert [text for text in options if "✗" not in text] == usable
    assert [text.split(" ✗ ")[0] for text in options if "✗" in text] == ["empty", "push-v3 · unfinished"]
    assert page("document.querySelector('#prompt').value") == store.task.prompt
    assert page("document.querySelector('#samples').value") == "2"
    page.click("#go")
    page.wait(f"{STATE} === 'ready'")
    assert "run=my+push" in page("location.hash")

    pick = "(run => {{ run.value = {!r}; run.dispatchEvent(new Event('change')); }})(document.querySelector('#run'))"
    page(pick.format("unfinished"))
    page.wait(f"{STATE} === 'failed'")
    assert "no decoder at" in page(STATUS)
    assert page("document.querySelector('#choices').disabled && !document.querySelector('.result').offsetParent")
    page(pick.format(MAZE))
    page.wait(f"{STATE} === 'waiting'")
    assert page("document.querySelector('#task').textContent").endswith(MAZE)
    assert page(STATUS) == ""
    page.wait("document.querySelector('#start img').naturalWidth === 84")
    page("document.querySelector('#prompt').focus()")
    page.click("#go")
    page.wait(f"{STATE} === 'ready'")
    assert page("result.imagined.length") == 2
    assert page("document.documentElement.scrollWidth <= innerWidth")

    page.send("Emulation.setDeviceMetricsOverride", width=700, height=900, deviceScaleFactor=1, mobile=False)
    assert page("document.documentElement.scrollWidth <= innerWidth"), "700 pixels are wide enough"


def test_in_chromium_a_task_is_picked_with_the_keyboard(server: ViewServer, browse: Callable[[str], Any]) -> None:
    page = browse(f"{server.url}#run=my+push")
    page.wait(f"{STATE} === 'waiting'")
    page("document.querySelector('#run').focus()")
    for letter in "poin":  # a list is searched by typing
        page.press(letter, letter)
    page.wait(f"about?.task === '{MAZE}' && {STATE} === 'waiting'")
