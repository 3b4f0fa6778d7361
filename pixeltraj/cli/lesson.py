"""Lesson: what a generator learns in one update of online adaptation, and how it is taught."""

import shutil
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pixeltraj.eval.experience import Episode, Experience, Sample
from pixeltraj.files import provenance
from pixeltraj.finetune.train import FinetuneConfig, finetune
from pixeltraj.prompt import PromptKind
from pixeltraj.render.renderer import Renderer
from pixeltraj.store import Store
from pixeltraj.trajectory import Trajectory


@dataclass(frozen=True)
class Lesson:
    """Parts of episodes, and windows of k frames in them."""

    parts: list[Episode]
    windows: dict[int, np.ndarray]
    """(W, k) int64 for each k: rows of the frames of all parts, one after the other."""

    @classmethod
    def of(cls, samples: Iterable[Sample], experience: Experience, lengths: tuple[int, ...]) -> "Lesson":
        """For each k the window that begins with a transition's state.

        One that runs past the end of a solved episode repeats its last frame, as in a store; where an episode was only
        cut off there is none.
        """
        steps: dict[int, set[int]] = {}
        for sample in samples:
            steps.setdefault(sample.episode, set()).add(sample.step)
        parts, offset = [], 0
        windows: dict[int, list[np.ndarray]] = {k: [np.empty((0, k), np.int64)] for k in lengths}
        for number in sorted(steps):
            episode, starts = experience.episodes[number], np.array(sorted(steps[number]))
            found = {k: _windows(episode, starts, k) for k in lengths}
            frames = np.unique(np.concatenate([rows.ravel() for rows in found.values()]))
            for run in np.split(frames, np.flatnonzero(np.diff(frames) > 1) + 1) if len(frames) else []:
                parts.append(episode.part(int(run[0]), int(run[-1]) + 1))
            for k, rows in found.items():
                windows[k].append(offset + np.searchsorted(frames, rows))
            offset += len(frames)
        return cls(parts, {k: np.concatenate(rows) for k, rows in windows.items()})

    def __len__(self) -> int:
        """Windows."""
        return sum(map(len, self.windows.values()))


def begins(sample: Sample, experience: Experience, k: int) -> bool:
    """Whether there is a window of k frames from there."""
    episode = experience.episodes[sample.episode]
    return episode.terminated or sample.step + k - 1 <= len(episode)


def _windows(episode: Episode, starts: np.ndarray, k: int) -> np.ndarray:
    """(W, k) frames of the episode."""
    last = len(episode)
    if not episode.terminated:
        starts = starts[starts + k - 1 <= last]
    return np.minimum(starts[:, None] + np.arange(k), last)


@dataclass(frozen=True)
class Teaching:
    """How a lesson becomes a LoRA."""

    base: str
    """The base's folder."""
    lengths: tuple[int, ...]
    """All k of the generator."""
    prompt: PromptKind
    states: bool
    rank: int
    steps: int
    """Training steps."""
    batch: int
    """Images of five frames a step."""
    lr: float
    """Peak learning rate."""


def teach(
    lesson: Lesson, teaching: Teaching, renderer: Renderer, start: Path | None, out: Path, seed: int
) -> dict[str, Any]:
    """Draw the lesson's frames, put them into a store, and go on from the LoRA `start` to a new one in `out`.

    -> windows, frames, seconds of drawing and of tuning, and the loss on the lesson's windows before and after.
    Whatever an interrupted update has left is removed first.
    """
    began = time.perf_counter()
    work = out.with_name(f"{out.name}.frames")
    for folder in (work, out):
        shutil.rmtree(folder, ignore_errors=True)
    simulator = renderer.simulator
    store = Store.create(work, simulator.task, provenance(), simulator.snapshot_layout)
    try:
        store.begin_rendering(renderer.settings)
        store.append([drawn(part, renderer) for part in lesson.parts])
        seconds_drawing = time.perf_counter() - began
        config = FinetuneConfig(
            work,
            out,
            teaching.base,
            teaching.lengths,
            teaching.steps,
            teaching.batch,
            teaching.rank,
            teaching.lr,
            teaching.prompt,
            teaching.states,
            seed=seed,
            start=start,
        )
        result = finetune(config, lesson.windows)
        frames = store.frame_count
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return {
        "windows": len(lesson),
        "frames": frames,
        "seconds_drawing": seconds_drawing,
        "seconds_tuning": time.perf_counter() - began - seconds_drawing,
        "loss_before": result["chosen_loss_before"],
        "loss_after": result["chosen_loss_after"],
    }


def drawn(part: Episode, renderer: Renderer) -> Trajectory:
    """The same with frames and keypoints, as a store takes it."""
    snapshots, simulator = part.snapshots(0, len(part.states)), renderer.simulator
    frames, keypoints = [], []
    for snapshot in snapshots:
        simulator.restore(snapshot)
        frames.append(renderer.frame())
        keypoints.append(simulator.keypoints())
    never = np.zeros(len(part), bool)
    ended = never.copy()
    ended[-1] = part.terminated
    return Trajectory(
        part.states,
        part.actions,
        part.rewards,
        ended,
        never,
        np.stack(keypoints),
        snapshots=snapshots,
        frames=np.stack(frames),
        origin={"policy": "agent"},
    )
