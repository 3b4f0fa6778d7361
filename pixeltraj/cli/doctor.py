"""`pixeltraj doctor`: what this machine can do, and the exact fix for what it cannot.

Everything is tried, nothing believed.
"""

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from pixeltraj.cli.drawing import REINSTALL, check_drawing
from pixeltraj.cli.finding import Finding, one_line
from pixeltraj.errors import PixeltrajError
from pixeltraj.files import write_json

DISK_WANTED = 2.0
"""GB that the demo and its intermediate files fit into."""


@dataclass(frozen=True)
class Config:
    out: Path = Path("runs/doctor")
    """Folder for the test frame and doctor.json."""


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
            yield Finding(name, "fail", one_line(error), REINSTALL)


def check_torch() -> Iterator[Finding]:
    import torch

    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "no CUDA device"
    text = f"{torch.__version__}, {torch.get_num_threads()} threads of {os.cpu_count()} processors, {device}"
    yield Finding("torch", "ok", text)


def check_attention() -> Iterator[Finding]:
    """Call each backend: xformers built for another torch says that it is available and then raises."""
    import torch
    from torch.nn.functional import scaled_dot_product_attention

    from pixeltraj.finetune.attention import require_xformers

    device = "cuda" if torch.cuda.is_available() else "cpu"
    query = torch.randn(1, 2, 8, 32, generator=torch.Generator().manual_seed(0)).to(device)
    expected = torch.softmax(query @ query.mT / 32**0.5, dim=-1) @ query
    error = (scaled_dot_product_attention(query, query, query) - expected).abs().max().item()
    right = error < 1e-2  # a GPU may use TF32
    fix = "" if right else "install torch again: `make .venv/.stamp`"
    yield Finding("sdpa", "ok" if right else "fail", f"the default, {'right' if right else 'WRONG'} on {device}", fix)
    try:
        require_xformers(torch.device(device))
        yield Finding("xformers", "ok", f"works on {device}")
    except PixeltrajError as error:
        if isinstance(error.__cause__, ModuleNotFoundError):
            yield Finding("xformers", "ok", "not installed; not needed")
        else:
            yield Finding("xformers", "warn", str(error), "pip uninstall xformers; SDPA is used anyway")


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
