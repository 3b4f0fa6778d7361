"""The picture: marks where keypoints project to, blank cells after an early end, a GIF and an MP4 of the same."""

from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image, ImageColor, ImageSequence

from pixeltraj import picture
from pixeltraj.camera import FRAME_SIZE
from pixeltraj.errors import PixeltrajError
from pixeltraj.film import HOLD
from pixeltraj.picture import CELL, COLOURS, GAP, GUTTER, MARGIN, SCALE, TITLE, draw
from pixeltraj.task import Task
from pixeltraj.tasks import get_task
from pixeltraj.trajectory import Trajectory

GREY = 90
TASK = get_task("push-v3")


def trajectory(steps: int, pixels: np.ndarray, task: Task = TASK, solved: bool = False) -> Trajectory:
    """`steps` transitions of grey frames; pixels (N, 2) column and row at which every keypoint stays."""
    points = np.concatenate([pixels, np.full((len(pixels), 1), 0.8)], axis=1)
    rewards = np.zeros(steps, np.float32)
    rewards[-1] = solved
    return Trajectory(
        states=np.zeros((steps + 1, task.state_size), np.float32),
        actions=np.zeros((steps, task.action_size), np.float32),
        rewards=rewards,
        terminations=rewards > 0,
        truncations=np.zeros(steps, bool),
        keypoints=np.repeat(task.camera.unproject(points)[None], steps + 1, axis=0).astype(np.float32),
        frames=np.full((steps + 1, FRAME_SIZE, FRAME_SIZE, 3), GREY, np.uint8),
    )


PIXELS = np.array([[10.5, 12.5], [40.5, 70.5], [60.5, 20.5], [30.5, 40.5], [75.5, 75.5]])


def cells(path: Path, rows: int, columns: int) -> np.ndarray:
    """(rows, columns, CELL, CELL, 3): the frames of one example, found by what lies under it."""
    image = np.asarray(Image.open(path).convert("RGB"))
    bottom = image.shape[0] - MARGIN
    top = bottom - rows * (CELL + GAP) + GAP
    left = MARGIN + GUTTER
    assert image[top - TITLE].shape == (2 * MARGIN + GUTTER + columns * (CELL + GAP) - GAP, 3)
    return np.stack(
        [
            [
                image[top + r * (CELL + GAP) :][:CELL, left + c * (CELL + GAP) :][:, :CELL]
                for c in range(columns)
            ]
            for r in range(rows)
        ]
    )  # fmt: skip


def test_keypoints_are_drawn_where_they_project_to(tmp_path: Path) -> None:
    shifted = PIXELS + np.array([0.0, 6.0])
    draw([trajectory(4, PIXELS)], [trajectory(4, shifted)], TASK, tmp_path / "a.png")
    drawn = cells(tmp_path / "a.png", rows=2, columns=5)
    for i, ((column, row), (_, below)) in enumerate(zip(PIXELS, shifted)):
        colour = ImageColor.getrgb(COLOURS[i])
        x, y = int(SCALE * column), int(SCALE * row)
        assert (drawn[0, :, y, x] == colour).all(), "a decoded keypoint is a disc"
        assert not (drawn[1, :, y, x] == colour).all(axis=-1).any(), "and stands in its own row only"
        y = int(SCALE * below)
        assert (drawn[1, :, y, x] == GREY).all(), "a true keypoint is a ring"
        assert np.abs(drawn[1, :, y, x + picture.RING - 1].astype(int) - colour).max() < 40
    marked = (drawn[0, 0] != GREY).any(axis=-1).mean()
    assert 0.001 < marked < 0.02, "marks are small"


def test_a_keypoint_outside_or_behind_the_camera_is_left_out(tmp_path: Path) -> None:
    outside = np.tile([[-40.0, 300.0]], (5, 1))
    behind = trajectory(1, PIXELS)
    behind.keypoints[:] = TASK.camera.position - TASK.camera.rotation[2]
    draw([trajectory(1, outside)], [behind], TASK, tmp_path / "a.png")
    assert (cells(tmp_path / "a.png", rows=2, columns=2) == GREY).all()


def test_an_early_end_is_blank_and_labelled(tmp_path: Path) -> None:
    draw([trajectory(2, PIXELS)], [trajectory(4, PIXELS)], TASK, tmp_path / "a.png")
    drawn = cells(tmp_path / "a.png", rows=2, columns=5)
    panel, muted = ImageColor.getrgb(picture.PANEL), ImageColor.getrgb(picture.MUTED)
    for column in range(5):
        blank = (drawn[0, column] == panel).all(axis=-1).mean()
        assert (blank > 0.9) == (column > 2)
        assert not (drawn[1, column] == panel).all(axis=-1).any()
    middle = drawn[0, 4, CELL // 2 - 12 : CELL // 2 + 12, CELL // 2 - 40 : CELL // 2 + 40]
    assert (middle == muted).all(axis=-1).any(), "the word 'ended' stands in the middle"


def test_a_solved_step_is_marked(tmp_path: Path) -> None:
    pictures = []
    for solved in (False, True):
        draw([trajectory(2, PIXELS, solved=solved)], None, TASK, tmp_path / "a.png")
        pictures.append(cells(tmp_path / "a.png", rows=1, columns=3))
    differs = (pictures[0] != pictures[1]).any(axis=(-1, -2, -3))
    assert differs.tolist() == [[False, False, True]]


@pytest.mark.parametrize(("imagined", "real"), [((4, 2), (4, 4)), ((2, 3), None), ((1, 1), (6, 2))])
def test_gif_and_mp4_have_as_many_frames_as_the_longest(tmp_path: Path, imagined: tuple, real: tuple | None) -> None:
    dreams = [trajectory(steps, PIXELS) for steps in imagined]
    truths = None if real is None else [trajectory(steps, PIXELS) for steps in real]
    path = draw(dreams, truths, TASK, tmp_path / "a.png")
    assert path == tmp_path / "a.gif"
    frames = max(*imagined, *(real or ())) + 1
    with Image.open(path) as gif:
        assert gif.n_frames == frames
        assert gif.info["loop"] == 0
    with av.open(str(tmp_path / "a.mp4")) as film:
        assert film.duration == 450_000 * (frames - 1 + HOLD)


def test_gif_and_mp4_show_each_step_in_its_place(tmp_path: Path) -> None:
    """The block that moves through the frames stands in every picture where it stood in its frame."""
    moving = trajectory(4, np.tile([[-40.0, 300.0]], (5, 1)))
    assert moving.frames is not None
    for step, frame in enumerate(moving.frames):
        frame[40:48, 16 * step : 16 * step + 8] = 30, 200, 60
    with Image.open(draw([moving], [trajectory(4, PIXELS)], TASK, tmp_path / "a.png")) as gif:
        shown = [np.asarray(picture.convert("RGB")) for picture in ImageSequence.Iterator(gif)]
    with av.open(str(tmp_path / "a.mp4")) as film:
        played = [frame.to_ndarray(format="rgb24") for frame in film.decode(video=0)]
    top = shown[0].shape[0] - MARGIN - CELL
    for step in range(5):
        y, x = top + SCALE * 44, MARGIN + SCALE * (16 * step + 4)
        for pictures in (shown, played):
            assert np.abs(pictures[step][y, x].astype(int) - (30, 200, 60)).max() < 16
            assert np.abs(pictures[step][y, x + SCALE * (8 if step < 4 else -16)].astype(int) - GREY).max() < 16


@pytest.mark.parametrize("name", ["a.png", "a.gif", "a.mp4"])
def test_whichever_is_named_all_three_are_written(tmp_path: Path, name: str) -> None:
    draw([trajectory(1, PIXELS)], None, TASK, tmp_path / name)
    assert {path.name for path in tmp_path.iterdir()} == {"a.png", "a.gif", "a.mp4"}
    with Image.open(tmp_path / "a.png") as png, Image.open(tmp_path / "a.gif") as gif:
        assert (png.format, gif.format) == ("PNG", "GIF")
    with av.open(str(tmp_path / "a.mp4")) as film:
        assert film.streams.video[0].codec_context.name == "h264"


def test_long_trajectories_go_on_in_further_rows_of_five(tmp_path: Path) -> None:
    draw([trajectory(4, PIXELS)], None, TASK, tmp_path / "short.png")
    draw([trajectory(9, PIXELS)], None, TASK, tmp_path / "long.png")
    short, long = Image.open(tmp_path / "short.png"), Image.open(tmp_path / "long.png")
    assert (long.width, long.height) == (short.width, short.height + TITLE + CELL)


def test_equal_input_gives_equal_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        draw([trajectory(2, PIXELS)], [trajectory(3, PIXELS)], TASK, tmp_path / f"{name}.png")
    for kind in ("png", "gif", "mp4"):
        assert (tmp_path / f"a.{kind}").read_bytes() == (tmp_path / f"b.{kind}").read_bytes()


def test_what_cannot_be_drawn_is_refused(tmp_path: Path) -> None:
    one, bare = trajectory(2, PIXELS), trajectory(2, PIXELS)
    bare.frames = None
    for imagined, real, name, complaint in (
        ([], None, "a.png", "no imagined"),
        ([one], [one, one], "a.png", "one for each"),
        ([one], [bare], "a.png", "without frames"),
        ([one], None, "a.jpg", "must be a .png"),
    ):
        with pytest.raises(PixeltrajError, match=complaint):
            draw(imagined, real, TASK, tmp_path / name)
    assert not list(tmp_path.iterdir())
