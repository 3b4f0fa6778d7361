"""Adaptation: imagination whose generator learns on from what the agent lives through (ATraDiff, section 4.3)."""

import json
import math
import shutil
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from pixeltraj.adaptive_generator import AdaptiveGenerator
from pixeltraj.cli.imagination import Imagination, ImagineConfig
from pixeltraj.cli.lesson import Lesson, Teaching, begins
from pixeltraj.cli.teacher import BackgroundTeacher, Request, Taught, Teacher, WaitingTeacher
from pixeltraj.errors import PixeltrajError
from pixeltraj.eval.agents.agent import Agent, Played
from pixeltraj.eval.experience import Episode
from pixeltraj.eval.indicator import (
    Indicator,
    IndicatorKind,
    RewardIndicator,
    TDErrorIndicator,
    UniformIndicator,
)
from pixeltraj.files import read_json, write_json
from pixeltraj.finetune.train import FinetuneConfig
from pixeltraj.generator import CONFIG_FILE
from pixeltraj.task import Task
from pixeltraj.trajectory import Trajectory


@dataclass(frozen=True)
class Adaptation:
    """How the generator is updated while the agent learns."""

    indicator: Literal["none"] | IndicatorKind = "none"
    """What tells which of the agent's transitions are worth learning from: td-error, reward, or uniform, which takes
    any; with none the generator stays as it is."""
    every: int = 1000
    """Decisions between two updates."""
    steps: int = 40
    """Training steps of an update."""
    batch: int = 8
    """Images of five frames a step; of longer ones as many fewer."""
    lr: float = 1e-3
    """Peak learning rate of an update; warm-up and cosine to zero within each. For the embedded base."""
    capacity: int | None = None
    """Transitions that the indicator keeps; 50,000, or 5,000 by reward, if not given."""
    draw: int = 5_000
    """Of them, the most important, that an update draws from; by reward it is all of them. As many are rendered as its
    steps can look at."""
    drop: float = 0.1
    """Share of what is kept that is dropped after an update, whatever its importance."""
    rotate: float = 0.2
    """By reward only: share of what was drawn that is dropped after an update, the oldest first."""
    frozen_share: float = 0.5
    """Share of trajectories that the generator imagines as it was in the beginning, against forgetting."""
    background: bool = False
    """Update in a process of its own, for which the agent does not wait; a run then does not repeat exactly."""

    def check(self) -> None:
        """Raise PixeltrajError on a setting that cannot be."""
        for name in ("every", "steps", "batch"):
            if getattr(self, name) < 1:
                raise PixeltrajError(f"{name} of the adaptation is {getattr(self, name)}; give at least 1")
        if not self.lr > 0:
            raise PixeltrajError(f"lr of the adaptation is {self.lr}; give one above 0")
        if not 0 <= self.frozen_share <= 1:
            raise PixeltrajError(f"the frozen share must be from 0 to 1, not {self.frozen_share}")
        if self.indicator == "none":
            raise PixeltrajError("an adaptation needs an indicator: td-error, reward or uniform")
        self.make()

    def make(self) -> Indicator:
        """The indicator, empty."""
        if self.indicator == "reward":
            return RewardIndicator(self.capacity or 5_000, self.drop, self.rotate)
        kind = TDErrorIndicator if self.indicator == "td-error" else UniformIndicator
        return kind(self.capacity or 50_000, self.draw, self.drop)


@dataclass(frozen=True)
class AdaptiveImagineConfig:
    """What makes an imagination that adapts."""

    imagine: ImagineConfig
    adaptation: Adaptation

    @property
    def needs_critic(self) -> bool:
        return self.adaptation.indicator == "td-error"

    def __call__(self, task: Task) -> "AdaptiveImagination":
        """What an experiment's process calls once. Raises PixeltrajError where the settings or the parts do not fit."""
        self.adaptation.check()
        imaginer, wanted = self.imagine.read()
        if imaginer.generator.distilled:
            raise PixeltrajError(
                f"{self.imagine.lora} is distilled, which updates would undo: adapt the LoRA that it was distilled from"
            )
        generator = AdaptiveGenerator(imaginer.generator, self.adaptation.frozen_share)
        imaginer.generator = generator
        imagination = Imagination(imaginer, self.imagine.renderer(task, wanted), self.imagine.keep)
        return AdaptiveImagination(imagination, generator, self.adaptation, self.imagine.lora)


class AdaptiveImagination:
    """`pixeltraj.replay_buffer.Imagine` and `pixeltraj.eval.arm.Adaptive`.

    FOLDER/  lora-0003/     the generator's last LoRA, and that of the last checkpoint
             updates.json   what each update saw, what it cost and what came of it
    """

    def __init__(
        self, imagination: Imagination, generator: AdaptiveGenerator, adaptation: Adaptation, lora: Path | None
    ) -> None:
        """lora: what the generator began with."""
        self.imagination, self.generator, self.adaptation = imagination, generator, adaptation
        self.indicator = adaptation.make()
        self.seconds = 0.0
        self.updates: list[dict[str, Any]] = []
        """A row for each one that was taken."""
        self.skipped = 0
        """Updates that were due while the one before was still under way, or there was nothing to learn from."""
        self.teacher = self._teacher(lora)
        self._lora, self._saved = lora, 0
        self._decisions, self._lessons = 0, 0
        self._asked: dict[str, Any] = {}
        self._open: list[Played] = []

    def _teacher(self, lora: Path | None) -> Teacher:
        told = read_json(lora / CONFIG_FILE, "fine-tuned LoRA") if lora else None
        adaptation, generator, renderer = self.adaptation, self.generator, self.imagination.renderer
        teaching = Teaching(
            base=generator.base.path,
            lengths=generator.lengths,
            prompt=generator.prompt,
            states=told["states"] if told else FinetuneConfig.states,
            rank=int(told["config"]["rank"]) if told else FinetuneConfig.rank,
            steps=adaptation.steps,
            batch=adaptation.batch,
            lr=adaptation.lr,
        )
        if adaptation.background:
            return BackgroundTeacher(teaching, renderer.simulator.task.name, renderer.settings["backend"])
        return WaitingTeacher(teaching, renderer)

    def __call__(self, states: np.ndarray, snapshots: np.ndarray, seed: int) -> list[Trajectory]:
        return self.imagination(states, snapshots, seed)

    # What the run tells

    def open(self, folder: Path, seed: int) -> None:
        self.folder, self._seed = folder, seed
        self._rng = np.random.default_rng([seed, 2])
        torch.set_flush_denormal(True)  # as in all fine-tuning; from the start, or a resumed run would differ

    def begin(self, state: np.ndarray, snapshot: np.ndarray) -> None:
        self._open = []
        self._first = state, snapshot

    def observe(self, played: Played, agent: Agent) -> None:
        began = time.perf_counter()
        self._open.append(played)
        if played.terminated or played.truncated:
            self.indicator.add(self._episode(), agent, self._rng)
        self._decisions += 1
        self._take(self.teacher.answer())
        if self._decisions % self.adaptation.every == 0:
            self._update(agent)
            self._take(self.teacher.answer())
        self.seconds += time.perf_counter() - began

    def _episode(self) -> Episode:
        return Episode.of(
            np.stack([self._first[0], *(one.next_state for one in self._open)]).astype(np.float32),
            np.stack([one.action for one in self._open]).astype(np.float32),
            np.array([one.reward for one in self._open], np.float32),
            self._open[-1].terminated,
            np.stack([self._first[1], *(one.snapshot for one in self._open)]),
        )

    def _update(self, agent: Agent) -> None:
        if self.teacher.busy:
            self.skipped += 1
            return
        drawn = self.indicator.draw(agent, self._rng)
        experience, lengths = self.indicator.experience, self.generator.lengths
        usable = [sample for sample in drawn if begins(sample, experience, min(lengths))]
        if not usable:
            self.skipped += 1
            return
        seen = min(len(usable), self.adaptation.steps * self.adaptation.batch)
        chosen = self._rng.choice(len(usable), size=seen, replace=False)
        lesson = Lesson.of([usable[i] for i in chosen], experience, lengths)
        self._lessons += 1
        out = self.folder / f"lora-{self._lessons:04}"
        self._asked = {"decisions": self._decisions, "kept": len(experience), "drawn": len(drawn)}
        seed = int(self._rng.integers(2**31))
        self.teacher.ask(Request(lesson, self._lora, out, seed))
        self.indicator.served(drawn, self._rng)

    def _take(self, taught: Taught | None) -> None:
        """Imagine with a new LoRA from now on."""
        if taught is None:
            return
        if not math.isfinite(taught.facts["loss_after"]):
            warnings.warn(
                f"an update diverged and is left out; give a lower --adapt.lr than {self.adaptation.lr}",
                RuntimeWarning,
                stacklevel=3,
            )
            return
        self.generator.update(taught.lora)
        self._lora = taught.lora
        self.updates.append({"lora": taught.lora.name, **self._asked, **taught.facts})
        write_json(self.folder / "updates.json", self.updates)

    # Saving

    def state_dict(self) -> dict[str, np.ndarray]:
        facts = {
            "rng": self._rng.bit_generator.state,
            "decisions": self._decisions,
            "lessons": self._lessons,
            "updates": self.updates,
            "skipped": self.skipped,
            "seconds": self.seconds,
        }
        self._remove_before(self._saved)  # what the checkpoint before this one needs stays until this one is written
        self._saved = self._number(self._lora) if self.updates else 0
        return self.indicator.experience.state_dict() | {"facts": np.frombuffer(json.dumps(facts).encode(), np.uint8)}

    def load_state_dict(self, saved: dict[str, np.ndarray]) -> None:
        self.indicator.experience.load_state_dict(saved)
        facts = json.loads(saved["facts"].tobytes())
        self._rng.bit_generator.state = facts["rng"]
        self._decisions, self._lessons = facts["decisions"], facts["lessons"]
        self.updates, self.skipped, self.seconds = facts["updates"], facts["skipped"], facts["seconds"]
        if self.updates:
            self._lora = self.folder / self.updates[-1]["lora"]
            self._saved = self._number(self._lora)
            self.generator.update(self._lora)

    def _number(self, lora: Path | None) -> int:
        return int(lora.name.rpartition("-")[2]) if lora else 0

    def _remove_before(self, number: int) -> None:
        for folder in self.folder.glob("lora-*"):
            if folder.name[-4:].isdigit() and self._number(folder) < number:
                shutil.rmtree(folder, ignore_errors=True)

    def close(self) -> None:
        self.teacher.close()
        self.imagination.close()
