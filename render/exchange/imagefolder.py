"""Imagefolder: a store's k-frame images as lossless PNGs, the way diffusers' training scripts read them.

    OUT/train/  000000.png ...   a grid of k frames each: (96 k / 5) x 480 pixels
                metadata.jsonl   one line a grid: {"file_name", "text", "episode", "start", "k"}

It is what `datasets.load_dataset("imagefolder", data_dir="OUT")` takes, and `train_text_to_image_lora.py
--train_data_dir OUT/train --caption_column text`. One grid starts at every `every`-th frame of an episode and goes
on past its end with copies of its last frame, as in `pixeltraj.windows`.

Laid out for `train_instruct_pix2pix.py`, each line has two images and what leads from one to the other:

    OUT/train/  000000.png  000000-first.png   the grid, and its first frame in every tile
                metadata.jsonl                 {"edited_image_file_name", "input_image_file_name", "edit_prompt", ...}

Its columns `edited_image`, `input_image` and `edit_prompt` are that script's defaults.
"""

import json
import os
import shutil
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from pixeltraj.errors import PixeltrajError
from pixeltraj.grid import Grid
from pixeltraj.store import Store
from pixeltraj.windows import store_windows

Columns = Literal["text-to-image", "instruct-pix2pix"]


def export_imagefolder(
    store: Store, path: Path, k: int, every: int = 1, heldout: bool = False, columns: Columns = "text-to-image"
) -> int:
    """Write the grids of the episodes to train on, or of those held out (OUT/test) -> how many.

    Whole or not at all. Raises PixeltrajError where frames are missing or something stands at `path` already.
    """
    if path.exists():
        raise PixeltrajError(f"{path} exists already; give another --out or remove it")
    if every < 1:
        raise PixeltrajError("--every must be at least 1")
    grid = Grid(k)
    store.require_frames()
    episodes = store.split()[int(heldout)]
    beside = path.with_name(f".{path.name}.{os.getpid()}.partial")
    folder = beside / ("test" if heldout else "train")
    folder.mkdir(parents=True)
    count = 0
    try:
        with (folder / "metadata.jsonl").open("w") as metadata:
            for episode in tqdm(episodes, desc=f"export {path.name}", unit="episode"):
                first = int(store.offsets[episode])
                frames = store.read("frames", first, int(store.offsets[episode + 1]))
                windows = store_windows(store, k, [episode])[::every]
                for window, prompt in zip(windows, store.prompts(windows[:, 0])):
                    shown = frames[window - first]
                    line = _save(shown, grid, folder, f"{count:06d}", columns, prompt)
                    line |= {"episode": episode, "start": int(window[0]) - first, "k": k}
                    metadata.write(json.dumps(line) + "\n")
                    count += 1
            metadata.flush()
            os.fsync(metadata.fileno())
        beside.rename(path)
    except BaseException:
        shutil.rmtree(beside)
        raise
    return count


def _save(shown: np.ndarray, grid: Grid, folder: Path, name: str, columns: Columns, prompt: str) -> dict[str, object]:
    """shown (K, 84, 84, 3) -> the line of metadata, as far as the images go."""
    picture(grid, shown).save(folder / f"{name}.png")
    if columns == "text-to-image":
        return {"file_name": f"{name}.png", "text": prompt}
    picture(grid, np.repeat(shown[:1], grid.k, axis=0)).save(folder / f"{name}-first.png")
    return {
        "edited_image_file_name": f"{name}.png",
        "input_image_file_name": f"{name}-first.png",
        "edit_prompt": prompt,
    }


def picture(grid: Grid, frames: np.ndarray) -> Image.Image:
    """(K, 84, 84, 3) uint8 -> the grid as an RGB image, each frame's pixels unchanged."""
    pixels = ((grid.to_image(frames[None])[0] + 1) * 127.5).round().to(torch.uint8)
    return Image.fromarray(pixels.permute(1, 2, 0).numpy())
