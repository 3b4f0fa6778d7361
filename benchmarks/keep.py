"""What `pixeltraj imagine --keep` is worth: `python -m benchmarks.keep --out runs/benchmarks/decode [--json FILE]`.

Half a minute a task. Takes what a finished `python -m benchmarks.decode` imagined, scores every transition, and asks
the simulator afterwards how wrong it was: by one step (set to s_t, given a_t, compared with s_{t+1}), and by the open
loop (started exactly where imagination was, given the actions alone, compared with s_{t+1}). Prints the rank
correlation of each score with each error, and the mean error of what is kept of each batch of 16 trajectories; what
fails a score stands in the column of 100 % and in no other. Beside the scores stands how many steps a transition is
from the start: what any score must beat, where errors accumulate.
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from tqdm import tqdm

from benchmarks.decode_config import Benchmark as DecodeBenchmark
from pixeltraj.cli import guarded
from pixeltraj.cli.imagine import BATCH
from pixeltraj.cli.keeping import stated
from pixeltraj.decode.cycle import BENT, cycle_mismatch
from pixeltraj.decode.examination import examine
from pixeltraj.decode.measurement import calibration
from pixeltraj.decode.one_step import one_step_error
from pixeltraj.decode.subject import Subject, synthetic_subject
from pixeltraj.decode.yardstick import is_moving, span_of
from pixeltraj.errors import PixeltrajError
from pixeltraj.files import provenance, write_json
from pixeltraj.keep import Keep, ranked
from pixeltraj.render.backends import open_renderer
from pixeltraj.simulator import Simulator
from pixeltraj.store import Store

SHARES = (1.0, 0.8, 0.6, 0.4)
TRUTHS = {"one_step": "one step", "open_loop": "open loop"}
SCORES = ("uncertainty", "cycle", "audit", "steps from the start")


@dataclass(frozen=True)
class Config:
    out: Path = Path("runs/benchmarks/decode")
    """Folder of a finished benchmarks.decode."""
    imagined: Path | None = None
    """A folder with a store of imagined trajectories for each task; those that the benchmark audited if not given."""
    tasks: tuple[str, ...] = ()
    """All of the benchmark's if none is given."""
    json: Path | None = None
    """Where to write the figures."""


def measure(config: Config, task: str) -> dict[str, Any]:
    """Of each score, by each truth: rank correlation and mean error, % of range, of what is kept at each share."""
    real = Store.open(config.store(task))
    store = Store.open((config.imagined or config.out / "imagined") / task, real.task)
    if "keep" in store.attributes["provenance"]:
        raise PixeltrajError(f"of {store.path} the worst was dropped already; imagine it without --keep")
    span = span_of(real)
    subject = synthetic_subject(store, real, len(store), span, np.random.default_rng(0))
    for trajectory, episode in zip(subject.trajectories, store.episodes):
        trajectory.uncertainty = np.array(episode["uncertainty_mm"]) / 1000
    scores, truths = scored(real, subject, span)
    sound = np.isfinite(truths["one_step"]) & np.isfinite(truths["open_loop"])
    found: dict[str, Any] = {"trajectories": len(store), "transitions": len(sound), "judged": int(sound.sum())}
    for name, score in scores.items():
        place = ranked(score)[1].astype(np.float64)
        kept = {share: chosen(score, share) for share in SHARES}
        found[name] = {
            truth: {
                "rank_correlation": calibration(place[sound], error[sound])["rank_correlation"],
                "error_kept": {f"{100 * share:.0f}": float(error[sound & kept[share]].mean()) for share in SHARES},
            }
            for truth, error in truths.items()
        }
        found[name]["failing"] = int((~np.isfinite(np.concatenate(score))).sum())
    return found


def scored(
    real: Store, subject: Subject, span: np.ndarray
) -> tuple[dict[str, list[np.ndarray]], dict[str, np.ndarray]]:
    """For each score (T,) of each trajectory; for each truth (n,) of all transitions, NaN where it is not told."""
    simulator, trajectories, near = real.task.make(), subject.trajectories, subject.near
    if real.renderer is None:
        raise PixeltrajError(f"{real.path} is not drawn; is the benchmark finished?")
    with open_renderer(simulator, real.renderer["backend"]) as renderer:
        if renderer.settings != real.renderer:
            raise PixeltrajError(f"{real.path} was drawn with {real.renderer}, here it is {renderer.settings}")
        bar = tqdm(list(zip(trajectories, near)), desc="cycle check", unit="trajectory")
        cycle = [cycle_mismatch(renderer, [trajectory], [start])[0][1:] for trajectory, start in bar]
    examined = examine(simulator, trajectories, near, "one step", responses=False)
    one_step = one_step_error(real.task, examined, span)
    audit = np.where(examined.excess > BENT, np.inf, np.nan_to_num(one_step, nan=np.inf))
    scores = {
        "uncertainty": [stated(trajectory) for trajectory in trajectories],
        "cycle": cycle,
        "audit": np.split(audit, np.cumsum([len(t) for t in trajectories])[:-1]),
        "steps from the start": [np.arange(len(trajectory), dtype=np.float64) for trajectory in trajectories],
    }
    truths = {
        "one_step": 100 * one_step,
        "open_loop": np.concatenate([open_loop_errors(simulator, subject, i, span) for i in range(len(near))]),
    }
    return scores, truths


def open_loop_errors(simulator: Simulator, subject: Subject, which: int, span: np.ndarray) -> np.ndarray:
    """(T,) error of s_{t+1} against the simulator driven by the actions, % of range; NaN past a termination."""
    trajectory, moving = subject.trajectories[which], is_moving(simulator.task, span)
    errors = np.full(len(trajectory), np.nan)
    simulator.restore(subject.near[which])
    for t, action in enumerate(trajectory.actions):
        expected, _, terminated, *_ = simulator.step(action)
        errors[t] = 100 * (np.abs(expected - trajectory.states[t + 1])[moving] / span[moving]).mean()
        if terminated:
            break
    return errors


def chosen(score: list[np.ndarray], share: float) -> np.ndarray:
    """(n,) bool: what is kept of each batch, as `pixeltraj imagine` has it."""
    counts = [len(one) for one in score]
    if share < 1.0:
        keep = Keep(cycle=share)
        batches = [score[first : first + BATCH] for first in range(0, len(score), BATCH)]
        counts = [count for batch in batches for count in keep.judge({"cycle": batch})[0]]
    return np.concatenate([np.arange(len(one)) < count for one, count in zip(score, counts)])


def table(found: dict[str, dict[str, Any]]) -> str:
    heads = " | ".join(f"{100 * share:.0f} %" for share in SHARES)
    lines = [f"| task | error, % of range | kept by | rank correlation | {heads} |", "|---" * (len(SHARES) + 4) + "|"]
    for task, rows in found.items():
        for truth, words in TRUTHS.items():
            for score in SCORES:
                row = rows[score][truth]
                told = "is it" if (score, truth) == ("audit", "one_step") else f"{row['rank_correlation']:.2f}"
                cells = " | ".join(f"{value:.2f}" for value in row["error_kept"].values())
                lines.append(f"| {task} | {words} | {score} | {told} | {cells} |")
    return "\n".join(lines)


def run(config: Config) -> int:
    torch.set_num_threads(1)
    tasks = config.tasks or DecodeBenchmark.recall(config.out).tasks
    found = {task: measure(config, task) for task in tasks}
    if config.json:
        write_json(config.json, {"tasks": found, "provenance": provenance()})
    print(table(found))
    return 0


if __name__ == "__main__":
    sys.exit(guarded(lambda: run(tyro.cli(Config, prog="python -m benchmarks.keep", description=__doc__))))
