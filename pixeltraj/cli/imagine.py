"""`pixeltraj imagine TASK [--from STORE] --out STORE2 --decoder DIR`

With --keep.uncertainty, --keep.cycle or --keep.audit the worst transitions of each batch of 16 trajectories are
dropped, or weighed: see `pixeltraj.keep`. The origin of a trajectory then says, under `keep`, how many transitions had
been `imagined` and `kept` up to the end of its batch, and from which start the `next` batch goes on: an interrupted run
ends as it would have ended. Weights stand in the origin too, as `weights`.

With --rewards task, rewards and ends are the task's own function of the decoded states and actions, where the task has
one (`Task.outcome`); the store's provenance and the origin of each trajectory say so.

With --cluster the batches are imagined by the workers of a Ray, and stored here in their order: the store is the same.
"""

import time
from collections.abc import Generator
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro
from tqdm import tqdm

from pixeltraj.cli.batch import Batch
from pixeltraj.cli.imagination import ImagineConfig
from pixeltraj.cli.starts import ResetStarts, Starts, StoreStarts
from pixeltraj.cluster import over_shards, require_cluster
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
    cluster: str | None = None
    """A Ray whose workers imagine: its address, auto for the one that runs here, local to start one. All paths have to
    lead to the same files on all of its machines."""
    workers: int | None = None
    """Workers of the cluster; one for each of its CPUs if not given."""
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


class Batches:
    """Batches of imagined trajectories, each known by its first start: what it holds depends on nothing else."""

    def __init__(self, config: Config, expected: dict[str, Any] | None = None) -> None:
        """expected: what `provenance` has to be. Raises PixeltrajError where it is not, or parts do not fit."""
        task = get_task(config.task)
        config.require_rewards(task)
        of_store = StoreStarts(Store.open(config.source, task), config.seed) if config.source else None
        self.imaginer, wanted = config.read()
        self.starts: Starts = of_store or ResetStarts(task, config.seed, wanted)
        if wanted and self.starts.renderer != wanted:
            raise PixeltrajError(
                f"{config.source} was rendered with {self.starts.renderer}, {config.decoder} was trained on frames "
                f"drawn with {wanted}: train the decoder on a store that is rendered like this one"
            )
        self.provenance: dict[str, Any] = {
            "imagined": True,
            "from": self.starts.provenance,
            "generator": self.imaginer.generator.identity,
            "k": list(self.imaginer.lengths),
            "num_inference_steps": self.imaginer.steps,
            "guidance": asdict(config.guidance),
            "seed": config.seed,
        }
        if config.keep.wanted:
            self.provenance["keep"] = asdict(config.keep)
        if config.rewards != "learned":
            self.provenance["rewards"] = config.rewards
        if config.actions != "read":
            self.provenance["actions"] = config.actions
        if expected not in (None, self.provenance):
            raise PixeltrajError("a machine of the cluster finds another base, LoRA or store than this one does")
        self.config, self.keeper = config, config.keeper(self.imaginer, wanted)

    def __call__(self, first: int) -> Batch:
        """The batch of this start and those after it."""
        config, keeper = self.config, self.keeper
        rng = torch.Generator().manual_seed(config.seed * 1_000_003 + first)
        begin, origins = self.starts(first, min(BATCH, config.n - first))
        trajectories = self.imaginer.imagine(begin, rng, frames=True)
        for trajectory, origin in zip(trajectories, origins):
            trajectory.origin |= {"imagined": True} | origin
        keeper.tally = Tally()
        near = list(self.starts.snapshots(origins)) if keeper.needs_snapshots else []
        return Batch(keeper(trajectories, near), keeper.tally, first + len(begin))

    def require_snapshots(self) -> None:
        """Raise PixeltrajError where what is to be kept depends on simulator states, and the starts have none."""
        if self.keeper.needs_snapshots:
            self.starts.snapshots(self.starts(0, 1)[1])

    def close(self) -> None:
        self.keeper.close()


class ImaginingWorker:
    """A cluster's worker: `Batches` as bytes."""

    def __init__(self, config: Config, provenance: dict[str, Any]) -> None:
        self.batches = Batches(config, provenance)

    def __call__(self, first: int) -> bytes:
        return self.batches(first).to_bytes()


def imagine(config: Config, tally: Tally | None = None) -> tuple[Store, float]:
    """The store, filled up from n starts, and how many were imagined a second; 0 where none was lacking.

    tally: is told how much was kept, of what an interrupted run had imagined too.
    """
    total = Tally() if tally is None else tally
    require_cluster(config.cluster, config.workers)
    if config.n < 1:
        raise PixeltrajError("--n must be at least 1")
    with closing(Batches(config)) as batches:
        batches.require_snapshots()  # before a store is begun
        store = begun(config, batches)
        began, first = time.perf_counter(), done(store, total)
        firsts = range(first, config.n, BATCH)
        with closing(made(config, batches, firsts)) as every:
            for batch in tqdm(every, total=len(firsts), desc="imagine", unit="batch"):
                total.imagined += batch.tally.imagined
                total.kept += batch.tally.kept
                for trajectory in batch.kept:
                    trajectory.origin |= doubts(trajectory)
                    if config.keep.wanted:
                        trajectory.origin |= counted(trajectory, total, batch.following)
                store.append(batch.kept)
        return store, max(0, config.n - first) / (time.perf_counter() - began)


def begun(config: Config, batches: Batches) -> Store:
    """A new store, or the one that the same command began."""
    if not config.out.exists():
        store = Store.create(config.out, batches.imaginer.task, provenance(**batches.provenance), {})
        generator, starts = batches.imaginer.generator.identity, batches.starts.renderer
        store.begin_rendering({"backend": "imagined", "generator": generator, "starts": starts})
        return store
    store = Store.open(config.out, batches.imaginer.task)
    there, how = store.attributes["provenance"], batches.provenance
    if any(there.get(key) != how.get(key) for key in (*how, "keep", "rewards", "actions")):
        raise PixeltrajError(f"{config.out} was imagined in another way; give another --out")
    return store


def made(config: Config, batches: Batches, firsts: range) -> Generator[Batch, None, None]:
    """The batches of these starts, in their order, imagined here or by the cluster."""
    if config.cluster is None:
        yield from map(batches, firsts)
    else:
        what = (config, batches.provenance)
        for content in over_shards(config.cluster, config.workers, ImaginingWorker, what, firsts):
            yield Batch.from_bytes(content)


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
