"""Film: what a player decodes is what was drawn, step by step and for as long as it should."""

from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image, ImageSequence

from pixeltraj.film import HOLD, write_gif, write_mp4

STEPS, PIXEL = 6, 3


def images(side: int = 84) -> list[Image.Image]:
    """A red and a blue block that cross a smooth background, enlarged as frames are."""
    rows, columns = np.mgrid[:side, :side]
    still = np.stack([60 + columns, 120 - rows // 2, 40 + rows], axis=-1).astype(np.uint8)
    steps = np.repeat(still[None], STEPS, axis=0)
    for i, frame in enumerate(steps):
        frame[20:30, 4 + 10 * i : 14 + 10 * i] = 230, 30, 20
        frame[50:58, 64 - 10 * i : 74 - 10 * i] = 20, 40, 210
    return [Image.fromarray(frame.repeat(PIXEL, axis=0).repeat(PIXEL, axis=1)) for frame in steps]


@pytest.mark.parametrize("side", [84, 83])
def test_the_mp4_decodes_to_what_was_drawn(tmp_path: Path, side: int) -> None:
    drawn = images(side)
    write_mp4(drawn, tmp_path / "a.mp4", 450)
    with av.open(str(tmp_path / "a.mp4")) as film:
        frames = list(film.decode(video=0))
    assert len(frames) == STEPS - 1 + HOLD
    assert [round(1000 * float(frame.time or 0)) for frame in frames] == [450 * i for i in range(len(frames))]
    for i, frame in enumerate(frames):
        decoded = frame.to_ndarray(format="rgb24")
        assert decoded.shape == (PIXEL * side + side % 2, PIXEL * side + side % 2, 3)
        there = np.asarray(drawn[min(i, STEPS - 1)]).astype(int)
        away = np.abs(decoded[: PIXEL * side, : PIXEL * side] - there)
        assert away.mean() < 2 and np.median(away) <= 2
        middles = away[PIXEL // 2 :: PIXEL, PIXEL // 2 :: PIXEL]
        assert np.percentile(middles, 99) <= 6, "colour bleeds between pixels only, at the edges of the blocks"


def test_browsers_can_play_it(tmp_path: Path) -> None:
    """H.264 in yuv420p with BT.709 declared, constant rate, the index before the pictures, no date."""
    write_mp4(images(), tmp_path / "a.mp4", 250)
    with av.open(str(tmp_path / "a.mp4")) as film:
        stream = film.streams.video[0]
        context = stream.codec_context
        assert (context.name, context.profile, context.pix_fmt) == ("h264", "High", "yuv420p")
        assert (context.color_range, context.colorspace, context.color_primaries, context.color_trc) == (1, 1, 1, 1)
        assert stream.average_rate == 4 and film.duration == 250_000 * (STEPS - 1 + HOLD)
        assert "creation_time" not in film.metadata | stream.metadata
    data = (tmp_path / "a.mp4").read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")


def test_the_gif_keeps_its_pace_and_the_colours_it_was_told_to(tmp_path: Path) -> None:
    drawn = images()
    for picture in drawn:
        picture.putpixel((9, 5), (1, 254, 77))
    write_gif(drawn, tmp_path / "a.gif", 450, kept=["#01fe4d"])
    with Image.open(tmp_path / "a.gif") as gif:
        assert gif.info["loop"] == 0
        pauses = []
        for picture, there in zip(ImageSequence.Iterator(gif), drawn, strict=True):
            pauses.append(picture.info["duration"])
            shown = np.asarray(picture.convert("RGB")).astype(int)
            assert tuple(shown[5, 9]) == (1, 254, 77)
            assert np.abs(shown - np.asarray(there)).mean() < 8
    assert pauses == [450] * (STEPS - 1) + [450 * HOLD]


def test_equal_pictures_give_equal_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_gif(images(), tmp_path / f"{name}.gif", 450)
        write_mp4(images(), tmp_path / f"{name}.mp4", 450)
    for kind in ("gif", "mp4"):
        assert (tmp_path / f"a.{kind}").read_bytes() == (tmp_path / f"b.{kind}").read_bytes()
    write_mp4(images()[::-1], tmp_path / "b.mp4", 450)
    assert (tmp_path / "a.mp4").read_bytes() != (tmp_path / "b.mp4").read_bytes()
