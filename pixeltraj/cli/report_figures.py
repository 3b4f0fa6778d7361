"""Figures: what a run's files say about each of its parts, as report.json has it; null where nothing was measured."""

import os
import platform
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pixeltraj.base import EMBEDDED, PRETRAINING, Base
from pixeltraj.cli.view_runs import STORES
from pixeltraj.decode.audit import audit, real_windows
from pixeltraj.decode.yardstick import span_of
from pixeltraj.errors import PixeltrajError
from pixeltraj.files import read_json
from pixeltraj.generator import CONFIG_FILE
from pixeltraj.store import Store

PARTS = ("one_step_imagined", "one_step_real", "open_loop_imagined")
"""What an audit has to hold so that the page can show it."""
_TUNED = ("loss_before", "loss_after", "steps", "heldout_loss_before", "heldout_loss_after")


def open_real(run: Path, given: Path | None) -> Store:
    """The store that the run imagined from. Raises PixeltrajError where it cannot be replayed."""
    path = given or next((run / name for name in STORES if (run / name).is_dir()), None)
    if path is None:
        raise PixeltrajError(
            f"{run} has no real store ({' or '.join(STORES)}): give it with --real; `pixeltraj collect TASK --out "
            f"{run / STORES[0]}` and `pixeltraj render` make one"
        )
    store = Store.open(path)
    store.require_frames()
    if not store.attributes["snapshot_layout"]:
        raise PixeltrajError(
            f"{path} holds no simulator states, so nothing can be replayed from it: "
            f"collect one with `pixeltraj collect {store.task.name} --out {path}`"
        )
    return store


def open_imagined(path: Path, real: Store) -> Store:
    """The imagined store. Raises PixeltrajError, naming the command, where there is none that fits the real one."""
    task = real.task.name
    again = f"`pixeltraj imagine {task} --from {real.path} --out {path} --decoder DECODER` makes it"
    if not path.is_dir():
        raise PixeltrajError(f"no imagined store at {path}: {again}")
    store = Store.open(path)
    if store.task.name != task:
        raise PixeltrajError(f"{path} holds {store.task.name}, {real.path} holds {task}: {again}")
    how = store.attributes["provenance"]
    if not how.get("imagined"):
        raise PixeltrajError(f"{path} was not imagined: {again}")
    if not len(store):
        raise PixeltrajError(f"{path} is empty: {again}")
    if how["from"] != real.attributes["provenance"]:
        raise PixeltrajError(f"{path} was imagined from another store than {real.path}: give that one with --real")
    return store


def check(real: Store, imagined: Store, seed: int) -> dict[str, Any]:
    """The audit of the imagined store against pieces of the real one's held-out episodes."""
    rows = [int(real.offsets[e["episode"]]) + e["step"] for e in imagined.episodes]
    rng = np.random.default_rng(seed)
    pieces = real_windows(real, real.split()[1], max(e["frames"] for e in imagined.episodes), len(imagined), rng)
    snapshots = [real.read("snapshots", row, row + 1)[0] for row in rows]
    return audit(real.task.make(), list(imagined), snapshots, pieces, span_of(real), rng)


def checked(run: Path, real: Store, imagined: Store, seed: int) -> dict[str, Any]:
    """The run's own audit, or one made now."""
    path = run / "audit.json"
    found = read_json(path, "audit") if path.is_file() else {}
    return found if all(part in found for part in PARTS) else check(real, imagined, seed)


def figures(run: Path, real: Store, imagined: Store, audited: dict[str, Any], models: dict[str, Any]) -> dict[str, Any]:
    """All of report.json but what `losses` tells. models: base, lora and decoder as `models_of` has them."""
    seconds = _read(run / "seconds.json")
    decoder = models["decoder"].get("metrics", {})
    heldout = len(real.split()[1])
    last = audited["open_loop_imagined"]["steps"][-1]["error"]
    drawing = seconds.get("render")
    return {
        "task": real.task.name,
        "prompt": real.task.prompt,
        "machine": machine(),
        "seconds": seconds,
        "render": {
            "frames_per_second": real.frame_count / drawing if drawing else None,
            "settings": real.renderer,
        },
        "finetune": {key: models["lora"].get(key) for key in _TUNED},
        "decoder": {
            "states": [{"name": name, **row} for name, row in decoder.get("state", {}).items()] or _no_states(real),
            "keypoints_mm": decoder.get("keypoint_mm", {}),
            "action_r2": decoder.get("action_r2", []),
            "reward": {**_no_reward(), **decoder.get("reward", {}), "windows": decoder.get("windows")},
        },
        "imagined": {
            "states": [
                {"name": n, "unit": d["unit"], "error": d["mean"], "percent_of_range": d["percent_of_range"]}
                for n, d in last["dimensions"].items()
            ],
            "reward": reward(audited["open_loop_imagined"]["reward"]),
            "trajectories_per_second": _read(run / "imagined.json").get("trajectories_per_second"),
            "count": len(imagined),
        },
        "one_step": one_step(audited),
        "agent": agent(run / "eval", real),
        "pictures": {
            key: name if (run / name).is_file() else None
            for key, name in (("grid_png", "imagined.png"), ("grid_gif", "imagined.gif"))
        },
        "data": {
            "collected": collected(real),
            "base_has_seen": seen(models["base"], real.task.name),
            "heldout": f"{heldout} of these episodes: nothing was trained on them, all errors are theirs",
        },
        "identities": identities(real, imagined, models),
    }


def models_of(base: Base, lora: Path | None, decoder: Path) -> dict[str, Any]:
    """What the files say of the three models."""
    return {
        "base": base,
        "lora": read_json(lora / CONFIG_FILE, "fine-tuned LoRA") if lora else {},
        "decoder": read_json(decoder / "config.json", "decoder"),
    }


def identities(real: Store, imagined: Store, models: dict[str, Any]) -> dict[str, str]:
    """Which models and which data, by hash, seed and settings."""
    base, lora, decoder = models["base"], models["lora"], models["decoder"]
    how, source = imagined.attributes["provenance"], real.attributes["provenance"]
    name = "embedded" if Path(base.path) == EMBEDDED else base.path
    settings = decoder.get("provenance", {}).get("config", {})
    tuned = how["generator"].partition("+")[2]
    guidance = ", ".join(f"{key} {value:g}" for key, value in how["guidance"].items())
    sizes = ", ".join(str(k) for k in how["k"])
    steps = ", ".join(str(n) for n in sorted({*how["num_inference_steps"].values()}))
    return {
        "base": f"{name}, {base.identity}",
        "LoRA": f"{tuned}, {lora['steps']} steps, seed {lora['config']['seed']}" if lora else "none: the base alone",
        "decoder": f"{decoder['weights']}, seed {settings.get('seed', 'unknown')}",
        "imagined": f"{len(imagined)} trajectories of {sizes} frames at most, {steps} denoising "
        f"steps, guidance {guidance}, seed {how['seed']}",
        "real store": f"{len(real)} episodes, {real.frame_count} frames, seed {source.get('seed', 'unknown')}",
        "renderer": ", ".join(f"{key} {value}" for key, value in (real.renderer or {}).items()),
        "held out": f"{len(real.split()[1])} episodes, {decoder.get('metrics', {}).get('windows', 'unknown')} windows",
    }


def collected(real: Store) -> str:
    how = real.attributes["provenance"]
    policy = f"of the {how['policy']} policy, action noise {how['noise']}" if "policy" in how else "imported"
    return f"{len(real)} episodes {policy}, {real.frame_count} states"


def seen(base: Base, task: str) -> str:
    """Whether the base knows the task, from its own record."""
    stores = _read(Path(base.path) / PRETRAINING).get("stores", {})
    if not stores:
        return f"not recorded in {Path(base.path).name}"
    own = sum(name == task or name.startswith(f"{task}-") for name in stores)
    also = f"{own} of them other episodes of this task" if own else "none of them of this task"
    return f"{len(stores)} stores, {also}; the agents have seen the real store only"


def reward(counts: dict[str, Any]) -> dict[str, Any]:
    """Precision and recall from agreement counts; None where nothing was counted."""
    if "both" not in counts:
        return {**_no_reward(), **counts}
    said, true, both = counts["trajectory"], counts["simulator"], counts["both"]
    return {
        "precision": both / said if said else None,
        "recall": both / true if true else None,
        "positives": true,
        "windows": None,
    }


def one_step(audited: dict[str, Any]) -> dict[str, Any]:
    def part(which: str, name: str) -> dict[str, Any]:
        rows = audited[which][name]
        per_dimension = [d["percent_of_range"] for d in rows["dimensions"].values()]
        return {"error_percent": rows["percent_of_range"], "per_dimension": per_dimension}

    return {
        "imagined": part("one_step_imagined", "error"),
        "real": part("one_step_real", "error"),
        "nothing_moves": part("one_step_imagined", "nothing_moves"),
        "shuffled_actions": part("one_step_imagined", "shuffled_actions"),
    }


def agent(folder: Path, real: Store) -> dict[str, Any]:
    """The experiment's curves; no arms where none was run."""
    arms: dict[str, Any] = {"without": {"seeds": {}}, "with": {"seeds": {}}}
    none = {
        "arms": arms,
        "difference": {"mean": None, "low": None, "high": None},
        "verdict": "not measured: `pixeltraj eval` runs the agent with and without imagination",
        "steps": None,
        "offline_episodes": None,
        "curves_png": None,
    }
    if not (folder / "results.json").is_file():
        return none
    results = read_json(folder / "results.json", "experiment")
    if results["measure"] != "success rate":
        return {**none, "verdict": f"{results['verdict']} ({results['measure']}; {folder.name}/table.md has the rest)"}
    for row in results["runs"]:
        curve = {"steps": [s for s, _ in row["curve"]], "success": [v for _, v in row["curve"]], "final": row["score"]}
        arms.setdefault(row["arm"], {"seeds": {}})["seeds"][str(row["seed"])] = curve
    return {
        "arms": arms,
        "difference": results["difference"],
        "verdict": results["verdict"],
        "steps": results["provenance"]["steps"],
        "offline_episodes": len(real.split()[0]),
        "curves_png": f"{folder.name}/curves.png",
    }


def machine() -> dict[str, Any]:
    return {
        "cores": os.cpu_count(),
        "cpu": platform.machine(),
        "system": platform.system(),
        "gpu": torch.cuda.is_available(),
    }


def _read(path: Path) -> dict[str, Any]:
    return read_json(path, "timing") if path.is_file() else {}


def _no_states(real: Store) -> list[dict[str, Any]]:
    return [{"name": d.name, "unit": d.unit, "error": None, "percent_of_range": None} for d in real.task.state]


def _no_reward() -> dict[str, Any]:
    return dict.fromkeys(("precision", "recall", "positives", "windows"))
