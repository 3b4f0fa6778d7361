"""Experiment: arms from the same seeds, each run in a process of its own, and what they amount to.

OUT/  config.json                     what shapes the outcome; a rerun must agree with it, other arms may be added
      runs/ARM-SEED.safetensors       checkpoint of an unfinished run
      runs/ARM-SEED.json              a finished run
      results.json  table.md  curves.png
"""

import json
import multiprocessing
from dataclasses import asdict, dataclass, field, fields
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import tyro
from tqdm import tqdm

from pixeltraj.errors import PixeltrajError
from pixeltraj.eval.agents.catalogue import sees
from pixeltraj.eval.agents.rlpd import RLPDConfig
from pixeltraj.eval.arm import Arm, MakeImagine, described
from pixeltraj.eval.results import Result, difference, plot, summary, table, verdict
from pixeltraj.eval.run import Course, Run
from pixeltraj.files import provenance, read_json, write_json, write_whole
from pixeltraj.replay_buffer import ReplayBufferConfig
from pixeltraj.settings import alike
from pixeltraj.sight import MakeSight
from pixeltraj.tasks import get_task

SCHEMA = 2


@dataclass(frozen=True, kw_only=True)
class Experiment:
    task: str
    """Name of the task."""
    arms: tuple[Arm, ...]
    """What is compared; the first one is what the others are held against."""
    out: Path
    """Folder of the results; an interrupted experiment is taken up there."""
    course: Course = field(default_factory=Course)
    """How long each run is."""
    seeds: int = 3
    """Runs of each arm, from the seeds 0, 1, ..."""
    processes: int = 2
    """Runs at the same time, one thread each."""
    sight: MakeSight | None = None
    """What draws for agents that learn from frames: `pixeltraj.cli.sight.draw_alike`."""

    def check(self) -> None:
        """Raise PixeltrajError where the experiment cannot be run: before anything is written."""
        for name in ("seeds", "processes"):
            if getattr(self, name) < 1:
                raise PixeltrajError(f"{name} is {getattr(self, name)}; it must be at least 1")
        names = [arm.name for arm in self.arms]
        if not names or len(set(names)) < len(names):
            raise PixeltrajError(f"arms are {names}; give at least one, each with a name of its own")
        self.course.check()
        task = get_task(self.task)
        for arm in self.arms:
            arm.check()
            arm.open(task)
            if sees(arm.agent) and self.sight is None:
                raise PixeltrajError(
                    f"arm {arm.name}: {arm.agent} acts on frames, and nothing draws them; give the experiment a sight"
                )

    def settings(self) -> dict[str, Any]:
        """What shapes the outcome, as JSON gives it back."""
        arms = {arm.name: described(arm) for arm in self.arms}
        shaping = {part.name: getattr(self.course, part.name) for part in fields(Course)}
        del shaping["checkpoint_every"]
        return json.loads(json.dumps({"task": self.task, **shaping, "arms": arms}))


Side = Literal["without", "with"]


@dataclass(frozen=True, kw_only=True)
class EvalConfig(Course):
    """The same agent with and without imagination, on the same offline data."""

    task: Annotated[str, tyro.conf.Positional]
    """Name of the task."""
    store: Path
    """Demonstrations of the task: the offline data of both arms. Held-out episodes are left out."""
    out: Path
    """Folder of the results; an interrupted experiment is taken up there."""
    arms: tuple[Side, ...] = ("without", "with")
    """Which arms to run."""
    seeds: int = 3
    """Runs in each arm, from the seeds 0, 1, ..."""
    processes: int = 2
    """Runs at the same time, one thread each."""
    agent: RLPDConfig = field(default_factory=RLPDConfig)
    """The agent."""
    buffer: ReplayBufferConfig = field(default_factory=ReplayBufferConfig)
    """The replay buffer of the arm with imagination; the other one's has rho = 0."""

    def experiment(self, imagine: MakeImagine | None = None) -> Experiment:
        """Raises PixeltrajError where the arm with imagination has none."""
        if "with" in self.arms and imagine is None:
            raise PixeltrajError("the arm 'with' needs an imagination; give one, or only the arm 'without'")
        arms = tuple(
            Arm(
                side,
                config=self.agent,
                stores=(self.store,),
                imagine=imagine if side == "with" else None,
                buffer=self.buffer,
            )
            for side in self.arms
        )
        course = Course(**{part.name: getattr(self, part.name) for part in fields(Course)})
        return Experiment(
            task=self.task, arms=arms, out=self.out, course=course, seeds=self.seeds, processes=self.processes
        )


def run(experiment: Experiment) -> dict[str, Any]:
    """Do the runs that are not finished yet, write the results and return them (as in results.json).

    Raises PixeltrajError where `out` holds another experiment, or a run fails.
    """
    experiment.check()
    out, settings = experiment.out, experiment.settings()
    if (out / "config.json").exists():
        before = read_json(out / "config.json", "experiment")
        arms = before.get("arms", {})
        changed = [key for key in settings if key != "arms" and before.get(key) != settings[key]]
        changed += [f"arm {name}" for name, arm in settings["arms"].items() if not alike(arms.get(name, arm), arm)]
        if changed:
            raise PixeltrajError(f"{out} holds an experiment with another {' and '.join(changed)}; give another --out")
        settings["arms"] = arms | settings["arms"]
    write_json(out / "config.json", settings)
    # Seed by seed, so that an interrupted experiment has pairs to compare.
    todo = [(arm, seed) for seed in range(experiment.seeds) for arm in experiment.arms]
    _run_all(experiment, [(arm, seed) for arm, seed in todo if not _result_path(out, arm.name, seed).exists()])
    results = [
        _load_result(_result_path(out, arm.name, seed)) for arm in experiment.arms for seed in range(experiment.seeds)
    ]
    measure = "success rate" if get_task(experiment.task).reward == "sparse" else "return"
    report = {
        "schema": SCHEMA,
        "provenance": provenance(**settings),
        "measure": measure,
        "runs": [asdict(result) for result in results],
        "summary": summary(results),
        "difference": difference(results),
        "verdict": verdict(results),
    }
    write_json(out / "results.json", report)
    text = f"{table(results, measure)}\n\n{report['verdict']}\n"
    write_whole(out / "table.md", lambda beside: beside.write_text(text))
    plot(results, experiment.task, measure, out / "curves.png")
    return report


def _run_all(experiment: Experiment, todo: list[tuple[Arm, int]]) -> None:
    """Each run in a process of its own, `processes` at a time."""
    context = multiprocessing.get_context("spawn")  # forked children inherit locked GL and torch threads
    waiting = list(todo)
    running: dict[Any, tuple[Any, Arm, int]] = {}  # by the end of the pipe that a run reports through
    steps: dict[tuple[str, int], int] = {}
    length = experiment.course.steps
    with tqdm(total=len(todo) * length, desc=f"eval {experiment.task}", unit="step") as bar:
        try:
            while waiting or running:
                while waiting and len(running) < experiment.processes:
                    arm, seed = waiting.pop(0)
                    receiver, sender = context.Pipe(duplex=False)
                    process = context.Process(target=_work, args=(experiment, arm, seed, sender), daemon=True)
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
                        if not _result_path(experiment.out, arm.name, seed).exists():
                            raise PixeltrajError(
                                f"the run {arm.name}-{seed} died "
                                f"(exit code {process.exitcode}); the same command goes on"
                            ) from None
                        continue
                    if isinstance(message, str):
                        raise PixeltrajError(message)
                    bar.update(message - steps.get((arm.name, seed), 0))
                    steps[arm.name, seed] = message
        finally:
            for process, _, _ in running.values():
                process.terminate()
                process.join()


def _work(experiment: Experiment, arm: Arm, seed: int, sender: Connection) -> None:
    """A run's process. Sends the decisions so far, or one line on what went wrong."""
    torch.set_num_threads(1)
    path = _result_path(experiment.out, arm.name, seed)
    try:
        one = Run(experiment.course, experiment.task, arm, seed, path.with_suffix(".safetensors"), experiment.sight)
        result = one.learn(sender.send)
        sender.send(experiment.course.steps)
        write_json(path, asdict(result))
        one.path.unlink(missing_ok=True)
    except PixeltrajError as error:
        sender.send(str(error))
    except BrokenPipeError:  # whoever started the experiment is gone; the next one takes over
        return


def _result_path(out: Path, arm: str, seed: int) -> Path:
    return out / "runs" / f"{arm}-{seed}.json"


def _load_result(path: Path) -> Result:
    known = read_json(path, "finished run")
    del known["score"]
    return Result(**{**known, "curve": [(step, score) for step, score in known["curve"]]})
