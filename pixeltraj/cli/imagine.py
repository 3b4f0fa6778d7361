"""`pixeltraj imagine TASK [--from STORE] --out STORE2 --decoder DIR`

With --keep.uncertainty, --keep.cycle or --keep.audit the worst transitions of each batch of 16 trajectories are
dropped, or weighed: see `pixeltraj.keep`. The origin of a trajectory then says, under `keep`, how many transitions had
been `imagined` and `kept` up to the end of its batch, and from which start the `next` batch goes on: an interrupted run
ends as it would have ended. Weights stand in the origin too, as `weights`.

With --rewards task, rewards and ends are the task's own function of the decoded states and actions, where the task has
one (`Task.outcome`); the store's provenance and the origin of each trajectory say so.
"""

import time
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro
from tqdm import tqdm

from pixeltraj.cli.imagination import ImagineConfig
from pixeltraj.cli.starts import ResetStarts, Starts, StoreStarts
from pixeltraj.errors import PixeltrajError
from pixeltraj.files import provenance
from pixeltraj.keep import Tally
from pixeltraj.picture import KINDS, draw, require_kind
from pixeltraj.store import Store
from pixeltraj.tasks import get_task
from pixeltraj.trajectory import Trajectory

BATCH = 16
SHOWN = 4


@dataclass(frozen=True, kw_only=True)
class Config(ImagineConfig):
    task: Annotated[str, tyro.conf.Positional]
    """Name of the task."""
    source: Annotated[Path | None, tyro.conf.arg(name="from")] = None
    """A rendered store, whose held-out episodes give the start states; if not given, resets of the environment do."""
    out: Path
    """The store of imagined trajectories: a new one, or one that an interrupted run of the same command left."""
    n: int = 64
    """Trajectories to imagine; fewer are stored where --keep drops some."""
    seed: int = 0
    """Of the choice of start states and of the noise."""
    show: Path | None = None
    """A PNG, a GIF and an MP4 of some of them beside what really followed: name one, the others are called alike."""


def run(config: Config) -> None:
    if config.show:
        require_kind(config.show)
    tally = Tally()
    store, speed = imagine(config, tally)
    print(
        f"{store.path}: {len(store)} imagined trajectories of {store.task.name}, "
        f"{store.frame_count - len(store)} transitions" + (f", {speed:.1f} a second" if speed else "")
    )
    if config.keep.wanted:
        print(f"{tally} of {config.n} trajectories, by {config.keep}")
    if config.show and not len(store):
        print(f"{config.show} is not drawn: nothing was kept")
    elif config.show:
        imagined, real = [store.trajectory(i) for i in range(min(SHOWN, len(store)))], None
        if config.source:
            source, k = Store.open(config.source), max(store.attributes["provenance"]["k"])
            real = [continuation(source, trajectory, k) for trajectory in imagined]
        draw(imagined, real, store.task, config.show)
        files = ", ".join(str(config.show.with_suffix(kind)) for kind in KINDS)
        print(f"{files}: {len(imagined)} of them" + (" beside the real ones" if real else ""))


def imagine(config: Config, tally: Tally | None = None) -> tuple[Store, float]:
    """The store, filled up from n starts, and how many were imagined a second; 0 where none was lacking.

    tally: is told how much was kept, of what an interrupted run had imagined too.
    """
    task = get_task(config.task)
    if config.n < 1:
        raise PixeltrajError("--n must be at least 1")
    config.require_rewards(task)
    of_store = StoreStarts(Store.open(config.source, task), config.seed) if config.source else None
    imaginer, wanted = config.read()
    starts: Starts = of_store or ResetStarts(task, config.seed, wanted)
    if wanted and starts.renderer != wanted:
        raise PixeltrajError(
            f"{config.source} was rendered with {starts.renderer}, {config.decoder} was trained on frames drawn with "
            f"{wanted}: train the decoder on a store that is rendered like this one"
        )
    how: dict[str, Any] = {
        "imagined": True,
        "from": starts.provenance,
        "generator": imaginer.generator.identity,
        "k": list(imaginer.lengths),
        "num_inference_steps": imaginer.steps,
        "guidance": asdict(config.guidance),
        "seed": config.seed,
    }
    if config.keep.wanted:
        how["keep"] = asdict(config.keep)
    if config.rewards != "learned":
        how["rewards"] = config.rewards
    with closing(config.keeper(imaginer, wanted)) as keeper:
        if keeper.needs_snapshots:
            starts.snapshots(starts(0, 1)[1])  # whether there are any is known before a store is begun
        if config.out.exists():
            store = Store.open(config.out, task)
            there = store.attributes["provenance"]
            if any(there.get(key) != how.get(key) for key in (*how, "keep", "rewards")):
                raise PixeltrajError(f"{config.out} was imagined in another way; give another --out")
        else:
            store = Store.create(config.out, task, provenance(**how), {})
            store.begin_rendering({"backend": "imagined", "generator": imaginer.generator.identity})
        began, first = time.perf_counter(), done(store, keeper.tally)
        for i in tqdm(range(first, config.n, BATCH), desc="imagine", unit="batch"):
            rng = torch.Generator().manual_seed(config.seed * 1_000_003 + i)
            begin, origins = starts(i, min(BATCH, config.n - i))
            trajectories = imaginer.imagine(begin, rng, frames=True)
            for trajectory, origin in zip(trajectories, origins):
                trajectory.origin |= {"imagined": True} | origin
            kept = keeper(trajectories, list(starts.snapshots(origins)) if keeper.needs_snapshots else [])
            for trajectory in kept:
                trajectory.origin |= doubts(trajectory)
                if config.keep.wanted:
                    trajectory.origin |= counted(trajectory, keeper.tally, i + len(begin))
            store.append(kept)
        if tally is not None:
            tally.imagined, tally.kept = keeper.tally.imagined, keeper.tally.kept
        return store, max(0, config.n - first) / (time.perf_counter() - began)


def done(store: Store, tally: Tally) -> int:
    """The start that imagination goes on from; `tally` is set to what was counted up to it."""
    counts = store.episodes[-1].get("keep") if len(store) else None
    if counts is None:
        return len(store)
    tally.imagined, tally.kept = counts["imagined"], counts["kept"]
    return int(counts["next"])


def counted(trajectory: Trajectory, tally: Tally, following: int) -> dict[str, object]:
    """What the origin of a trajectory that was kept says of its batch, and its weights."""
    said: dict[str, object] = {"keep": {**asdict(tally), "next": following}}
    if trajectory.weights is not None:
        said["weights"] = [round(float(weight), 4) for weight in trajectory.weights]
    return said


def doubts(trajectory: Trajectory) -> dict[str, object]:
    """What the decoder claims of each frame, in words that a store can keep."""
    if trajectory.uncertainty is None:
        return {}
    return {"uncertainty_mm": [round(1000 * float(metres), 2) for metres in trajectory.uncertainty]}


def continuation(store: Store, imagined: Trajectory, k: int) -> Trajectory:
    """What really followed, at most k frames of it."""
    episode, step = int(str(imagined.origin["episode"])), int(str(imagined.origin["step"]))
    whole = store.trajectory(episode)
    end = min(step + k, len(whole.states))
    assert whole.frames is not None
    return Trajectory(
        states=whole.states[step:end],
        keypoints=whole.keypoints[step:end],
        frames=whole.frames[step:end],
        snapshots=None if whole.snapshots is None else whole.snapshots[step:end],
        **{n: getattr(whole, n)[step : end - 1] for n in ("actions", "rewards", "terminations", "truncations")},
        origin={"episode": episode, "step": step},
    )
