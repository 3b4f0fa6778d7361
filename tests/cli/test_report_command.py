"""`pixeltraj report`: replays, the files it reads, what it says when they do not fit; its page in a real browser."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from pixeltraj.cli import imagine as imagine_command
from pixeltraj.cli.report import Config, report
from pixeltraj.cli.report_audit import Audited, add_checks
from pixeltraj.cli.report_replay import draw_replays, make_cases, real_part, replay
from pixeltraj.errors import PixeltrajError
from pixeltraj.eval.cases import Case, gap
from pixeltraj.store import Store

IMAGINED = 7
SPAN = np.ones(17)


@pytest.fixture(scope="module")
def run(store_path: Path, base_path: Path, decoder_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a store, a decoder without LoRA and an imagined store; do not write into it."""
    folder = tmp_path_factory.mktemp("runs") / "push"
    folder.mkdir()
    (folder / "demos").symlink_to(store_path)
    (folder / "decoder").symlink_to(decoder_path)
    (folder / "config.json").write_text(json.dumps({"base": str(base_path)}))
    imagine_command.imagine(
        imagine_command.Config(
            task="push-v3",
            source=store_path,
            out=folder / "imagined",
            decoder=decoder_path,
            base=str(base_path),
            n=IMAGINED,
            num_inference_steps=2,
        )
    )
    return folder


@pytest.fixture(scope="module")
def written(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return report(Config(run, out=tmp_path_factory.mktemp("reports")))


@pytest.fixture
def copied(run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(run, tmp_path / "run", symlinks=True))


def test_real_actions_replay_as_the_real_store_to_the_last_pixel(store: Store) -> None:
    row = int(store.offsets[4]) + 3
    real = real_part(store, row, row + 6)
    assert real is not None
    again = replay(store.task.make(), real, store.read("snapshots", row, row + 1)[0])
    assert np.array_equal(again.states, real.states)
    assert np.array_equal(again.keypoints, real.keypoints)
    case = Case(0, real, again, real, gap(store.task, real, again, SPAN))
    draw_replays([case], store)
    assert np.array_equal(case.replay.frames, real.frames)
    assert case.gap.mean == 0


def test_a_replay_ends_where_the_simulator_ends_or_diverges(store: Store) -> None:
    whole = store.trajectory(4)
    assert whole.snapshots is not None
    simulator = store.task.make()
    assert len(replay(simulator, whole, whole.snapshots[0])) == len(whole)
    past = store.trajectory(4)
    past.actions = np.concatenate([past.actions, past.actions])
    assert len(replay(simulator, past, whole.snapshots[0])) == len(whole), "solved"
    past.actions = np.full_like(past.actions, np.nan)
    broken = replay(simulator, past, whole.snapshots[0])
    assert (len(broken), broken.origin["diverged"]) == (0, True)


def test_it_says_what_was_measured_and_what_was_not(written: Path, run: Path, store: Store) -> None:
    told = json.loads((written.parent / "report.json").read_text())
    assert (told["task"], told["imagined"]["count"], told["seed"]) == ("push-v3", IMAGINED, 0)
    assert told["seconds"] == {} and told["render"]["frames_per_second"] is None
    assert told["agent"]["arms"]["with"]["seeds"] == {}
    assert told["audit"] is None
    assert told["vae"]["psnr_db"] > 0 and told["followed"]["starts"] == IMAGINED
    assert told["identities"]["LoRA"] == "none: the base alone"
    assert f"{store.frame_count} frames" in told["identities"]["real store"]
    source = written.read_text()
    assert "not measured" in source and "pixeltraj audit RUN/imagined" in source
    assert {path.name for path in run.iterdir()} == {"demos", "decoder", "imagined", "config.json"}


@pytest.mark.parametrize(
    ("part", "reason"),
    [
        ("", r"no run at .*`pixeltraj demo --out"),
        ("demos", r"no real store.*`pixeltraj collect TASK --out"),
        ("imagined", r"no imagined store at .*`pixeltraj imagine push-v3 --from"),
        ("decoder", r"no decoder at .*`pixeltraj decode train"),
    ],
)
def test_what_is_missing_is_named_with_its_command(copied: Path, part: str, reason: str) -> None:
    gone = copied / part
    gone.unlink() if gone.is_symlink() else shutil.rmtree(gone)
    with pytest.raises(PixeltrajError, match=reason):
        report(Config(copied))


def test_stores_that_do_not_fit_are_named(copied: Path, store: Store) -> None:
    with pytest.raises(PixeltrajError, match=r"was not imagined: `pixeltraj imagine"):
        report(Config(copied, imagined=copied / "demos"))
    with pytest.raises(PixeltrajError, match=r"holds no simulator states.*pixeltraj collect"):
        report(Config(copied, real=copied / "imagined"))
    other = Store.create(copied / "other", store.task, {"imagined": True, "from": {"seed": 1}}, {})
    with pytest.raises(PixeltrajError, match="is empty"):
        report(Config(copied, imagined=other.path))
    other.append([Store.open(copied / "imagined").trajectory(0)])
    with pytest.raises(PixeltrajError, match=r"from another store .* with --real"):
        report(Config(copied, imagined=other.path))
    with pytest.raises(PixeltrajError, match="at least 1"):
        report(Config(copied, trajectories=0))


def audit_columns(imagined: Store) -> dict[str, np.ndarray]:
    places = [(e, t) for e, episode in enumerate(imagined.episodes) for t in range(episode["transitions"])]
    n, (episode, step) = len(places), np.array(places).T
    flag = np.arange(n) % 3 == 0
    return {
        "episode": episode.copy(),
        "step": step.copy(),
        "error": np.zeros((n, 17), np.float32),
        "error_pct": np.arange(n, dtype=np.float32),
        "action_residual": np.full((n, 4), -0.5, np.float32),
        "violation": flag,
        "reward_wrong": ~flag,
        "diverged": np.zeros(n, bool),
    }


def test_an_audit_gives_each_transition_its_figures(run: Path, tmp_path: Path, store: Store) -> None:
    imagined = Store.open(run / "imagined")
    assert Audited.find(tmp_path, given=False, imagined=imagined) is None
    with pytest.raises(PixeltrajError, match=r"`pixeltraj audit .* makes one"):
        Audited.find(tmp_path, given=True, imagined=imagined)
    columns = audit_columns(imagined)
    save_file(columns, tmp_path / "transitions.safetensors")
    (tmp_path / "audit.json").write_text(json.dumps({"task": "push-v3"}))
    audited = Audited.find(tmp_path, given=True, imagined=imagined)
    cases = make_cases(imagined, store, SPAN)
    add_checks(cases, audited)
    told = np.concatenate([case.checks["one_step"] for case in cases])
    assert np.array_equal(told, columns["error_pct"])
    assert cases[1].checks["action_residual"] == pytest.approx(np.full(len(cases[1].imagined), 0.5))
    columns["episode"] = columns["episode"] + IMAGINED
    save_file(columns, tmp_path / "transitions.safetensors")
    with pytest.raises(PixeltrajError, match=r"transitions that .* does not have"):
        Audited.find(tmp_path, given=True, imagined=imagined)
    (tmp_path / "transitions.safetensors").write_bytes(b"no")
    with pytest.raises(PixeltrajError, match="cannot be read"):
        Audited.find(tmp_path, given=True, imagined=imagined)


# In a real browser

FRAME = "+document.querySelector('#player').dataset.frame"
PIXELS = """(picture => {
  const copy = new OffscreenCanvas(84, 84).getContext('2d', {willReadFrequently: true});
  copy.drawImage(picture, 0, 0);
  return [...copy.getImageData(0, 0, 84, 84).data];
})(document.querySelector('#%s canvas'))"""
DISCS = "[...document.querySelectorAll('#imagined circle.disc')].map(c => [c.cx.baseVal.value, c.cy.baseVal.value])"


class Watched:
    """A page whose console, exceptions and requests are kept."""

    def __init__(self, page: Any, url: str, width: int) -> None:
        self.page, self.events = page, []
        receive = page.receive

        def listen() -> dict[str, Any]:
            message = receive()
            self.events.append(message)
            return message

        page.receive = listen
        for domain in ("Page", "Runtime", "Log", "Network"):
            page.send(f"{domain}.enable")
        page.send(
            "Emulation.setDeviceMetricsOverride", width=width, height=800, deviceScaleFactor=1, mobile=width < 500
        )
        page.send("Page.navigate", url=url)
        page.wait("document.querySelector('#player')?.dataset.state === 'ready'")

    def complaints(self) -> list[dict[str, Any]]:
        bad = ("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded")
        return [event for event in self.events if event.get("method") in bad]

    def requested(self) -> list[str]:
        sent = [event["params"] for event in self.events if event.get("method") == "Network.requestWillBeSent"]
        return [one["request"]["url"] for one in sent if not one["request"]["url"].startswith("data:")]


@pytest.fixture
def open_page(written: Path, browse: Callable[[str], Any]) -> Iterator[Callable[[int], Watched]]:
    opened: list[Watched] = []

    def start(width: int) -> Watched:
        opened.append(Watched(browse("about:blank"), written.as_uri(), width))
        return opened[-1]

    yield start
    for watched in opened:
        assert watched.complaints() == []
        assert watched.requested() == [written.as_uri()], "the page itself, and nothing else"


def canvas(page: Any, kind: str) -> np.ndarray:
    return np.array(page(PIXELS % kind), np.uint8).reshape(84, 84, 4)[..., :3]


def test_in_chromium_every_frame_is_the_stores(open_page: Callable[[int], Watched], run: Path, store: Store) -> None:
    page = open_page(1400).page
    imagined = Store.open(run / "imagined")
    page.click("#ends button[data-end=worst]")
    page.click("#play")  # it plays by itself: this stops it
    means = page("data.cases.map(one => one.error ?? Infinity)")
    assert means == sorted(means, reverse=True) and page("which") == 0
    shown = imagined.trajectory(int(page("data.cases[0].episode")))
    case = make_cases(imagined, store, np.ptp(np.concatenate([t.states for t in store][:4]), axis=0))[
        int(page("data.cases[0].episode"))
    ]
    draw_replays([case], store)
    assert shown.frames is not None and case.real is not None and case.replay.frames is not None
    assert page("data.cases[0].percent") == pytest.approx(case.gap.percent, abs=0.006)
    for moment in range(len(shown.frames)):
        page(f"$('moment').value = {moment}; $('moment').dispatchEvent(new Event('input'))")
        assert page(FRAME) == moment
        assert np.array_equal(canvas(page, "imagined"), shown.frames[moment])
        for kind, strip in (("replay", case.replay), ("real", case.real)):
            assert strip.frames is not None
            assert np.array_equal(canvas(page, kind), strip.frames[min(moment, len(strip.frames) - 1)])
        points = store.task.camera.project(shown.keypoints[moment])[:, :2]
        assert np.allclose(page(DISCS), points, atol=0.01)


def test_in_chromium_it_plays_steps_and_jumps(open_page: Callable[[int], Watched]) -> None:
    page = open_page(1400).page
    assert page("which") == page("places().median")
    page("turn(0)")
    page.click("#play")
    page.wait(f"{FRAME} >= 2")
    assert page("document.querySelector('#play').textContent") == "Pause"
    page.press(" ")
    assert page("document.querySelector('#play').textContent") == "Play", "once, though button and page both hear it"
    page("pause(); turn(0)")
    for key, frame in (("ArrowRight", 1), ("ArrowRight", 2), ("ArrowLeft", 1)):
        page.press(key)
        assert page(FRAME) == frame
    page.click("#on")
    assert page(FRAME) == 2
    page.press("ArrowDown")
    assert page("which") == page("places().median") + 1
    page.click("#cases li:first-child button")
    assert page("which") == 0 and page("timer !== null")
    assert page("document.querySelector('#cases button').getAttribute('aria-pressed')") == "true"
    page.click("#marks")
    assert page("document.querySelectorAll('.picture circle').length") == 0
    assert page("[...document.querySelectorAll('canvas')].every(c => c.getAttribute('aria-label').includes('frame'))")


@pytest.mark.parametrize("width", [380, 1400])
def test_in_chromium_nothing_is_wider_than_the_screen(open_page: Callable[[int], Watched], width: int) -> None:
    page = open_page(width).page
    assert page("document.documentElement.scrollWidth") <= width
    wide = (
        "[...document.querySelectorAll('main *')].filter(e => !e.closest('.scroll, svg, #cases') && "
        f"e.getBoundingClientRect().right > {width + 0.5}).map(e => e.outerHTML.slice(0, 80))"
    )
    assert page(wide) == []
