"""Sprites: many frames as one picture that a page carries with it."""

import base64
import io
from collections.abc import Sequence

import numpy as np
from PIL import Image

COLUMNS = 24
"""Frames in a row of the sheet."""
MOST = 4000
"""Frames in a sheet: WebP has at most 16383 rows of pixels."""


def sprite_sheet(frames: Sequence[np.ndarray]) -> str:
    """(H, W, 3) uint8 frames of one size -> a lossless WebP as a data URI; frame i is at row i // COLUMNS, column
    i % COLUMNS. Raises ValueError on none and on more than fit."""
    if not 0 < len(frames) <= MOST:
        raise ValueError(f"a sheet holds 1 to {MOST} frames, not {len(frames)}")
    height, width = frames[0].shape[:2]
    rows = -(-len(frames) // COLUMNS)
    sheet = np.zeros((rows * height, COLUMNS * width, 3), dtype=np.uint8)
    for i, frame in enumerate(frames):
        top, left = i // COLUMNS * height, i % COLUMNS * width
        sheet[top : top + height, left : left + width] = frame
    file = io.BytesIO()
    Image.fromarray(sheet).save(file, "WEBP", lossless=True, quality=60)
    return f"data:image/webp;base64,{base64.b64encode(file.getvalue()).decode()}"
