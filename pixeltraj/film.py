"""Film: pictures that follow each other, as a GIF and as an MP4 that browsers play.

Both show each picture equally long, the last one HOLD times as long. Equal pictures give equal bytes.
"""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace, Interpolation
from PIL import Image, ImageColor

HOLD = 3
QUALITY = 14
"""x264's constant rate factor: 0 loses nothing, 23 is its default, 18 is said to be hard to tell from the original."""
BT709 = 1
"""The code of these primaries, transfer and matrix in an H.264 stream."""


def write_gif(images: Sequence[Image.Image], path: Path, milliseconds: int, kept: Sequence[str] = ()) -> None:
    """RGB images of one size, each for `milliseconds`, for ever; the colours `kept` (as "#rrggbb") stay exact."""
    # One palette for all images, or colours flicker: half of it by how common a colour is (smooth surfaces), half
    # with every colour counting once (small bright objects).
    pixels = np.concatenate([np.asarray(image)[::2, ::2].reshape(1, -1, 3) for image in images], axis=1)
    once = np.unique(pixels[0] & 0xF8 | 4, axis=0)[None]
    values = [value for colour in kept for value in ImageColor.getrgb(colour)]
    half = (256 - len(kept)) // 2
    for array in (pixels, once):
        values += Image.fromarray(array).quantize(half, Image.Quantize.MEDIANCUT).getpalette() or []
    palette = Image.new("P", (1, 1))
    palette.putpalette(values)
    frames = [image.quantize(palette=palette, dither=Image.Dither.NONE) for image in images]
    pauses = [milliseconds] * (len(frames) - 1) + [HOLD * milliseconds]
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=pauses, loop=0, optimize=False)


def write_mp4(images: Sequence[Image.Image], path: Path, milliseconds: int) -> None:
    """RGB images of one size, each for `milliseconds`, as H.264 in yuv420p.

    An odd width or height grows by the repeated last column or row, because yuv420p has one colour for 2 x 2 pixels.
    """
    rate = Fraction(1000, milliseconds)
    # The index comes first, so that a browser can begin before it has read all; one thread, because x264 writes down
    # how many there were.
    with av.open(str(path), "w", format="mp4", options={"movflags": "+faststart"}) as container:
        stream = container.add_stream("libx264", rate, options={"crf": str(QUALITY), "bf": "0", "threads": "1"})
        stream.pix_fmt = "yuv420p"
        stream.height, stream.width = _even(images[0]).shape[:2]
        context = stream.codec_context
        context.color_range = ColorRange.MPEG
        context.colorspace = context.color_primaries = context.color_trc = BT709
        for step, image in enumerate([*images, *[images[-1]] * (HOLD - 1)]):
            frame = av.VideoFrame.from_ndarray(_even(image), "rgb24").reformat(
                format="yuv420p",
                dst_colorspace=Colorspace.ITU709,
                dst_color_range=ColorRange.MPEG,
                interpolation=Interpolation.AREA | Interpolation.ACCURATE_RND | Interpolation.BITEXACT,
                threads=1,
            )
            frame.pts, frame.time_base = step, 1 / rate
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def _even(image: Image.Image) -> np.ndarray:
    """(H, W, 3) uint8, H and W even."""
    return np.pad(np.asarray(image), ((0, image.height % 2), (0, image.width % 2), (0, 0)), mode="edge")
