"""Replay: the simulator restored to where imagination set out, and fed the imagined actions."""

from collections.abc import Sequence

import mujoco
import numpy as np
from tqdm import tqdm

from pixeltraj.decode.decoder import Decoder
from pixeltraj.decode.examination import quiet
from pixeltraj.errors import PixeltrajError
from pixeltraj.eval.cases import Case, gap
from pixeltraj.render.backends import open_renderer
from pixeltraj.simulator import Simulator
from pixeltraj.store import Store
from pixeltraj.trajectory import Trajectory

BATCH = 16
_BAD = [int(getattr(mujoco.mjtWarning, f"mjWARN_BAD{what}")) for what in ("QPOS", "QVEL", "QACC", "CTRL")]


def replay(simulator: Simulator, imagined: Trajectory, snapshot: np.ndarray) -> Trajectory:
    """From the snapshot (Q,) with the imagined actions, with snapshots and without frames.

    It is shorter where the simulator ends the episode, and where it diverges: its origin says `diverged` then.
    """
    simulator.restore(snapshot)
    states, points, snapshots = [simulator.state()], [simulator.keypoints()], [snapshot]
    rewards, over, diverged = [], [], False
    for action in imagined.actions:
        before = _complaints(simulator)
        with quiet():
            state, reward, terminated, *_ = simulator.step(action)
        diverged = _complaints(simulator) > before or not np.isfinite(state).all()
        if diverged:
            break
        states.append(state)
        snapshots.append(simulator.snapshot())
        points.append(simulator.keypoints())
        rewards.append(reward)
        over.append(terminated)
        if terminated:
            break
    steps = len(rewards)
    return Trajectory(
        states=np.array(states, dtype=np.float32),
        actions=imagined.actions[:steps],
        rewards=np.array(rewards, dtype=np.float32),
        terminations=np.array(over, dtype=bool),
        truncations=np.zeros(steps, dtype=bool),
        keypoints=np.array(points, dtype=np.float32),
        snapshots=np.array(snapshots),
        origin={"diverged": diverged},
    )


def _complaints(simulator: Simulator) -> int:
    """How often MuJoCo found its state bad, after which it goes on from another one."""
    return int(np.asarray(simulator.data.warning.number)[_BAD].sum())


def make_cases(imagined: Store, real: Store, span: np.ndarray) -> list[Case]:
    """One for each trajectory of the imagined store, replayed; replays have no frames yet (`draw_replays`).

    span (S,): range of each dimension. Raises PixeltrajError where the starts are not to be found in the real store.
    """
    simulator = real.task.make()
    cases = []
    for i in tqdm(range(len(imagined)), desc="replay", unit="trajectory"):
        trajectory = imagined.trajectory(i)
        row, end = start_row(imagined, i, real)
        again = replay(simulator, trajectory, real.read("snapshots", row, row + 1)[0])
        followed = real_part(real, row, min(row + len(trajectory.states), end))
        cases.append(Case(i, trajectory, again, followed, gap(real.task, trajectory, again, span)))
    return cases


def start_row(imagined: Store, episode: int, real: Store) -> tuple[int, int]:
    """The row of the real store where an imagined episode set out, and the row after that episode's last."""
    origin = imagined.episodes[episode]
    source, step = (int(origin.get(name, -1)) for name in ("episode", "step"))
    if not (0 <= source < len(real) and 0 <= step < real.episodes[source]["frames"]):
        raise PixeltrajError(
            f"{imagined.path} says that it set out from episode {source}, step {step}, which {real.path} does "
            f"not have; give the store that `pixeltraj imagine --from` was given with --real"
        )
    return int(real.offsets[source]) + step, int(real.offsets[source + 1])


def real_part(real: Store, start: int, stop: int) -> Trajectory | None:
    """Rows of one episode, with frames; None where nothing followed."""
    if stop - start < 2:
        return None
    names = ("actions", "rewards", "terminations", "truncations")
    return Trajectory(
        states=real.read("states", start, stop),
        keypoints=real.read("keypoints", start, stop),
        frames=real.read("frames", start, stop),
        **{name: real.read(name, start, stop - 1) for name in names},
        origin=dict(zip(("episode", "step"), real.place(start))),
    )


def draw_replays(cases: Sequence[Case], real: Store) -> None:
    """Draw the replays' frames as those of the real store are drawn.

    Raises PixeltrajError where this machine draws them in another way.
    """
    settings = real.renderer or {}
    with open_renderer(real.task.make(), settings.get("backend", "auto")) as renderer:
        if renderer.settings != settings:
            raise PixeltrajError(
                f"{real.path} was rendered with {settings}, this machine draws with {renderer.settings}: pictures of "
                f"both would not compare; render the store here"
            )
        for case in tqdm(cases, desc="draw replays", unit="trajectory"):
            assert case.replay.snapshots is not None
            case.replay.frames = renderer.frames(case.replay.snapshots)


def read_real(decoder: Decoder, cases: Sequence[Case]) -> list[Trajectory | None]:
    """What the decoder reads in the real frames that followed each start, as it reads imagined grids."""
    read: list[Trajectory | None] = [None] * len(cases)
    lengths = sorted(set(decoder.generator.lengths) & set(decoder.lengths))
    by_length: dict[int, list[int]] = {}
    for i, case in enumerate(cases):
        if case.real is not None:
            k = next((k for k in lengths if k >= len(case.real.states)), lengths[-1])
            by_length.setdefault(k, []).append(i)
    for k, which in by_length.items():
        generator = decoder.generator.at(k)
        batches = [which[i : i + BATCH] for i in range(0, len(which), BATCH)]
        for part in tqdm(batches, desc=f"read real frames, k={k}", unit="batch"):
            followed = [case.real for case in (cases[i] for i in part) if case.real]
            frames = np.stack([padded(one, k) for one in followed])
            tiles = generator.base.encode(frames.reshape(-1, *frames.shape[2:]))
            tiles = tiles.reshape(len(part), k, *tiles.shape[1:])
            starts = np.stack([one.states[0] for one in followed])
            told = [None if one.snapshots is None else one.snapshots[0] for one in followed]
            prompts = [decoder.task.prompt_of(*start) for start in zip(starts, told)]
            for i, one in zip(part, decoder.decode(generator.grid.join(tiles), tiles[:, 0], prompts, starts)):
                read[i] = one
    return read


def act(read: Sequence[Trajectory | None], cases: Sequence[Case], real: Store) -> list[Trajectory | None]:
    """The simulator from each case's start, fed the actions that were read in real frames."""
    simulator = real.task.make()
    both = tqdm(list(zip(read, cases)), desc="replay what was read", unit="trajectory")
    return [one and replay(simulator, one, _start(case)) for one, case in both]


def _start(case: Case) -> np.ndarray:
    assert case.replay.snapshots is not None
    return case.replay.snapshots[0]


def padded(trajectory: Trajectory, k: int) -> np.ndarray:
    """(k, 84, 84, 3): its frames, the last one repeated; what is past k is left out."""
    assert trajectory.frames is not None
    rows = np.minimum(np.arange(k), len(trajectory.frames) - 1)
    return trajectory.frames[rows]
