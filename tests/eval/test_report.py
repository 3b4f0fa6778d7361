"""The report: one file, every number in it, and plain words about what imagination was worth."""

import base64
import copy
import hashlib
import html
import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from pixeltraj.errors import PixeltrajError
from pixeltraj.eval.judgement import ABSENT, duration, figure, judge, points, rate
from pixeltraj.eval.page import page
from pixeltraj.eval.report import CONTRACT, write_report


def runs(*finals: float) -> dict[str, Any]:
    seeds = {
        str(i): {"steps": [0, 500, 1000], "success": [0.0, final / 2, final], "final": final}
        for i, final in enumerate(finals)
    }
    return {"seeds": seeds}


def step(error: float) -> dict[str, Any]:
    return {"error_percent": error, "per_dimension": [error / 2, error * 1.5]}


def dimension(name: str, unit: str, *values: float) -> dict[str, Any]:
    wrong = [{"error": values[i], "percent": values[i + 1]} for i in (0, 2, 0)]
    return {"name": name, "unit": unit, **dict(zip(("imagined", "read", "nothing_moves"), copy.deepcopy(wrong)))}


REPORT: dict[str, Any] = {
    "task": "push-v3",
    "prompt": "push the <red> puck & more",
    "machine": {"cpu": "some processor", "cores": 2},
    "seed": 1234,
    "versions": {"pixeltraj": "0.1.0", "torch": "2.13.0"},
    "seconds": {"collect": 14.21, "finetune": 412.0, "eval": 95.5},
    "render": {"frames_per_second": 358.2},
    "finetune": {
        "loss_before": 0.18341,
        "loss_after": 0.09212,
        "steps": 611,
        "heldout_loss_before": 0.1893,
        "heldout_loss_after": 0.1014,
    },
    "vae": {"psnr_db": 33.42, "foreground_psnr_db": 27.61},
    "decoder": {
        "states": [
            {"name": "hand_x", "unit": "m", "error": 0.00441, "percent_of_range": 1.13},
            {"name": "speed", "unit": "m/s", "error": 0.217, "percent_of_range": 2.29},
        ],
        "keypoints_mm": {"hand": 5.21, "object": 2.73},
        "action_r2": [0.571, 0.823],
        "reward": {"precision": 0.98, "recall": 0.71, "positives": 8, "windows": 246},
    },
    "imagined": {
        "states": [
            {"name": "hand_x", "unit": "m", "error": 0.01512, "percent_of_range": 3.87},
            {"name": "speed", "unit": "m/s", "error": 0.653, "percent_of_range": 6.91},
        ],
        "reward": {"precision": 0.83, "recall": 0.55, "positives": 6, "windows": 64},
        "trajectories_per_second": 9.84,
        "count": 63,
    },
    "one_step": {
        "imagined": step(2.41),
        "real": step(1.33),
        "nothing_moves": step(3.92),
        "shuffled_actions": step(4.75),
    },
    "agent": {
        "arms": {"without": runs(0.41, 0.44, 0.47), "with": runs(0.66, 0.62, 0.73)},
        "difference": {"mean": 0.23, "low": 0.14, "high": 0.32},
        "verdict": "Imagination helped: says the experiment.",
        "steps": 3005,
        "offline_episodes": 21,
        "curves_png": "curves.png",
    },
    "pictures": {"grid_png": "grid.png", "grid_gif": "grid.gif"},
    "horizon": {
        "steps": [1, 2, 3],
        "trajectories": [63, 62, 59],
        "imagined": [1.91, 2.92, 4.13],
        "read": [1.04, 1.15, 1.26],
        "acted": [0.171, 0.282, 0.393],
        "nothing_moves": [2.14, 4.25, 6.36],
    },
    "dimensions": [
        dimension("hand_x", "m", 0.0111, 2.81, 0.00392, 1.31),
        dimension("speed", "m/s", 0.431, 4.57, 0.187, 1.97),
    ],
    "followed": {"starts": 61, "read": 1.22, "acted": 0.311, "imagined": 3.44, "nothing_moves": 5.11},
    "open_loop": {"imagined": 3.05, "nothing_moves": 4.26},
    "ended_early": 7,
    "audit": {
        "labels": ["one-step error, % of range", "diversity"],
        "columns": {"imagined": [2.37, 0.83], "nothing moves": [3.86, None]},
        "transitions": 251,
        "violations": 13,
        "rewards_wrong": 9,
        "diverged": 2,
    },
    "identities": {"base": "embedded, f30b0e55687dfe60", "decoder": "0f5f71e8b03a897c, seed 0"},
    "data": {
        "collected": "25 episodes of the scripted policy",
        "base_has_seen": "40 other episodes of push-v3",
        "heldout": "every fifth episode",
    },
}


def leaves(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Paths of all numbers."""
    if isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        return [leaf for key, item in items for leaf in leaves(item, (*path, key))]
    return [path] if isinstance(value, int | float) else []


def at(value: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        value = value[key]
    return value


class Page(HTMLParser):
    """Text and attributes of a page; fails on tags that do not match."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.words: list[str] = []
        self.attributes: list[tuple[str, str, str | None]] = []
        self.open: list[str] = []
        self.feed(source)
        assert self.open == []
        self.text = re.sub(r"[ \n]+", " ", " ".join(self.words))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, *attribute) for attribute in attrs]
        if tag not in ("meta", "img", "link", "input"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, *attribute) for attribute in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("style", "title", "script"):
            self.words.append(data)


@pytest.fixture
def write(tmp_path: Path) -> Callable[[dict[str, Any]], str]:
    def write(report: dict[str, Any]) -> str:
        (tmp_path / "report.json").write_text(json.dumps(report))
        assert write_report(tmp_path) == tmp_path / "report.html"
        return (tmp_path / "report.html").read_text()

    return write


def with_difference(mean: float | None, low: float | None, high: float | None) -> dict[str, Any]:
    report = copy.deepcopy(REPORT)
    report["agent"]["difference"] = {"mean": mean, "low": low, "high": high}
    return report


def shown_as(path: tuple[Any, ...], value: float) -> str:
    """How the number at that path is written."""
    match path:
        case ("seconds", _):
            return duration(value)
        case ("agent", "arms", _, "seeds", _, "final"):
            return rate(value)
        case ("agent", "difference", _):
            return points(value)
        case ("seed",) | ("machine", _):
            return str(value)
        case (_, "states", 0, "error"):
            return figure(1000 * value, "mm")
        case (_, "states", 1, "error"):
            return figure(value, "m/s")
        case (_, "states", _, "percent_of_range") | ("one_step", _, "error_percent"):
            return figure(value, "%")
        case ("decoder", "keypoints_mm", _):
            return figure(value, "mm")
        case ("vae", _):
            return figure(value, "dB")
        case ("dimensions", 0, _, "error"):
            return figure(1000 * value, "mm")
        case ("dimensions", 1, _, "error"):
            return figure(value, "m/s")
        case ("dimensions", _, _, "percent") | ("open_loop", _):
            return figure(value, "%")
        case ("horizon", name, _) if name not in ("steps", "trajectories"):
            return figure(value, "%")
        case ("followed", name) if name != "starts":
            return figure(value, "%")
    return figure(value)


def drawn(path: tuple[Any, ...]) -> bool:
    """Points of learning curves, and the ticks of a predictor: not written."""
    curve = path[:2] == ("agent", "arms") and path[-2] in ("steps", "success")
    return curve or (path[0] == "dimensions" and path[2] == "nothing_moves")


def test_every_number_is_in_the_page(write: Callable[[dict[str, Any]], str]) -> None:
    text = Page(write(REPORT)).text
    checked = [path for path in leaves(REPORT) if not drawn(path)]
    assert len(checked) > 50
    for path in checked:
        number = shown_as(path, at(REPORT, path))
        assert re.search(rf"(?<![\d.,]){re.escape(number)}(?![\d.])", text), f"{path}: {number}"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, ABSENT),
        (0, "0"),
        (0.0, "0.00"),
        (1.46e-6, "≈0"),
        (5, "5"),
        (3005, "3,005"),
        (0.00712, "0.00712"),
        (358.2, "358"),
    ],
)
def test_numbers_have_three_digits(value: float | None, text: str) -> None:
    assert figure(value) == text


def test_a_number_that_was_not_measured_is_never_zero(write: Callable[[dict[str, Any]], str]) -> None:
    report = copy.deepcopy(REPORT)
    numbers = [
        path for path in leaves(report) if path[0] not in ("seed", "machine") and path[:2] != ("horizon", "steps")
    ]
    for path in numbers:
        at(report, path[:-1])[path[-1]] = None
    page = Page(write(report))
    assert page.text.count(ABSENT) > 60
    joints = page.text.split("Every joint, measured")[1].split("How it was made")[0]
    labels = r"0 is no better|\bgain 0\b"  # of the R2 card, and seed 0 in the first row below "gain"
    assert not re.search(r"(?<![\w.])0(\.0+)?(?![\w.])", re.sub(labels, "", joints))
    assert "Not measured: the agent was not run" in page.text


def test_one_file_that_fetches_nothing(write: Callable[[dict[str, Any]], str]) -> None:
    source = write(REPORT)
    assert not re.search(r"https?://|//[a-z]+\.|@import|url\(", source)
    page = Page(source)
    assert [value for _, name, value in page.attributes if name in ("src", "href", "srcset", "data")] == ["data:,"]
    script = source.split("<script>")[1].split("</script>")[0]
    assert f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'" in source
    assert "{{" not in source


def test_text_is_escaped(write: Callable[[dict[str, Any]], str]) -> None:
    report = copy.deepcopy(REPORT)
    nasty = "<script>alert(1)</script>&"
    for path in (("task",), ("agent", "verdict"), ("data", "heldout"), ("machine", "cpu"), ("versions", "torch")):
        at(report, path[:-1])[path[-1]] = nasty
    report["decoder"]["states"][0]["name"] = report["imagined"]["states"][0]["name"] = nasty
    report["decoder"]["states"][0]["unit"] = nasty
    report["seconds"] = {nasty: 1.0}
    report["decoder"]["keypoints_mm"] = {nasty: 1.0}
    report["agent"]["arms"]["with"]["seeds"][nasty] = report["agent"]["arms"]["with"]["seeds"].pop("0")
    report["dimensions"][0] |= {"name": nasty, "unit": nasty}
    report["identities"] = {nasty: nasty}
    report["audit"]["labels"][0] = nasty
    source = write(report)
    assert source.count("<script") == 2, "its data and its own"
    assert source.count(html.escape(nasty)) >= 14


def test_words_say_whether_imagination_helped(write: Callable[[dict[str, Any]], str]) -> None:
    for difference, kind, words in (
        ((0.23, 0.14, 0.32), "helped", "Imagination helped here."),
        ((0.23, -0.02, 0.48), "open", "One cannot tell whether imagination helps here."),
        ((-0.11, -0.30, 0.08), "not", "Imagination did not help here."),
        ((-0.20, -0.30, -0.10), "not", "Imagination did not help here."),
        ((0.0, 0.0, 0.0), "not", "Imagination did not help here."),
        ((0.23, None, None), "open", "One cannot tell yet whether imagination helps here."),
    ):
        report = with_difference(*difference)
        assert judge(report)[:2] == (kind, words)
        page = Page(write(report))
        assert words in page.text
        assert ("helped here" in page.text) == (kind == "helped")
        assert ("section", "class", f"verdict {kind}") in page.attributes
        assert f"{points(difference[0])} points" in page.text
    assert "harm is not certain" in " ".join(judge(with_difference(-0.11, -0.30, 0.08))[2])
    assert "harm is not certain" not in " ".join(judge(with_difference(-0.2, -0.3, -0.1))[2])


def test_two_seeds_are_no_evidence() -> None:
    report = with_difference(0.23, 0.14, 0.32)
    for arm in report["agent"]["arms"].values():
        del arm["seeds"]["2"]
    kind, headline, said = judge(report)
    assert (kind, headline) == ("open", "One cannot tell yet whether imagination helps here.")
    assert "Over 2 seeds" in said[1] and "at least 3" in said[1]


def test_only_seeds_with_both_arms_are_compared() -> None:
    report = copy.deepcopy(REPORT)
    report["agent"]["arms"]["without"]["seeds"]["9"] = {"steps": [], "success": [], "final": 0.99}
    assert judge(report) == judge(REPORT)


def test_it_says_when_standing_still_predicts_as_well() -> None:
    report = copy.deepcopy(REPORT)
    assert "closer than" in judge(report)[2][-1]
    report["one_step"]["imagined"]["error_percent"] = 4.0
    assert "no better than" in judge(report)[2][-1]


def paths_of(shape: Any, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    if not isinstance(shape, dict):
        return []
    keys = [key for key in shape if key != "*"]
    return [(*path, key) for key in keys] + [p for key in keys for p in paths_of(shape[key], (*path, key))]


@pytest.mark.parametrize("path", paths_of(CONTRACT), ids=".".join)
def test_a_missing_key_is_named(tmp_path: Path, path: tuple[str, ...]) -> None:
    report = copy.deepcopy(REPORT)
    del at(report, path[:-1])[path[-1]]
    (tmp_path / "report.json").write_text(json.dumps(report))
    with pytest.raises(PixeltrajError, match=rf"has no {re.escape('.'.join(path))};"):
        write_report(tmp_path)
    assert not (tmp_path / "report.html").exists()


@pytest.mark.parametrize(
    ("path", "value", "complaint"),
    [
        (("seed",), "one", "seed is 'one', wanted a number"),
        (("vae", "psnr_db"), float("nan"), "vae.psnr_db is nan"),
        (("vae", "psnr_db"), True, "vae.psnr_db is True"),
        (("prompt",), None, "prompt is None, wanted a text"),
        (("seconds",), [], "wanted an object"),
        (("decoder", "action_r2"), 0.5, "wanted a list"),
        (("decoder", "states"), [{"name": "hand_x"}], r"no decoder.states\[0\].unit"),
        (("imagined", "states"), [], "the same dimensions"),
        (("one_step", "real", "per_dimension"), [1.0], "2 entries or none"),
        (("agent", "arms", "with", "seeds", "0", "steps"), [1], "unlike length"),
        (("horizon", "read"), [1.0], "horizon.read must have 3 entries"),
        (("dimensions",), [{"name": "x", "unit": "m"}], r"no dimensions\[0\].imagined"),
    ],
)
def test_a_wrong_value_is_named(write: Callable, path: tuple[str, ...], value: Any, complaint: str) -> None:
    report = copy.deepcopy(REPORT)
    at(report, path[:-1])[path[-1]] = value
    with pytest.raises(PixeltrajError, match=complaint):
        write(report)


def test_without_report_json(tmp_path: Path) -> None:
    with pytest.raises(PixeltrajError, match="no report at"):
        write_report(tmp_path)


def test_what_was_not_run_is_said(write: Callable[[dict[str, Any]], str]) -> None:
    report = copy.deepcopy(REPORT)
    report["audit"] = report["agent"]["curves_png"] = None
    report["agent"]["arms"] = {"without": {"seeds": {}}, "with": {"seeds": {}}}
    text = Page(write(report)).text
    assert "pixeltraj audit RUN/imagined --real" in text and "As a file" not in text
    assert "It was not run both with and without imagination: `pixeltraj eval` does." in text


def test_what_the_player_plays_cannot_end_its_script() -> None:
    player = {"cases": [], "nasty": "</script><script>alert(1)</script><!--"}
    data, *rest = page(REPORT, player).split('id="data">')[1].split("</script>")
    assert json.loads(data) == player and len(rest) == 2


def test_a_curve_goes_through_its_points(write: Callable[[dict[str, Any]], str]) -> None:
    page = Page(write(REPORT))
    lines = {}
    for (_, _, kind), (_, _, line) in zip(page.attributes, page.attributes[1:]):  # the last ones are the agent's
        if kind in ("with", "without") and line and "," in line:
            lines[kind] = [tuple(map(float, point.split(","))) for point in line.split()]
    assert {len(line) for line in lines.values()} == {3}
    (x0, y0), (x1, _), (x2, y2) = lines["with"]
    assert x1 - x0 == pytest.approx(x2 - x1, abs=0.11)
    full = (y0 - y2) / 0.67  # pixels from 0 to 1: the mean of the finals with imagination is .67
    assert y0 - lines["without"][2][1] == pytest.approx(0.44 * full, abs=0.2)
