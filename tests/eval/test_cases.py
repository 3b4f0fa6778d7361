"""Cases: how far imagination is from its replay, which ones are looked at, and what the figures of all are."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from pixeltraj.eval.cases import Case, chosen, gap, ranked
from pixeltraj.eval.judgement import figure, weakest
from pixeltraj.eval.losses import losses
from pixeltraj.eval.sprites import COLUMNS, sprite_sheet
from pixeltraj.tasks import get_task
from pixeltraj.trajectory import Trajectory

TASK = get_task("push-v3")
SPAN = np.linspace(0.1, 0.5, TASK.state_size)
POINTS = np.tile(np.asarray(TASK.camera.lookat), (len(TASK.keypoints), 1))


def walk(steps: int, pace: float) -> Trajectory:
    """Every dimension moves by `pace` of its range a step, every keypoint by `pace` metres along the camera's right."""
    t = np.arange(steps + 1)[:, None]
    points = POINTS + pace * t[..., None] * TASK.camera.rotation[0]
    return Trajectory(
        states=(pace * t * SPAN).astype(np.float64),
        actions=np.zeros((steps, TASK.action_size)),
        rewards=np.zeros(steps),
        terminations=np.zeros(steps, dtype=bool),
        truncations=np.zeros(steps, dtype=bool),
        keypoints=points,
    )


def case(episode: int, steps: int, pace: float, replayed: int | None = None) -> Case:
    imagined, replay = walk(steps, pace), walk(replayed or steps, 0.0)
    return Case(episode, imagined, replay, walk(steps, pace / 2), gap(TASK, imagined, replay, SPAN))


def test_a_gap_is_in_percent_of_range_millimetres_and_pixels() -> None:
    apart = gap(TASK, walk(4, 0.01), walk(2, 0.0), SPAN)
    assert len(apart) == 3, "frames that both have"
    assert apart.percent == pytest.approx([0, 1, 2])
    assert apart.mean == pytest.approx(1.5), "the first frame is known"
    assert apart.millimetres == pytest.approx([0, 10, 20])
    pixel = TASK.camera.focal * 0.01 / TASK.camera.distance  # all of them as far as the point that it looks at
    assert apart.pixels == pytest.approx([0, pixel, 2 * pixel])
    assert apart.dimensions[2] == pytest.approx(0.02 * SPAN)


@pytest.mark.parametrize(
    ("most", "frames", "count"), [(24, 10_000, 24), (24, 60, 12), (7, 10_000, 7), (40, 10_000, 31)]
)
def test_the_worst_the_median_and_the_best_are_always_chosen(most: int, frames: int, count: int) -> None:
    order = ranked([case(i, 4, 0.001 * ((7 * i) % 31)) for i in range(31)])
    means = [one.gap.mean for one in order]
    assert means == sorted(means)
    picked = chosen(order, most, frames)
    assert count - 1 <= len(picked) <= count
    assert picked[0] is order[0] and picked[-1] is order[-1]
    assert any(one is order[15] for one in picked)
    assert chosen(order, most, 1)[0] is order[0] and len(chosen(order, most, 1)) == 3
    assert chosen(order[:1], most, frames) == order[:1]


def test_losses_are_means_over_all_frames_but_the_first() -> None:
    cases = [case(0, 2, 0.01), case(1, 4, 0.02, replayed=3)]
    read = [walk(2, 0.006), None]
    found = losses(TASK, SPAN, cases, read, [walk(1, 0.005), None])
    assert found["horizon"]["steps"] == [1, 2, 3]
    assert found["horizon"]["trajectories"] == [2, 2, 1]
    assert found["horizon"]["imagined"] == pytest.approx([1.5, 3, 6])
    assert found["horizon"]["read"] == [pytest.approx(0.1), pytest.approx(0.2), None]
    assert found["horizon"]["acted"] == [pytest.approx(0), None, None]
    assert found["open_loop"] == {"imagined": pytest.approx((1 + 2 + 2 + 4 + 6) / 5), "nothing_moves": 0}
    assert found["followed"]["starts"] == 2
    assert found["followed"]["imagined"] == pytest.approx((0.5 + 1 + 1 + 2 + 3 + 4) / 6)
    assert found["followed"]["nothing_moves"] == pytest.approx(found["followed"]["imagined"])
    assert found["ended_early"] == 1
    rows = {row["name"]: row for row in found["dimensions"]}
    assert rows["hand_x"]["imagined"]["error"] == pytest.approx(0.03 * SPAN[0])
    assert rows["hand_x"]["imagined"]["percent"] == pytest.approx(3)
    assert rows["goal_x"]["imagined"]["percent"] is None, "it never changes"


def test_nothing_that_followed_is_none_and_not_zero() -> None:
    alone = case(0, 2, 0.01)
    alone.real = None
    found = losses(TASK, SPAN, [alone], [None], [None])
    assert found["followed"] == {"starts": 0, "read": None, "acted": None, "imagined": None, "nothing_moves": None}
    assert found["dimensions"][0]["read"] == {"error": None, "percent": None}


def test_a_sheet_holds_the_very_pixels() -> None:
    frames = np.random.default_rng(0).integers(0, 256, (COLUMNS + 2, 84, 84, 3), dtype=np.uint8)
    kind, data = sprite_sheet(list(frames)).split(",")
    assert kind == "data:image/webp;base64"
    sheet = np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))
    assert sheet.shape == (168, 84 * COLUMNS, 3)
    for i, frame in enumerate(frames):
        top, left = 84 * (i // COLUMNS), 84 * (i % COLUMNS)
        assert np.array_equal(sheet[top : top + 84, left : left + 84], frame)
    with pytest.raises(ValueError):
        sprite_sheet([])


@pytest.mark.parametrize(
    ("read", "acted", "imagined", "worst"),
    [(1.2, 0.3, 3.4, "followed"), (2.2, 0.3, 3.4, "read"), (1.2, 2.5, 3.4, "acted"), (3.0, 0.1, 2.0, "read")],
)
def test_the_part_that_costs_most_is_named(read: float, acted: float, imagined: float, worst: str) -> None:
    part, sentence, rest = weakest({"followed": {"read": read, "acted": acted, "imagined": imagined}})
    assert part == worst
    cost = {"read": read, "acted": acted, "followed": imagined - read}[worst]
    assert figure(cost, "%") in sentence and figure(cost, "%") not in rest
    assert weakest({"followed": {"read": read, "acted": None, "imagined": imagined}})[0] is None
