"""What rendering costs and how true it is: `python -m benchmarks.render [--json FILE]` (under ten minutes).

Prints the table in Markdown; --json writes all of it.

Frames per CPU-second are counted over the same states for every backend, one process, drawing alone. PSNR is against
the full model with 4x multisampling and without shadows. Everything runs in processes of its own, one after another.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from pixeltraj.files import write_json

SCENES = ("HalfCheetah-v5", "sweep-into-v3", "FrankaKitchen-v1", "AntMaze_UMaze-v5")
STATES = 40
"""States a scene, each a few random decisions after the one before."""
SECONDS = 4.0
"""CPU time a measurement takes at least."""


@dataclass(frozen=True)
class Benchmark:
    json: Path | None = None
    """Where to write the figures."""
    scenes: tuple[str, ...] = SCENES
    """Tasks whose scenes are drawn."""
    backends: tuple[str, ...] = ("ray", "ray-2x2", "pyrender")
    """Measured beside MuJoCo's rasteriser."""


def scene(task: str, backends: tuple[str, ...]) -> dict[str, Any]:
    """fps and PSNR of every way to draw the same states of the task; `stock` is mujoco.Renderer as it comes."""
    import mujoco

    from pixeltraj.camera import FRAME_SIZE
    from pixeltraj.render.backends import open_renderer
    from pixeltraj.render.mujoco_renderer import MujocoRenderer
    from pixeltraj.tasks import get_task

    simulator = get_task(task).make()
    states = snapshots(simulator)
    figures: dict[str, Any] = {}
    with MujocoRenderer(simulator, simplify=False) as renderer:
        reference = renderer.frames(states).astype(np.float64)

    def measure(name: str, draw: Any) -> None:
        frames, seconds, count = [], 0.0, 0
        draw()  # the first picture of all compiles shaders
        while seconds < SECONDS:
            for state in states:
                simulator.restore(state)
                began = time.process_time()
                frame = draw()
                seconds += time.process_time() - began
                count += 1
                frames.append(frame)
        error = np.mean((np.stack(frames[: len(states)]) - reference) ** 2)
        figures[name] = {"fps": count / seconds, "psnr_db": float(10 * np.log10(255**2 / max(error, 1e-9)))}

    camera = mujoco.MjvCamera()
    camera.lookat[:] = simulator.task.camera.lookat
    camera.distance = simulator.task.camera.distance
    camera.azimuth, camera.elevation = simulator.task.camera.azimuth, simulator.task.camera.elevation
    stock = mujoco.Renderer(simulator.model, FRAME_SIZE, FRAME_SIZE)

    def draw_stock() -> np.ndarray:
        camera.lookat[:] = np.asarray(simulator.task.camera.lookat) + simulator.anchor()
        stock.update_scene(simulator.data, camera)
        return stock.render()

    measure("stock", draw_stock)
    stock.close()
    for backend in ("mujoco", *backends):
        with open_renderer(simulator, backend) as renderer:  # type: ignore[arg-type]
            measure(backend, renderer.frame)
    return figures


def snapshots(simulator: Any) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    simulator.reset(seed=0)
    states = []
    for _ in range(STATES):
        for _ in range(3):
            simulator.step(rng.uniform(-1, 1, simulator.task.action_size))
        states.append(simulator.snapshot())
    return states


def parallel(task: str = "sweep-into-v3", frames: int = 15000) -> float:
    """How much sooner two processes have drawn a store than one; starting them is part of it."""
    from pixeltraj.render.collect import CollectConfig, collect

    seconds = {}
    with tempfile.TemporaryDirectory() as folder:
        collected = Path(folder) / "collected"
        for episodes, workers in ((2, 1), (frames // 76, 1), (frames // 76, 2)):  # the first only warms caches up
            collect(CollectConfig(task, collected, policy="random", noise=0.0, episodes=episodes))
            store = Path(folder) / f"{episodes}-{workers}"
            shutil.copytree(collected, store)
            began = time.perf_counter()
            command = [sys.executable, "-m", "pixeltraj", "render", str(store), "--workers", str(workers)]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            seconds[workers] = time.perf_counter() - began
    return seconds[1] / seconds[2]


def apart(call: str) -> Any:
    """The JSON that an expression of this module prints in a process of its own."""
    code = f"import json; from benchmarks.render import *; print(json.dumps({call}))"
    environment = os.environ | {"OMP_NUM_THREADS": "1", "LP_NUM_THREADS": "0"}
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=True, env=environment)
    return json.loads(done.stdout.splitlines()[-1])


def table(report: dict[str, Any]) -> str:
    """The figures as docs/rendering.md shows them."""
    backends = report["backends"]
    names = ("mujoco.Renderer as it comes", "mujoco", "times faster", *backends)
    lines = [f"| frames per CPU-second (PSNR) | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    for task, scene in report["scenes"].items():
        others = [f"{backends[b][task]['fps']:.0f} ({backends[b][task]['psnr_db']:.1f} dB)" for b in backends]
        ours = f"{scene['fps']:.0f} ({scene['psnr_db']:.1f} dB)"
        cells = [task, f"{scene['stock_fps']:.1f}", ours, f"{scene['ratio']:.0f}", *others]
        lines.append(f"| {' | '.join(cells)} |")
    store = report["store"]
    sizes = ", ".join(f"{task} {size:.0f}" for task, size in store["bytes_per_frame_by_task"].items())
    return "\n".join(
        [
            *lines,
            "",
            f"Two processes draw a store {report['parallel_speedup']:.2f} times as fast as one. Bytes a frame: "
            f"{sizes}. "
            f"Frames a second: {store['write_fps']:.0f} written, {store['read_fps']:.0f} read in windows of five "
            f"in the order of `windows.pooled`, {store['read_fps_scattered']:.0f} in an order that is random over the "
            f"whole store. Memory at its highest: {store['rss_mb_20k']:.0f} MB with 20,000 frames, "
            f"{store['rss_mb_200k']:.0f} MB with 200,000.",
        ]
    )


def main() -> None:
    config = tyro.cli(Benchmark, description=__doc__)
    report: dict[str, Any] = {"scenes": {}, "backends": {name: {} for name in config.backends}}
    for task in config.scenes:
        figures = apart(f"scene({task!r}, {config.backends!r})")
        stock, ours = figures["stock"]["fps"], figures["mujoco"]
        report["scenes"][task] = {"stock_fps": stock, **ours, "ratio": ours["fps"] / stock}
        for backend in config.backends:
            report["backends"][backend][task] = figures[backend]
        print(task, json.dumps(report["scenes"][task]), {b: figures[b] for b in config.backends}, file=sys.stderr)
    report["parallel_speedup"] = parallel()
    report["store"] = json.loads(
        subprocess.run([sys.executable, "-m", "benchmarks.store"], stdout=subprocess.PIPE, check=True).stdout
    )
    report["machine"] = {"cores": os.cpu_count(), "states": STATES, "seed": 0}
    if config.json:
        write_json(config.json, report)
    print(table(report))


if __name__ == "__main__":
    main()
