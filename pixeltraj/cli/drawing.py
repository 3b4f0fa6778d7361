"""What draws on this machine, and whether it draws what it should: part of `pixeltraj doctor`.

Each backend draws one frame in a process of its own, because a broken GL may end it, and the frame is compared with
the one that ships with it. `python -m pixeltraj.cli.drawing pixeltraj/references BACKEND` makes that one anew.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pixeltraj.cli.finding import Finding, one_line
from pixeltraj.files import write_whole

TASK = "push-v3"
REFERENCES = Path(__file__).parents[1] / "references"
ALIKE = 30.0
"""dB: below, a frame is another picture than the reference; GPUs and software differ by less."""
DEBIAN_GL = "apt-get install libegl1 libgl1-mesa-dri (Debian/Ubuntu, as root), then MUJOCO_GL=egl"
REINSTALL = "install again with the pinned versions: `make .venv/.stamp`"
SOFTWARE = ("llvmpipe", "softpipe", "swrast")
"""Mesa's renderer strings where no GPU draws."""


def check_drawing(out: Path) -> Iterator[Finding]:
    """MuJoCo's rasteriser first; without it the demo's frames are ray traced."""
    result = _draw(out, "mujoco")
    if "error" in result:
        chosen = os.environ.get("MUJOCO_GL") or "OpenGL"
        works = next((name for name in ("egl", "osmesa") if "error" not in _draw(out, "mujoco", name)), None)
        fix = f"export MUJOCO_GL={works} (tried: it works)" if works else DEBIAN_GL
        yield Finding("GL", "warn", f"{chosen} cannot draw, frames are ray traced: {result['error']}", fix)
    else:
        software = any(word in result["words"].lower() for word in SOFTWARE)
        text = result["words"] + (": drawn by the CPU, slow but right" if software else "")
        fix = "where there is a GPU, install its EGL driver" if software else ""
        yield Finding("GL", "warn" if software else "ok", text, fix)
        yield _judged("mujoco", result)
    rays = _draw(out, "ray")
    if "error" in rays:
        yield Finding("ray", "warn" if "error" not in result else "fail", f"cannot draw: {rays['error']}", REINSTALL)
    else:
        yield _judged("ray", rays)
    extra = _draw(out, "pyrender")
    if "no pyrender" in extra.get("error", ""):
        yield Finding("pyrender", "ok", "not installed; not needed")
    elif "error" in extra:
        yield Finding("pyrender", "warn", f"cannot draw: {extra['error']}", "draw with --renderer mujoco or ray")
    else:
        yield _judged("pyrender", extra)


def _judged(backend: str, result: dict[str, Any]) -> Finding:
    text = f"{TASK} drawn to {result['path']}, {result['speed']:.0f} frames/s"
    if result["spread"] < 10:
        return Finding(backend, "fail", f"{result['path']} is black or of one colour", DEBIAN_GL)
    if result["psnr"] < ALIKE:
        text += f", only {result['psnr']:.0f} dB like {_reference(backend)}: look at both"
        return Finding(backend, "warn", text, "update the graphics driver, or draw with another --renderer")
    return Finding(backend, "ok", f"{text}, as it should be ({result['psnr']:.0f} dB)")


def _draw(out: Path, backend: str, platform: str | None = None) -> dict[str, Any]:
    """What `draw` found in a process of its own, or {"error": one line}."""
    environment = os.environ | ({"MUJOCO_GL": platform} if platform else {})
    command = [sys.executable, "-m", "pixeltraj.cli.drawing", str(out), backend]
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    except subprocess.TimeoutExpired:
        return {"error": "no frame within two minutes"}
    for line in reversed(done.stdout.splitlines()):
        if line.startswith("{"):
            return json.loads(line)
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    return {"error": lines[-1].strip() if lines else f"the process ended with status {done.returncode}"}


def draw(out: Path, backend: str) -> dict[str, Any]:
    """Draw the task's first frame -> path, spread of its pixels, PSNR to the reference, frames/s, GL's own words."""
    from pixeltraj.render.backends import open_renderer
    from pixeltraj.tasks import get_task

    simulator = get_task(TASK).make()
    simulator.reset(seed=0)
    with open_renderer(simulator, backend) as renderer:  # type: ignore[arg-type]
        frame = renderer.frame()
        states = []
        for _ in range(10):
            simulator.step(np.full(simulator.task.action_size, 0.3))
            states.append(simulator.snapshot())
        began, count = time.perf_counter(), 0
        while (elapsed := time.perf_counter() - began) < 0.5:
            count += len(renderer.frames(states))  # of moving things: what stands still costs some backends nothing
        words = _words() if "gl" in renderer.settings else ""
    path = out / _reference(backend).name
    write_whole(path, lambda beside: Image.fromarray(frame).save(beside))
    error = float(np.mean((np.asarray(Image.open(_reference(backend)), np.float64) - frame) ** 2))
    return {
        "path": str(path),
        "spread": float(frame.std()),
        "psnr": float(10 * np.log10(255**2 / max(error, 1e-6))),
        "speed": count / elapsed,
        "words": words,
    }


def _reference(backend: str) -> Path:
    return REFERENCES / f"{TASK}-{backend}.png"


def _words() -> str:
    """What the current GL context calls itself."""
    from OpenGL import GL  # only now: imported before MuJoCo, it would settle on another platform

    renderer, version = (GL.glGetString(name) for name in (GL.GL_RENDERER, GL.GL_VERSION))
    words = " OpenGL ".join(part.decode() for part in (renderer, version) if part)
    return f"{words} ({os.environ.get('PYOPENGL_PLATFORM')})"


if __name__ == "__main__":
    try:
        print(json.dumps(draw(Path(sys.argv[1]), sys.argv[2])))
    except Exception as failure:
        print(json.dumps({"error": one_line(failure)}))
