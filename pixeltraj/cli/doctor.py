"""`pixeltraj doctor`: what this machine can do, and the exact fix for what it cannot.

Everything is tried, nothing believed. Drawing is tried in a process of its own, because a broken GL may end it.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from pixeltraj.errors import PixeltrajError
from pixeltraj.files import write_json, write_whole

TASK = "push-v3"
DISK_WANTED = 2.0
"""GB that the demo and its intermediate files fit into."""
DEBIAN_GL = "apt-get install libegl1 libgl1-mesa-dri (Debian/Ubuntu, as root), then MUJOCO_GL=egl"
SOFTWARE = ("llvmpipe", "softpipe", "swrast")
"""Mesa's renderer strings where no GPU draws."""


@dataclass(frozen=True)
class Config:
    out: Path = Path("runs/doctor")
    """Folder for the test frame and doctor.json."""


@dataclass(frozen=True)
class Finding:
    """One line of the report."""

    name: str
    level: Literal["ok", "warn", "fail"]
    """fail: the demo cannot run until it is mended."""
    text: str
    fix: str = ""


def run(config: Config) -> int:
    """Print the findings and write doctor.json -> 0 if this machine can run the demo, else 1."""
    findings = []
    for finding in examine(config.out):
        print(f"{finding.level:>4}  {finding.name:<10}{finding.text}", flush=True)
        if finding.fix:
            print(f"{'':16}fix: {finding.fix}", flush=True)
        findings.append(finding)
    write_json(config.out / "doctor.json", [asdict(finding) for finding in findings])
    failed = [finding.name for finding in findings if finding.level == "fail"]
    print(f"not ready: {', '.join(failed)}" if failed else "ready: `pixeltraj demo` can run here")
    return 1 if failed else 0


def examine(out: Path) -> Iterator[Finding]:
    """All findings, as they are made. A check that breaks in a way nobody thought of is a finding too."""
    checks: tuple[tuple[str, Callable[[], Iterator[Finding]]], ...] = (
        ("drawing", lambda: check_drawing(out)),
        ("torch", check_torch),
        ("attention", check_attention),
        ("base", check_base),
        ("hub", check_hub),
        ("disk", lambda: check_disk(out)),
    )
    for name, check in checks:
        try:
            yield from check()
        except Exception as error:
            yield Finding(name, "fail", _line(error), "install again with the pinned versions: `make .venv/.stamp`")


# Drawing


def check_drawing(out: Path) -> Iterator[Finding]:
    """Draw in a subprocess with the backend that would be used; where that fails, try the others."""
    chosen = os.environ.get("MUJOCO_GL") or "the system's default GL"
    result = _draw(out, None)
    if "error" in result:
        others = [name for name in ("egl", "osmesa") if name != chosen]
        works = next((name for name in others if "error" not in _draw(out, name)), None)
        fix = f"export MUJOCO_GL={works} (tried: it works)" if works else DEBIAN_GL
        yield Finding("GL", "fail", f"{chosen} cannot draw: {result['error']}", fix)
        return
    software = any(word in result["renderer"].lower() for word in SOFTWARE)
    yield Finding(
        "GL",
        "warn" if software else "ok",
        f"{chosen}, {result['renderer']}, OpenGL {result['version']}"
        + (": drawn by the CPU, slow but right" if software else ""),
        "where there is a GPU, install its EGL driver" if software else "",
    )
    if result["spread"] < 10:
        yield Finding("frame", "fail", f"{result['path']} is black or of one colour", DEBIAN_GL)
    else:
        yield Finding("frame", "ok", f"{TASK} drawn to {result['path']}, {result['speed']:.0f} frames/s")


def _draw(out: Path, backend: str | None) -> dict[str, Any]:
    """What `draw` found in a process with that backend, or {"error": one line}."""
    environment = os.environ | ({"MUJOCO_GL": backend} if backend else {})
    command = [sys.executable, "-m", "pixeltraj.cli.doctor", str(out)]
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    except subprocess.TimeoutExpired:
        return {"error": "no frame within two minutes"}
    for line in reversed(done.stdout.splitlines()):
        if line.startswith("{"):
            return json.loads(line)
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    return {"error": lines[-1].strip() if lines else f"the process ended with status {done.returncode}"}


def draw(out: Path) -> dict[str, Any]:
    """Draw the task's first frame into `out` -> path, spread of its pixels, frames/s, GL's own words."""
    from PIL import Image

    from pixeltraj.render.backends import open_renderer
    from pixeltraj.tasks import get_task

    simulator = get_task(TASK).make()
    simulator.reset(seed=0)
    with open_renderer(simulator) as renderer:
        frame = renderer.frame()
        from OpenGL import GL  # only now: imported before MuJoCo, it would settle on another platform

        strings = {name: GL.glGetString(getattr(GL, f"GL_{name.upper()}")) for name in ("renderer", "version")}
        began, count = time.perf_counter(), 0
        while (elapsed := time.perf_counter() - began) < 1.0:
            renderer.frame()
            count += 1
    path = out / f"{TASK}.png"
    write_whole(path, lambda beside: Image.fromarray(frame).save(beside))
    words = {name: value.decode() if value else "?" for name, value in strings.items()}
    return {"path": str(path), "spread": float(frame.std()), "speed": count / elapsed, **words}


# Everything else


def check_torch() -> Iterator[Finding]:
    import torch

    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "no CUDA device"
    text = f"{torch.__version__}, {torch.get_num_threads()} threads of {os.cpu_count()} processors, {device}"
    yield Finding("torch", "ok", text)


def check_attention() -> Iterator[Finding]:
    """Call each backend: xformers built for another torch says that it is available and then raises."""
    import torch
    from torch.nn.functional import scaled_dot_product_attention

    device = "cuda" if torch.cuda.is_available() else "cpu"
    query = torch.randn(1, 2, 8, 32, generator=torch.Generator().manual_seed(0)).to(device)
    expected = torch.softmax(query @ query.mT / 32**0.5, dim=-1) @ query
    error = (scaled_dot_product_attention(query, query, query) - expected).abs().max().item()
    right = error < 1e-2  # a GPU may use TF32
    fix = "" if right else "install torch again: `make .venv/.stamp`"
    yield Finding("sdpa", "ok" if right else "fail", f"the default, {'right' if right else 'WRONG'} on {device}", fix)
    try:
        from xformers.ops import memory_efficient_attention

        flat = query.transpose(1, 2).contiguous()  # xformers wants (B, L, heads, D)
        memory_efficient_attention(flat, flat, flat)
        yield Finding("xformers", "ok", f"works on {device}")
    except ModuleNotFoundError:
        yield Finding("xformers", "ok", "not installed; not needed")
    except Exception as broken:
        text = f"installed, but memory_efficient_attention fails on {device}: {_line(broken)}"
        yield Finding("xformers", "warn", text, "pip uninstall xformers; SDPA is used anyway")


def check_base() -> Iterator[Finding]:
    """Load the embedded base and encode a frame with it."""
    import numpy as np

    from pixeltraj.base import Base

    try:
        base = Base.load()
    except PixeltrajError as error:
        fix = "install a released package, or make the base with `pixeltraj pretrain`, or give another with --base"
        yield Finding("base", "fail", str(error), fix)
        return
    base.encode(np.zeros((1, 84, 84, 3), np.uint8))
    parts = (base.vae, base.unet, base.text_encoder)
    size = sum(p.numel() for part in parts for p in part.parameters()) / 1e6
    yield Finding("base", "ok", f"{base.path}, {size:.1f} M parameters, {base.identity}")


def check_hub() -> Iterator[Finding]:
    from huggingface_hub import constants

    cache = Path(constants.HF_HUB_CACHE)
    models = sorted(path.name.removeprefix("models--").replace("--", "/") for path in cache.glob("models--*"))
    access = "offline (HF_HUB_OFFLINE)" if constants.HF_HUB_OFFLINE else "may be asked"
    yield Finding("hub", "ok", f"{access}; cache {cache}: {', '.join(models) or 'empty'}; only --base HUB_ID needs it")


def check_disk(out: Path) -> Iterator[Finding]:
    out.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(out).free / 1e9
    enough = free >= DISK_WANTED
    fix = "" if enough else f"free {DISK_WANTED - free:.1f} GB, or work in a folder on another disk"
    yield Finding("disk", "ok" if enough else "fail", f"{free:.1f} GB free at {out}, {DISK_WANTED:.0f} wanted", fix)


def _line(error: Exception) -> str:
    first = next(iter(str(error).strip().splitlines()), "")
    return f"{type(error).__name__}: {first}" if first else type(error).__name__


if __name__ == "__main__":
    try:
        print(json.dumps(draw(Path(sys.argv[1]))))
    except Exception as failure:
        print(json.dumps({"error": _line(failure)}))
