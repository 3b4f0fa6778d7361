"""`pixeltraj camera`: a camera for one task or several, from states that were collected or are played now."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro
from PIL import Image, ImageDraw

from pixeltraj.camera import FRAME_SIZE, Camera
from pixeltraj.errors import PixeltrajError
from pixeltraj.files import write_whole
from pixeltraj.picture import COLOURS
from pixeltraj.render.backends import open_renderer
from pixeltraj.render.footage import Footage
from pixeltraj.render.framing import propose, table
from pixeltraj.store import Store
from pixeltraj.tasks import cameras as named
from pixeltraj.tasks import get_task

SCALE = 4
"""Every pixel of a frame becomes SCALE x SCALE in the picture."""
SHOWN = 3
"""Moments of each task in the picture."""
GAP, TITLE = 10, 28


@dataclass(frozen=True)
class Config:
    tasks: tyro.conf.Positional[tuple[str, ...]]
    """Tasks that are to share the camera."""
    stores: Annotated[tuple[Path, ...], tyro.conf.arg(name="from")] = ()
    """Collected stores whose states are looked at; tasks without one are played."""
    episodes: int = 10
    """Episodes that are played of each task without a store."""
    policy: str | None = None
    """scripted, random or sb3:PATH; without one, scripted where the suite has a demonstrator and random elsewhere."""
    seed: int = 0
    """Episode i starts from seed + i."""
    margin: float = 3.0
    """Pixels that every keypoint keeps from the frame's edge."""
    write: str | None = None
    """Put the proposed camera under this name into cameras.json, from which tasks take theirs."""
    show: Path | None = None
    """A PNG of the same moments through the present camera (left) and the proposed one (right)."""


def run(config: Config) -> None:
    check(config)
    footage = gather(config)
    camera = propose(footage, config.margin)
    cameras = {"present": footage[0].task.camera, "proposed": camera}
    print(table(cameras, footage))
    print(f"\n{camera}")
    if config.show:
        draw(cameras, footage, config.show)
        print(f"picture: {config.show}")
    if config.write:
        named.write_camera(config.write, camera)
        print(
            f"{config.write!r} is written to {named.PATH}: tasks with camera=named_camera({config.write!r}) see "
            f"through it from now on, and their stores and models made through another camera are refused"
        )


def check(config: Config) -> None:
    """Raise PixeltrajError for what is wrong before anything is played."""
    if not config.tasks:
        raise PixeltrajError("name at least one task: `pixeltraj camera TASK`")
    for task in config.tasks:
        get_task(task)
    if config.episodes < 1:
        raise PixeltrajError("--episodes must be at least 1")
    if config.show and config.show.suffix != ".png":
        raise PixeltrajError(f"the picture {config.show} must be a .png")
    if config.write == "":
        raise PixeltrajError("--write needs a name for the camera")


def gather(config: Config) -> list[Footage]:
    """Footage of each task, in order: from its stores, or played."""
    stored: dict[str, list[Path]] = {name: [] for name in config.tasks}
    for path in config.stores:
        task = Store.open(path).task.name
        if task not in stored:
            raise PixeltrajError(f"{path} holds {task}, which is not among the tasks; add it to them")
        stored[task].append(path)
    footage = []
    for name, paths in stored.items():
        footage += [Footage.load(path) for path in paths]
        if not paths:
            footage.append(Footage.play(get_task(name), config.episodes, config.policy, config.seed))
    return footage


def draw(cameras: dict[str, Camera], footage: list[Footage], path: Path) -> None:
    """A row for each task: the same moments through each camera, enlarged, with a ring on every keypoint."""
    cell = SCALE * FRAME_SIZE + GAP
    block = SHOWN * cell + GAP
    sheet = Image.new("RGB", (len(cameras) * block, TITLE + len(footage) * cell), "white")
    pen = ImageDraw.Draw(sheet)
    for i, (name, camera) in enumerate(cameras.items()):
        pen.text((i * block, 0), f"{name}: {', '.join(f.task.name for f in footage)}", "black", font_size=TITLE - 8)
        for row, film in enumerate(footage):
            chosen = np.linspace(0, len(film.snapshots) - 1, SHOWN).round().astype(int)
            simulator = replace(film.task, camera=camera).make()
            with open_renderer(simulator) as renderer:
                for column, snapshot in enumerate(film.snapshots[chosen]):
                    frame = Image.fromarray(renderer.frames([snapshot])[0])
                    frame = frame.resize((SCALE * FRAME_SIZE,) * 2, Image.Resampling.NEAREST)
                    mark(frame, camera.project(simulator.keypoints()))
                    sheet.paste(frame, (i * block + column * cell, TITLE + row * cell))
    write_whole(path, lambda beside: sheet.save(beside))


def mark(frame: Image.Image, pixels: np.ndarray) -> None:
    """A ring at each of pixels (N, 3): column, row, depth; none for what is behind the camera."""
    pen = ImageDraw.Draw(frame)
    for i, (column, row, depth) in enumerate(pixels.tolist()):
        if depth > 0:
            x, y = SCALE * column, SCALE * row
            pen.ellipse((x - 7, y - 7, x + 7, y + 7), outline="black", width=4)
            pen.ellipse((x - 6, y - 6, x + 6, y + 6), outline=COLOURS[i % len(COLOURS)], width=2)
