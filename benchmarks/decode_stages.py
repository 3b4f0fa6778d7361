"""The stages of the decoder's benchmark. `python -m benchmarks.decode_stages OUT NAME` does one."""

import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import load_file

from benchmarks.decode_config import Benchmark
from benchmarks.imagine_dynamics import really, starts
from benchmarks.imagine_tuning import collected
from benchmarks.jobs import Stage, run_stage
from pixeltraj.base import Base
from pixeltraj.cli import guarded
from pixeltraj.cli.imagination import ImagineConfig
from pixeltraj.cli.imagine import Config as ImagineStoreConfig
from pixeltraj.cli.imagine import imagine
from pixeltraj.cli.sight import draw_alike
from pixeltraj.cli.synther import Config as SyntherStoreConfig
from pixeltraj.cli.synther import synthesize
from pixeltraj.decode.audit_store import AuditConfig, audit_store
from pixeltraj.decode.decoder import CONFIG, Decoder
from pixeltraj.decode.features import Windows
from pixeltraj.decode.measurement import calibration, measure
from pixeltraj.decode.own_reward import OwnRewardDecoder
from pixeltraj.decode.train import TrainConfig, train
from pixeltraj.decode.yardstick import span_of
from pixeltraj.files import provenance
from pixeltraj.finetune.train import FinetuneConfig, finetune
from pixeltraj.generator import Generator
from pixeltraj.latents import store_latents
from pixeltraj.store import Store
from pixeltraj.tasks import get_task

K = 5
TIMED = 5
"""Repeats of what is timed."""


def stages(config: Benchmark) -> list[Stage[Benchmark]]:
    listed: list[Stage[Benchmark]] = []
    for task in config.tasks:
        listed.append(Stage(f"store-{task}", partial(collected, task=task)))
        listed.append(Stage(f"decoder-{task}", partial(decoding, task=task), (f"store-{task}",)))
        if get_task(task).outcome:
            listed.append(Stage(f"rewards-{task}", partial(rewarded, task=task), (f"decoder-{task}",)))
        listed.append(Stage(f"synther-{task}", partial(sampled, task=task), (f"store-{task}",)))
        after = (f"decoder-{task}", f"synther-{task}")
        listed.append(Stage(f"audit-{task}", partial(audited, task=task), after))
    return listed


def timed(config: Benchmark) -> list[Stage[Benchmark]]:
    """What must not run beside anything else."""
    return [Stage("speed", partial(speed, task=config.tasks[0]))]


def decoding(config: Benchmark, task: str) -> dict[str, Any]:
    """A LoRA and its decoder -> the decoder's errors on real frames of held-out episodes."""
    effort, store, lora = config.effort, config.store(task), config.lora(task)
    finetune(FinetuneConfig(store, lora, config.base, (K,), steps=effort.lora_steps, seed=effort.seed))
    out = config.decoder(task)
    if not (out / CONFIG).exists():
        steps = {"steps": effort.keypoint_steps, "head_steps": effort.head_steps, "windows": effort.windows}
        train(TrainConfig(store, out, config.base, lora, (K,), **steps, copies=2, seed=effort.seed), draw_alike)
    return {"metrics": reader(config, task).about["metrics"]}


def reader(config: Benchmark, task: str) -> Decoder:
    generator = Generator.load(Base.load(config.base), config.lora(task), K)
    return Decoder.load(config.decoder(task), generator)


def rewarded(config: Benchmark, task: str) -> dict[str, Any]:
    """The learned reward and the task's own, of transitions of held-out episodes as they are read."""
    store, learned = Store.open(config.store(task)), reader(config, task)
    own = OwnRewardDecoder.load(config.decoder(task), learned.generator)
    windows = Windows.read(store, store.split()[1], learned.generator)
    measured = {"learned": learned.about["metrics"], "own": measure(own, windows, span_of(store))}
    return {name: {key: one[key] for key in ("windows", "reward", "termination")} for name, one in measured.items()}


def sampled(config: Benchmark, task: str) -> dict[str, Any]:
    steps, seed = config.effort.synther_steps, config.effort.seed
    source, out = config.store(task), config.out / "synther" / task
    store = synthesize(
        SyntherStoreConfig(store=source, out=out, n=4 * config.effort.imagined, steps=steps, lr=1e-3, seed=seed)
    )
    return {"transitions": len(store)}


def audited(config: Benchmark, task: str) -> dict[str, Any]:
    """What was imagined, what was read from real frames by the same decoder, and SynthER's, against the simulator."""
    effort, source = config.effort, config.store(task)
    parts = ImagineConfig(decoder=config.decoder(task), lora=config.lora(task), base=config.base, actions="read")
    asked = {"task": task, "source": source, "out": config.out / "imagined" / task, "n": effort.imagined}
    imagine(ImagineStoreConfig(**vars(parts), **asked, seed=effort.seed))
    read = config.out / "read" / task
    if not read.exists():
        write_read(config, Store.open(source), read)
    found = {}
    for name, store, synther in (
        ("imagined", config.out / "imagined" / task, config.out / "synther" / task),
        ("read", read, None),
    ):
        out = config.out / "audits" / f"{task}-{name}"
        found[name] = audit_store(
            AuditConfig(store=store, real=source, out=out, synther=synther, n=effort.imagined, seed=effort.seed)
        )
    return found | {"uncertainty": foreseen(config, task)}


def foreseen(config: Benchmark, task: str) -> float:
    """Spearman's rank correlation between the one-step error of each imagined transition and what the decoder stated of
    its two frames beforehand."""
    store = Store.open(config.out / "imagined" / task)
    rows = load_file(config.out / "audits" / f"{task}-imagined" / "transitions.safetensors")
    told = [
        np.square(store.episodes[e]["uncertainty_mm"])[t : t + 2].sum() for e, t in zip(rows["episode"], rows["step"])
    ]
    sound = np.isfinite(rows["error_pct"])
    return calibration(np.array(told)[sound], rows["error_pct"][sound])["rank_correlation"]


def write_read(config: Benchmark, real: Store, path: Path) -> None:
    """A store of what the decoder reads from real frames of held-out windows."""
    decoder = reader(config, real.task.name)
    rows = starts(real, K, config.effort.imagined, config.effort.seed)
    store = Store.create(path, real.task, provenance(imagined=True, read_from=str(real.path)), {})
    trajectories = really(real, decoder, rows)
    for trajectory, row in zip(trajectories, rows):
        episode, step = real.place(int(row[0]))
        trajectory.origin = {"imagined": True, "episode": episode, "step": step}
    store.append(trajectories)


def speed(config: Benchmark, task: str) -> dict[str, Any]:
    """Frames decoded in a second of one core, real ones and those imagined just now, and the share of the time of
    imagining that decoding takes."""
    store, decoder = Store.open(config.store(task)), reader(config, task)
    generator, batch = decoder.generator, 32
    torch.set_num_threads(1)
    rows = starts(store, K, batch, config.effort.seed)
    first = store_latents(store, generator.base)[torch.from_numpy(rows[:, 0])].float()
    states, prompts = store.windows("states", rows[:, :1])[:, 0], [store.task.prompt] * len(rows)
    seconds = dict.fromkeys(("sample", "features", "heads", "features of their own"), 0.0)
    for repeat in range(TIMED + 1):  # the first time, memory is laid out
        marks = [time.process_time()]
        rng, maps = torch.Generator().manual_seed(repeat), list[torch.Tensor]()
        latents = generator.sample(first, prompts, rng, states=torch.from_numpy(states), maps=maps)
        marks.append(time.process_time())
        features = decoder.look(latents, first, prompts, maps)
        marks.append(time.process_time())
        decoder.read(features, states)
        marks.append(time.process_time())
        decoder.look(latents, first, prompts)  # as of real frames
        marks.append(time.process_time())
        if repeat:
            for name, spent in zip(seconds, np.diff(marks)):
                seconds[name] += float(spent)
    frames, decode = TIMED * len(rows) * K, seconds["features"] + seconds["heads"]
    return {
        "frames_per_cpu_s": frames / (seconds["features of their own"] + seconds["heads"]),
        "imagined_frames_per_cpu_s": frames / decode,
        "decode_share": decode / (seconds["sample"] + decode),
        "cpu_seconds_by_part": seconds,
    }


def main() -> int:
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)  # denormal gradients make steps ten times slower
    config, name = Benchmark.recall(Path(sys.argv[1])), sys.argv[2]
    run_stage(config, {stage.name: stage for stage in (*timed(config), *stages(config))}[name])
    return 0


if __name__ == "__main__":
    sys.exit(guarded(main))
