"""`pixeltraj demo`: every stage on one task, small, and a report of what came out.

OUT/  demos/      store: scripted demonstrations, rendered        report.json  report.html
      lora/       fine-tuned generator                            imagined.png  imagined.gif  imagined.mp4
      decoder/    decoder                                         seconds.json  what each stage took
      imagined/   store: imagined trajectories                    eval/         the agent's runs
"""

import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from pixeltraj.base import resolve
from pixeltraj.cli import imagine as imagine_command
from pixeltraj.cli import report as report_command
from pixeltraj.cli.imagination import ImagineConfig
from pixeltraj.cli.report_figures import check
from pixeltraj.cli.sight import draw_alike
from pixeltraj.decode.train import TrainConfig, train
from pixeltraj.errors import PixeltrajError
from pixeltraj.eval.agents.rlpd import RLPDConfig
from pixeltraj.eval.experiment import EvalConfig
from pixeltraj.eval.experiment import run as run_experiment
from pixeltraj.files import read_json, write_json
from pixeltraj.picture import draw
from pixeltraj.render.collect import CollectConfig, collect
from pixeltraj.render.render import RenderConfig, render
from pixeltraj.replay_buffer import ReplayBufferConfig
from pixeltraj.store import Store
from pixeltraj.tasks import get_task


@dataclass(frozen=True)
class Config:
    task: str = "push-v3"
    """A task with a scripted policy."""
    out: Path = Path("runs/demo")
    """Folder of everything; an interrupted demo is taken up there."""
    base: str | None = None
    """A diffusers folder, single file or hub id; the embedded base if not given."""
    episodes: int = 25
    """Demonstrations; every fifth is held out."""
    finetune_steps: int = 400
    """LoRA steps."""
    decode_steps: int = 1500
    """Steps of the decoder's keypoint head; its other heads get as many."""
    imagined: int = 64
    """Trajectories to imagine and audit."""
    agent_steps: int = 2500
    """Decisions of the agent in each run."""
    seeds: int = 3
    """Runs with and runs without imagination."""
    seed: int = 0
    """Of everything that is trained and drawn."""


def run(config: Config) -> None:
    torch.set_num_threads(1)  # small models: a second thread gains little, and loses much on a busy machine
    get_task(config.task)
    resolve(config.base)  # no base, no demo: said before anything is collected
    out, demos = config.out, config.out / "demos"
    settings = {key: str(value) for key, value in asdict(config).items() if key != "out"}
    if (out / "config.json").exists():
        if read_json(out / "config.json", "demo") != settings:
            raise PixeltrajError(f"{out} holds a demo with other settings; give another --out or remove it")
    else:
        write_json(out / "config.json", settings)
    clock = Clock(out / "seconds.json")
    clock.time("collect", lambda: collect(CollectConfig(config.task, demos, episodes=config.episodes)))
    clock.time("render", lambda: render(RenderConfig(demos)))
    clock.time("fine-tune", lambda: launch_finetune(config))
    training = TrainConfig(
        demos,
        out / "decoder",
        config.base,
        out / "lora",
        steps=config.decode_steps,
        head_steps=config.decode_steps,
        seed=config.seed,
    )
    clock.time("decoder", lambda: train(training, draw_alike))
    parts = ImagineConfig(decoder=out / "decoder", lora=out / "lora", base=config.base)
    imagining = imagine_command.Config(
        **vars(parts), task=config.task, source=demos, out=out / "imagined", n=config.imagined, seed=config.seed
    )
    clock.time("imagine", lambda: time_imagination(imagining))
    clock.time("audit", lambda: write_json(out / "audit.json", run_audit(config)))
    experiment = EvalConfig(
        task=config.task,
        store=demos,
        out=out / "eval",
        seeds=config.seeds,
        steps=config.agent_steps,
        agent=RLPDConfig(bc_weight=1.0),
        buffer=ReplayBufferConfig(expected_length=expected_length(out / "imagined")),
    )
    clock.time("agent", lambda: run_experiment(experiment.experiment(parts)))
    clock.time("report", lambda: report(config))
    print(f"\n{(out / 'eval' / 'table.md').read_text()}\n{out / 'report.html'}")


class Clock:
    """Does each stage once, and keeps what it took; a stage of an earlier run of the same demo is not redone."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.seconds: dict[str, float] = read_json(path, "timing") if path.exists() else {}

    def time(self, stage: str, work: Callable[[], object]) -> None:
        if stage in self.seconds and stage != "report":
            return
        print(f"== {stage}", flush=True)
        began = time.perf_counter()
        work()
        self.seconds[stage] = time.perf_counter() - began
        write_json(self.path, self.seconds)


def launch_finetune(config: Config) -> None:
    """Fine-tuning as a user starts it: accelerate launch -m pixeltraj.finetune."""
    command = [
        sys.executable,
        "-m",
        "accelerate.commands.launch",
        "--quiet",
        "--num_processes",
        "1",
        "--num_machines",
        "1",
    ]
    command += ["--num_cpu_threads_per_process", "1"]
    command += ["--mixed_precision", "no", "--dynamo_backend", "no"]
    command += [] if torch.cuda.is_available() else ["--cpu"]
    command += ["-m", "pixeltraj.finetune", "--store", str(config.out / "demos"), "--out", str(config.out / "lora")]
    command += ["--steps", str(config.finetune_steps), "--seed", str(config.seed)]
    command += ["--base", config.base] if config.base else []
    if subprocess.run(command, check=False).returncode:
        raise PixeltrajError(f"fine-tuning failed; run it alone to see why: {' '.join(command)}")


def time_imagination(config: imagine_command.Config) -> None:
    _, speed = imagine_command.imagine(config)
    write_json(config.out.with_suffix(".json"), {"trajectories_per_second": speed})


def expected_length(imagined: Path) -> float:
    """L of Algorithm 1: the mean length in a preliminary run, here the imagined store."""
    return float(np.mean([episode["transitions"] for episode in Store.open(imagined).episodes]))


def run_audit(config: Config) -> dict[str, object]:
    return check(Store.open(config.out / "demos"), Store.open(config.out / "imagined"), config.seed)


def report(config: Config) -> None:
    """The pictures, and the page that `pixeltraj report` makes of all this."""
    out = config.out
    demos, imagined = Store.open(out / "demos"), Store.open(out / "imagined")
    pairs = [(t, imagine_command.continuation(demos, t, 5)) for t in map(imagined.trajectory, range(4))]
    draw([t for t, _ in pairs], [t for _, t in pairs], demos.task, out / "imagined.png")
    report_command.report(report_command.Config(out, base=config.base, seed=config.seed))
