"""Every environment as every backend draws it: `python -m benchmarks.contact_sheet [--out docs/contact_sheet.png]`."""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro
from PIL import Image, ImageDraw
from tqdm import tqdm

from pixeltraj.camera import FRAME_SIZE
from pixeltraj.files import write_whole
from pixeltraj.tasks import TASKS

BACKENDS = ("mujoco", "ray", "pyrender")
ACROSS = 6
"""Tasks in a row."""
LABEL = 14
"""Pixels above each task's frames."""
DECISIONS = 8
"""Of the demonstrator, or random, before the picture is taken."""


@dataclass(frozen=True)
class Sheet:
    out: Path = Path("docs/contact_sheet.png")
    """The picture."""
    tasks: tuple[str, ...] = tuple(TASKS)
    """Whose environments are shown."""


def frames(task: str) -> np.ndarray:
    """(84, 3 x 84, 3) uint8: the task a few decisions into episode 0, by each backend."""
    from pixeltraj.render.backends import open_renderer

    simulator = TASKS[task].make()
    simulator.reset(seed=0)
    rng = np.random.default_rng(0)
    for _ in range(DECISIONS):
        scripted = simulator.scripted_action()
        simulator.step(rng.uniform(-1, 1, simulator.task.action_size) if scripted is None else scripted)
    drawn = []
    for backend in BACKENDS:
        with open_renderer(simulator, backend) as renderer:  # type: ignore[arg-type]
            drawn.append(renderer.frame())
    return np.concatenate(drawn, axis=1)


def main() -> None:
    config = tyro.cli(Sheet, description=__doc__)
    width, height = len(BACKENDS) * FRAME_SIZE + 6, FRAME_SIZE + LABEL + 4
    rows = -(-len(config.tasks) // ACROSS)
    sheet = Image.new("RGB", (ACROSS * width, rows * height + LABEL), "white")
    pen = ImageDraw.Draw(sheet)
    pen.text((2, 1), f"left to right: {', '.join(BACKENDS)}", fill="black")
    for i, task in enumerate(tqdm(config.tasks, unit="task")):
        # A process each: models and GL contexts of seventy environments need not live side by side.
        code = f"import sys; from benchmarks.contact_sheet import frames; sys.stdout.buffer.write(frames({task!r}))"
        done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, check=True, env=os.environ)
        size = FRAME_SIZE * FRAME_SIZE * len(BACKENDS) * 3
        picture = np.frombuffer(done.stdout[-size:], np.uint8).reshape(FRAME_SIZE, -1, 3)
        left, top = i % ACROSS * width, i // ACROSS * height + LABEL
        pen.text((left + 2, top + 1), task, fill="black")
        sheet.paste(Image.fromarray(picture), (left + 2, top + LABEL))
    write_whole(config.out, sheet.save)
    print(config.out)


if __name__ == "__main__":
    main()
