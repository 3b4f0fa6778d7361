"""Run: one arm of an experiment from one seed, from the first update to the last evaluation."""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from pixeltraj.errors import PixeltrajError
from pixeltraj.eval.agents.agent import Played, Pretrained, Seeing, no_data, symmetric
from pixeltraj.eval.agents.catalogue import make_agent
from pixeltraj.eval.arm import Adaptive, Arm
from pixeltraj.eval.results import Result
from pixeltraj.files import write_whole
from pixeltraj.replay_buffer import Batch, ReplayBuffer, joined_weights
from pixeltraj.sight import MakeSight
from pixeltraj.tasks import get_task

SCHEMA = 1
TRAINING_SEEDS = 2_000_000  # far from the demonstrations, which count from 0 up, and the base's, from 1,000,000
EVALUATION_SEEDS = 1_000_000_000
REPORT_EVERY = 20


@dataclass(frozen=True, kw_only=True)
class Course:
    """How long a run is, and how often it is looked at."""

    steps: int = 3000
    """Decisions the agent takes in the environment, evaluations not counted."""
    updates_per_step: int = 1
    """Updates of the agent for each decision."""
    offline_updates: int = 500
    """Updates on the offline data alone before the first decision."""
    eval_every: int = 500
    """Decisions between evaluations."""
    eval_episodes: int = 20
    """Episodes of an evaluation; the same ones every time and in every run."""
    checkpoint_every: int = 500
    """Decisions between checkpoints, which wait for the end of an episode."""

    def check(self) -> None:
        """Raise PixeltrajError where there would be no run."""
        for name in ("steps", "eval_every", "eval_episodes", "checkpoint_every"):
            if getattr(self, name) < 1:
                raise PixeltrajError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if self.updates_per_step < 0 or self.offline_updates < 0:
            raise PixeltrajError("updates_per_step and offline_updates must not be negative")


class Run:
    """One arm from one seed. Everything in it follows from the course, the arm and the seed."""

    def __init__(
        self, course: Course, task: str, arm: Arm, seed: int, path: Path, sight: MakeSight | None = None
    ) -> None:
        """path: of the checkpoint. sight: for an agent that learns from frames. Raises PixeltrajError where data,
        imagination or frames cannot be used."""
        self.course, self.arm, self.seed, self.path = course, arm, seed, path
        self.task = get_task(task)
        real, synthetic = arm.open(self.task)
        self.trajectories = [store.trajectory(episode) for store in real for episode in store.split()[0]]
        nothing = no_data(self.task.state_size, self.task.action_size)
        self.offline = Batch.of(self.trajectories) if self.trajectories else nothing
        self.rng = np.random.default_rng([seed, 0])
        rng = torch.Generator().manual_seed(seed)
        self.agent = make_agent(arm.agent, self.offline, rng, arm.config, self.task.returns)
        self.synthetic = [store.trajectory(i) for store in synthetic for i in range(len(store))]
        if isinstance(self.agent, Seeing):
            assert sight and real[0].renderer
            self.agent.see(sight(self.task, real[0].renderer), [*self.trajectories, *self.synthetic])
            self.offline = self.agent.transitions(self.trajectories)
        self.simulator, self.arena = (self.agent.acting(self.task.make()) for _ in range(2))
        imagine = arm.imagine(self.task) if arm.imagine else None
        self.adaptive = imagine if isinstance(imagine, Adaptive) else None
        if self.adaptive:
            self.adaptive.open(path.with_suffix(""), seed)
        self.buffer = ReplayBuffer(
            arm.buffer if arm.imagines else replace(arm.buffer, rho=0.0),
            self.agent.observation_size,
            self.agent.decision_size,
            np.random.default_rng([seed, 1]),
            self.agent.imagining(imagine) if imagine else None,
        )
        self.symmetric = arm.symmetric and arm.online and len(self.trajectories) > 0
        self.augment = arm.augment.of(self.offline) if arm.augment else None
        self.step, self.episode, self.seconds = 0, 0, 0.0
        self.curve: list[tuple[int, float]] = []

    def learn(self, report: Callable[[int], None]) -> Result:
        """Go on from the checkpoint, if there is one, to the end. `report` is told the decisions so far."""
        if self.path.exists():
            self.load()
        else:
            self._begin()
        began, before = time.perf_counter(), self.seconds
        saved = self.step
        if not self.curve:
            for _ in range(self.course.offline_updates if self.symmetric else 0):
                self._update(offline=True)
            self.curve.append((0, self.evaluate()))
        report(self.step)
        while self.step < self.course.steps:
            (self._episode if self.arm.online else self._lesson)(report)
            self.seconds = before + time.perf_counter() - began
            if self.step - saved >= self.course.checkpoint_every:
                report(self.step)
                self.save()
                saved = self.step
        self.seconds = before + time.perf_counter() - began
        if self.adaptive:
            self.adaptive.close()
        return Result(
            arm=self.arm.name,
            seed=self.seed,
            steps=self.step,
            curve=self.curve,
            seconds=self.seconds,
            seconds_imagining=self.buffer.seconds + (self.adaptive.seconds if self.adaptive else 0.0),
            own=len(self.buffer.own),
            imagined=len(self.buffer.imagined),
            requested=self.buffer.requested,
            received=self.buffer.received,
        )

    def _begin(self) -> None:
        """What comes before the first update."""
        if isinstance(self.agent, Pretrained):
            self.agent.pretrain(self.trajectories, self.rng)
            self.offline = self.agent.transitions(self.trajectories)
        if not self.symmetric and self.trajectories:
            self.buffer.own.append(*self.offline[:5])
        if self.synthetic:
            batch, weights = self.agent.transitions(self.synthetic, imagined=True), joined_weights(self.synthetic)
            if weights is not None and len(weights) != len(batch.states):  # a decision is several steps
                weights = None
            self.buffer.dream(batch, weights)

    def _episode(self, report: Callable[[int], None]) -> None:
        course, simulator = self.course, self.simulator
        state, _ = simulator.reset(seed=TRAINING_SEEDS * (1 + self.seed) + self.episode)
        self.episode += 1
        if self.adaptive:
            self.adaptive.begin(state, simulator.snapshot())
        over = False
        while not over and self.step < course.steps:
            action = self.agent.act(state, explore=True)
            next_state, reward, terminated, truncated, info = simulator.step(action)
            snapshot = simulator.snapshot() if self.buffer.imagine else None
            self.buffer.store(state, action, float(reward), next_state, terminated, snapshot)
            played = info.get("played")  # where several decisions were one of the agent's
            if self.adaptive and snapshot is not None:
                once = Played(action, float(reward), next_state, terminated, truncated, snapshot)
                for one in played or [once]:
                    self.adaptive.observe(one, self.agent)
            state, over = next_state, terminated or truncated
            decisions = len(played) if played else 1
            for _ in range(course.updates_per_step * decisions):
                self._update()
            self._advance(report, decisions)

    def _lesson(self, report: Callable[[int], None]) -> None:
        """Learning from data alone, until something is due."""
        while True:
            for _ in range(self.course.updates_per_step):
                self._update()
            self._advance(report)
            if self.step % min(self.course.eval_every, self.course.checkpoint_every) == 0:
                return
            if self.step == self.course.steps:
                return

    def _advance(self, report: Callable[[int], None], decisions: int = 1) -> None:
        before, self.step = self.step, min(self.step + decisions, self.course.steps)
        every = self.course.eval_every
        if self.step // every > before // every or self.step == self.course.steps:
            self.curve.append((self.step, self.evaluate()))
        if self.step // REPORT_EVERY > before // REPORT_EVERY:
            report(self.step)

    def _update(self, offline: bool = False) -> None:
        """offline: before the first decision, when what the agent itself has done is nothing yet."""
        size = self.arm.settings.batch
        if offline:
            self._learn(*symmetric(self._offline_batch(size), None))
            return
        replay = self.buffer.sample(size - size // 2 if self.symmetric else size)
        if self.symmetric:
            self._learn(*symmetric(self._offline_batch(size // 2), replay))
        else:
            self._learn(replay)
        if self.arm.buffer.alpha:
            errors = self.agent.td_error(replay)
            assert errors is not None  # Arm.check
            self.buffer.prioritise(replay, errors)

    def _learn(self, batch: Batch, cloned: np.ndarray | None = None) -> None:
        self.agent.update(self.augment(batch, self.rng) if self.augment else batch, cloned)

    def evaluate(self) -> float:
        """Success rate, or mean return on dense tasks, of the policy's mode."""
        returns = []
        for episode in range(self.course.eval_episodes):
            state, _ = self.arena.reset(seed=EVALUATION_SEEDS + episode)
            total, over = 0.0, False
            while not over:
                state, reward, terminated, truncated, _ = self.arena.step(self.agent.act(state, explore=False))
                total, over = total + float(reward), terminated or truncated
            returns.append(total)
        return float(np.mean(returns))

    def _offline_batch(self, size: int) -> Batch:
        rows = self.rng.integers(len(self.offline.states), size=size)
        return self.offline.at(rows)

    # Checkpoints: one file at the end of an episode, so that no half-run episode has to be restored

    def save(self) -> None:
        arrays = {f"buffer.{k}": torch.tensor(v) for k, v in self.buffer.state_dict().items()}
        if self.adaptive:
            arrays |= {f"adaptive.{k}": torch.tensor(v) for k, v in self.adaptive.state_dict().items()}
        facts = {
            "step": self.step,
            "episode": self.episode,
            "seconds": self.seconds,
            "curve": self.curve,
            "rng": self.rng.bit_generator.state,
        }
        metadata = {"schema": str(SCHEMA), "facts": json.dumps(facts)}
        write_whole(self.path, lambda beside: save_file(arrays | self.agent.tensors(), beside, metadata))

    def load(self) -> None:
        with safe_open(self.path, "pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118, not a dict
            metadata = file.metadata()
        if metadata["schema"] != str(SCHEMA):
            raise PixeltrajError(
                f"{self.path} has schema {metadata['schema']}, this pixeltraj writes {SCHEMA}; remove it"
            )
        facts = json.loads(metadata["facts"])
        parts: dict[str, dict[str, Any]] = {"buffer": {}, "adaptive": {}, "": {}}
        for key, value in tensors.items():
            part = key.split(".")[0] if key.split(".")[0] in parts else ""
            parts[part][key.removeprefix(f"{part}.")] = value.numpy() if part else value
        self.buffer.load_state_dict(parts["buffer"])
        if self.adaptive:
            self.adaptive.load_state_dict(parts["adaptive"])
        self.agent.load_tensors(parts[""])
        if isinstance(self.agent, Pretrained):
            self.offline = self.agent.transitions(self.trajectories)
        self.step, self.episode, self.seconds = facts["step"], facts["episode"], facts["seconds"]
        self.curve = [(step, score) for step, score in facts["curve"]]
        self.rng.bit_generator.state = facts["rng"]
