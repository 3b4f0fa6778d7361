"""The experiment: one agent with and without imagination, on the same offline data, from the same seeds.

OUT/  config.json                     what shapes the outcome; a rerun must agree with it
      runs/ARM-SEED.safetensors       checkpoint of an unfinished run
      runs/ARM-SEED.json              a finished run
      results.json  table.md  curves.png
"""

import json
import multiprocessing
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, is_dataclass, replace
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
import tyro
from safetensors import safe_open
from safetensors.torch import save_file
from tqdm import tqdm

from pixeltraj.errors import PixeltrajError
from pixeltraj.eval.agents.rlpd import RLPD, RLPDConfig
from pixeltraj.eval.results import Result, difference, plot, summary, table, verdict
from pixeltraj.files import file_hash, provenance, read_json, write_json, write_whole
from pixeltraj.replay_buffer import Batch, Imagine, ReplayBuffer, ReplayBufferConfig
from pixeltraj.store import Store
from pixeltraj.task import Task
from pixeltraj.tasks import get_task

Arm = Literal["without", "with"]
MakeImagine = Callable[[Task], Imagine]
"""Called once in each run's process, so it must be a function at the top of a module or a dataclass that is
called; a dataclass' fields are recorded with the results."""

SCHEMA = 1
TRAINING_SEEDS = 2_000_000  # far from the demonstrations, which count from 0 up, and the base's, from 1,000,000
EVALUATION_SEEDS = 1_000_000_000
REPORT_EVERY = 20


@dataclass(frozen=True)
class EvalConfig:
    task: Annotated[str, tyro.conf.Positional]
    """Name of the task."""
    store: Path
    """Demonstrations of the task: the offline data of both arms. Held-out episodes are left out."""
    out: Path
    """Folder of the results; an interrupted experiment is taken up there."""
    arms: tuple[Arm, ...] = ("without", "with")
    """Which arms to run."""
    seeds: int = 3
    """Runs in each arm, from the seeds 0, 1, ..."""
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
    processes: int = 2
    """Runs at the same time, one thread each."""
    agent: RLPDConfig = field(default_factory=RLPDConfig)
    """The agent."""
    buffer: ReplayBufferConfig = field(default_factory=ReplayBufferConfig)
    """The replay buffer of the arm with imagination; the other one's has rho = 0."""

    def check(self) -> None:
        """Raise PixeltrajError where the experiment cannot be run."""
        for name in ("seeds", "steps", "eval_every", "eval_episodes", "checkpoint_every", "processes"):
            if getattr(self, name) < 1:
                raise PixeltrajError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if self.updates_per_step < 0 or self.offline_updates < 0:
            raise PixeltrajError("updates_per_step and offline_updates must not be negative")
        if self.agent.batch < 2:
            raise PixeltrajError(f"batch is {self.agent.batch}; half of it is offline data, so it must be at least 2")
        if not self.arms or len(set(self.arms)) < len(self.arms) or not {*self.arms} <= {"without", "with"}:
            raise PixeltrajError(f"arms are {self.arms}; give 'without', 'with' or both, each once")
        self.buffer.check()
        if "with" in self.arms and self.buffer.rho == 0:
            raise PixeltrajError("rho is 0 in the arm with imagination; give it a rho above 0")


def run(config: EvalConfig, make_imagine: MakeImagine | None = None) -> dict[str, Any]:
    """Do the runs that are not finished yet, write the results and return them (as in results.json).

    Raises PixeltrajError where `out` holds another experiment, or a run fails.
    """
    config.check()
    if "with" in config.arms and make_imagine is None:
        raise PixeltrajError("the arm 'with' needs an imagination; give one, or only the arm 'without'")
    task = get_task(config.task)
    demonstrations(config)  # an unusable store is reported here, once
    settings = _settings(config, make_imagine)
    if (config.out / "config.json").exists():
        before = read_json(config.out / "config.json", "experiment")
        if changed := [key for key in settings if before.get(key) != settings[key]]:
            raise PixeltrajError(
                f"{config.out} holds an experiment with another {' and '.join(changed)}; give another --out"
            )
    else:
        write_json(config.out / "config.json", settings)
    # Seed by seed, so that an interrupted experiment has pairs to compare.
    todo = [(arm, seed) for seed in range(config.seeds) for arm in config.arms]
    _run_all(config, make_imagine, [key for key in todo if not _result_path(config, *key).exists()])
    results = [
        _load_result(_result_path(config, arm, seed))
        for arm, seed in sorted(todo, key=lambda k: config.arms.index(k[0]))
    ]
    measure = "success rate" if task.reward == "sparse" else "return"
    report = {
        "schema": SCHEMA,
        "provenance": provenance(**settings),
        "measure": measure,
        "runs": [asdict(result) for result in results],
        "summary": summary(results),
        "difference": difference(results),
        "verdict": verdict(results),
    }
    write_json(config.out / "results.json", report)
    text = f"{table(results, measure)}\n\n{report['verdict']}\n"
    write_whole(config.out / "table.md", lambda beside: beside.write_text(text))
    plot(results, config.task, measure, config.out / "curves.png")
    return report


def demonstrations(config: EvalConfig) -> Batch:
    """The offline data: all transitions of the store's training episodes."""
    store = Store.open(config.store, get_task(config.task))
    training, _ = store.split()
    return Batch.of(store.trajectory(episode) for episode in training)


class Run:
    """One arm from one seed. Everything in it follows from the configuration, the arm and the seed."""

    def __init__(self, config: EvalConfig, arm: Arm, seed: int, make_imagine: MakeImagine | None) -> None:
        self.config, self.arm, self.seed = config, arm, seed
        self.task = get_task(config.task)
        self.offline = demonstrations(config)
        self.simulator, self.arena = self.task.make(), self.task.make()
        value_range = (0.0, 1.0) if self.task.reward == "sparse" else None
        self.rng = np.random.default_rng([seed, 0])
        self.agent = RLPD(config.agent, self.offline, torch.Generator().manual_seed(seed), value_range)
        imagine = make_imagine(self.task) if arm == "with" and make_imagine else None
        self.buffer = ReplayBuffer(
            config.buffer if arm == "with" else replace(config.buffer, rho=0.0),
            self.task.state_size,
            self.task.action_size,
            np.random.default_rng([seed, 1]),
            imagine,
        )
        self.step, self.episode, self.seconds = 0, 0, 0.0
        self.curve: list[tuple[int, float]] = []
        self.path = config.out / "runs" / f"{arm}-{seed}.safetensors"

    def learn(self, report: Callable[[int], None]) -> Result:
        """Go on from the checkpoint, if there is one, to the end. `report` is told the decisions so far."""
        if self.path.exists():
            self.load()
        began, before = time.perf_counter(), self.seconds
        saved = self.step
        if not self.curve:
            for _ in range(self.config.offline_updates):
                self.agent.update(self._offline_batch(self.config.agent.batch), None)
            self.curve.append((0, self.evaluate()))
        report(self.step)
        while self.step < self.config.steps:
            self._episode(report)
            self.seconds = before + time.perf_counter() - began
            if self.step - saved >= self.config.checkpoint_every:
                report(self.step)
                self.save()
                saved = self.step
        return Result(
            arm=self.arm,
            seed=self.seed,
            steps=self.step,
            curve=self.curve,
            seconds=self.seconds,
            seconds_imagining=self.buffer.seconds,
            own=len(self.buffer.own),
            imagined=len(self.buffer.imagined),
            requested=self.buffer.requested,
            received=self.buffer.received,
        )

    def _episode(self, report: Callable[[int], None]) -> None:
        config, simulator = self.config, self.simulator
        state, _ = simulator.reset(seed=TRAINING_SEEDS * (1 + self.seed) + self.episode)
        self.episode += 1
        over = False
        while not over and self.step < config.steps:
            action = self.agent.act(state, explore=True)
            next_state, reward, terminated, truncated, _ = simulator.step(action)
            snapshot = simulator.snapshot() if self.buffer.imagine else None
            self.buffer.store(state, action, float(reward), next_state, terminated, snapshot)
            state, over = next_state, terminated or truncated
            for _ in range(config.updates_per_step):
                half = config.agent.batch // 2
                self.agent.update(self._offline_batch(half), self.buffer.sample(config.agent.batch - half))
            self.step += 1
            if self.step % config.eval_every == 0 or self.step == config.steps:
                self.curve.append((self.step, self.evaluate()))
            if self.step % REPORT_EVERY == 0:
                report(self.step)

    def evaluate(self) -> float:
        """Success rate, or mean return on dense tasks, of the policy's mode."""
        returns = []
        for episode in range(self.config.eval_episodes):
            state, _ = self.arena.reset(seed=EVALUATION_SEEDS + episode)
            total, over = 0.0, False
            while not over:
                state, reward, terminated, truncated, _ = self.arena.step(self.agent.act(state, explore=False))
                total, over = total + float(reward), terminated or truncated
            returns.append(total)
        return float(np.mean(returns))

    def _offline_batch(self, size: int) -> Batch:
        rows = self.rng.integers(len(self.offline.states), size=size)
        return Batch(*(column[rows] for column in self.offline))

    # Checkpoints: one file at the end of an episode, so that no half-run episode has to be restored

    def save(self) -> None:
        arrays = {f"buffer.{k}": torch.tensor(v) for k, v in self.buffer.state_dict().items()}
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
        prefix = "buffer."
        arrays = {k.removeprefix(prefix): v.numpy() for k, v in tensors.items() if k.startswith(prefix)}
        self.buffer.load_state_dict(arrays)
        self.agent.load_tensors({k: v for k, v in tensors.items() if not k.startswith(prefix)})
        self.step, self.episode, self.seconds = facts["step"], facts["episode"], facts["seconds"]
        self.curve = [(step, score) for step, score in facts["curve"]]
        self.rng.bit_generator.state = facts["rng"]


def _run_all(config: EvalConfig, make_imagine: MakeImagine | None, todo: list[tuple[Arm, int]]) -> None:
    """Each run in a process of its own, `processes` at a time."""
    context = multiprocessing.get_context("spawn")  # forked children inherit locked GL and torch threads
    waiting = list(todo)
    running: dict[Any, tuple[Any, Arm, int]] = {}  # by the end of the pipe that a run reports through
    steps: dict[tuple[Arm, int], int] = {}
    with tqdm(total=len(todo) * config.steps, desc=f"eval {config.task}", unit="decision") as bar:
        try:
            while waiting or running:
                while waiting and len(running) < config.processes:
                    arm, seed = waiting.pop(0)
                    receiver, sender = context.Pipe(duplex=False)
                    process = context.Process(target=_work, args=(config, arm, seed, make_imagine, sender), daemon=True)
                    process.start()
                    sender.close()
                    running[receiver] = (process, arm, seed)
                ready: Any
                for ready in wait(list(running)):
                    process, arm, seed = running[ready]
                    try:
                        message = ready.recv()
                    except EOFError:  # the process has ended
                        process.join()
                        del running[ready]
                        if not _result_path(config, arm, seed).exists():
                            raise PixeltrajError(
                                f"the run {arm}-{seed} died (exit code {process.exitcode}); the same command goes on"
                            ) from None
                        continue
                    if isinstance(message, str):
                        raise PixeltrajError(message)
                    bar.update(message - steps.get((arm, seed), 0))
                    steps[arm, seed] = message
        finally:
            for process, _, _ in running.values():
                process.terminate()
                process.join()


def _work(config: EvalConfig, arm: Arm, seed: int, make_imagine: MakeImagine | None, sender: Connection) -> None:
    """A run's process. Sends the decisions so far, or one line on what went wrong."""
    torch.set_num_threads(1)
    try:
        run = Run(config, arm, seed, make_imagine)
        result = run.learn(sender.send)
        sender.send(config.steps)
        write_json(_result_path(config, arm, seed), asdict(result))
        run.path.unlink(missing_ok=True)
    except PixeltrajError as error:
        sender.send(str(error))
    except BrokenPipeError:  # whoever started the experiment is gone; the next one takes over
        return


def _result_path(config: EvalConfig, arm: str, seed: int) -> Path:
    return config.out / "runs" / f"{arm}-{seed}.json"


def _load_result(path: Path) -> Result:
    fields = read_json(path, "finished run")
    del fields["score"]
    return Result(**{**fields, "curve": [(step, score) for step, score in fields["curve"]]})


def _settings(config: EvalConfig, make_imagine: MakeImagine | None) -> dict[str, Any]:
    """What shapes the outcome, as JSON gives it back."""
    settings = asdict(config)
    del settings["out"], settings["processes"], settings["checkpoint_every"], settings["arms"], settings["seeds"]
    settings["store_hash"] = file_hash(config.store / "zarr.json")
    if make_imagine is not None:
        instance = is_dataclass(make_imagine) and not isinstance(make_imagine, type)
        kind: Any = type(make_imagine) if instance else make_imagine
        fields: dict[str, Any] = asdict(make_imagine) if instance else {}  # type: ignore[call-overload]
        settings["imagination"] = {"kind": f"{kind.__module__}.{kind.__qualname__}", **fields}
    return json.loads(json.dumps(settings, default=str))
