"""The stages of that benchmark. `python -m benchmarks.decode_options_stages OUT NAME` does one."""

import sys
import time
from collections.abc import Callable
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.decode import task_figures
from benchmarks.decode_options_config import SEEDS, Benchmark, K
from benchmarks.decode_options_inputs import INPUTS
from benchmarks.decode_options_list import OTHERS, Option
from benchmarks.decode_options_training import option_decoder, option_heads, read_task, shown
from benchmarks.decode_options_windows import Lesson
from benchmarks.imagine_dynamics import starts
from benchmarks.imagine_tuning import collected
from benchmarks.jobs import Stage, run_stage
from pixeltraj.base import Base
from pixeltraj.cli import guarded
from pixeltraj.decode.decoder import Decoder
from pixeltraj.decode.features import Windows, grid_features, tile_features
from pixeltraj.decode.measurement import measure
from pixeltraj.finetune.train import FinetuneConfig, finetune
from pixeltraj.generator import LAST, Generator
from pixeltraj.latents import store_latents
from pixeltraj.store import Store
from pixeltraj.tasks import get_task

TIMED = 5
"""Repeats of what is timed."""
BATCH = 32


def stages(config: Benchmark) -> list[Stage[Benchmark]]:
    """Those of every option's first seed come first."""
    listed: dict[str, Stage[Benchmark]] = {}

    def add(name: str, work: Callable[[Benchmark], dict[str, Any]], *after: str) -> str:
        listed.setdefault(name, Stage(name, work, after))
        return name

    for seed, option, task in product(range(SEEDS), config.options, config.tasks):
        if seed in config.seeds_of(option) and option.concerns(task):
            stores = [add(f"store-{one}", partial(collected, task=one)) for one in shown_tasks(option, task)]
            lora = add(f"lora-{task}", partial(tuned, task=task), stores[0])
            windows = [
                add(
                    f"windows-{task}-{option.input}-{one}",
                    partial(looked, task=task, input=option.input, of=one),
                    lora,
                    store,
                )
                for one, store in zip(shown_tasks(option, task), stores)
            ]
            work = partial(measured, option=option, task=task, seed=seed)
            add(measured_name(option, task, seed), work, *windows)
    return list(listed.values())


def shown_tasks(option: Option, task: str) -> tuple[str, ...]:
    """Tasks that a decoder of the option is trained on, its own first."""
    return (task, *OTHERS[task]) if option.generic else (task,)


def timed(config: Benchmark) -> list[Stage[Benchmark]]:
    """What must not run beside anything else."""
    return [
        Stage(speed_name(option, task), partial(speed, option=option, task=task))
        for option, task in product(config.options, config.tasks)
        if option.concerns(task)
    ]


def measured_name(option: Option, task: str, seed: int) -> str:
    return f"read-{task}-{option.name}-{seed}"


def speed_name(option: Option, task: str) -> str:
    return f"speed-{task}-{option.name}"


def tuned(config: Benchmark, task: str) -> dict[str, Any]:
    """The LoRA of a task; the latents of its store are made on the way."""
    done = finetune(
        FinetuneConfig(config.store(task), config.lora(task), config.base, (K,), steps=config.effort.lora_steps)
    )
    return {name: done[name] for name in ("steps", "heldout_loss_before", "heldout_loss_after")}


def generator_of(config: Benchmark, task: str) -> Generator:
    return Generator.load(Base.load(config.base), config.lora(task), K)


def looked(config: Benchmark, task: str, input: str, of: str) -> dict[str, Any]:
    lesson = lesson_of(config, task, input, of)
    return {"windows": len(lesson.clean), "heldout_windows": len(lesson.real)}


def lesson_of(config: Benchmark, task: str, input: str, of: str) -> Lesson:
    """What the generator of a task, or the input that takes its place, makes of a store's windows."""
    path = config.windows(task, input, of)
    if not path.exists():
        see, store = INPUTS[input], Store.open(config.store(of))
        Lesson.read(see, store, generator_of(config, task), config.training(task)).save(path)
    return Lesson.load(path)


def measured(config: Benchmark, option: Option, task: str, seed: int) -> dict[str, Any]:
    """What a decoder of the option misreads on held-out episodes: real frames, and the same as the generator
    reconstructs them."""
    lessons = [lesson_of(config, task, option.input, of) for of in shown_tasks(option, task)]
    own, about = lessons[0], get_task(task)
    training = config.training(task, seed, option.longer)
    decoder = option_decoder(option, about, generator_of(config, task), lessons, training)
    span = np.ptp(own.clean.states.reshape(-1, about.state_size), axis=0)
    return {
        kind: figures(task, measure(decoder, shown(decoder.task, windows), span), option.reader != "direct")
        for kind, windows in (("real", own.real), ("reconstructed", own.reconstructed))
    }


def figures(task: str, metrics: dict[str, Any], keypoints: bool) -> dict[str, Any]:
    """What the table tells, and `metrics`. keypoints: whether there were any."""
    told = task_figures(task, metrics) | {"action_r2_mean": float(np.mean(metrics["action_r2"]))}
    told["keypoint_mm"] = float(np.mean(list(metrics["keypoint_mm"].values()))) if keypoints else None
    if not keypoints:
        metrics = {key: value for key, value in metrics.items() if key not in ("keypoint_mm", "uncertainty")}
    return told | {"metrics": metrics}


def speed(config: Benchmark, option: Option, task: str) -> dict[str, Any]:
    """Frames in a second of one core, from latents to transitions: any latents, and those imagined just now. Nothing is
    trained: weights cost the same."""
    store, generator, see = Store.open(config.store(task)), generator_of(config, task), INPUTS[option.input]
    some = Windows.read(store, store.split()[1], generator, stride=BATCH, see=see)
    about = read_task(option, store.task, some)
    heads = option_heads(option, about, shown(about, some), config.training(task))
    decoder = Decoder(about, generator, heads, (K,))
    rows = starts(store, K, BATCH, 0)
    tiles = store_latents(store, generator.base)[torch.from_numpy(rows)].float()
    latents, first, prompts = generator.grid.join(tiles), tiles[:, 0], [store.task.prompt] * len(rows)
    states = store.windows("states", rows[:, :1])[:, 0]
    _, maps = generator.finish(latents, torch.full((len(rows),), LAST), first, generator.embed(prompts))
    seconds = dict.fromkeys(("input", "heads", "input that was imagined"), 0.0)
    for repeat in range(TIMED + 1):  # the first time, memory is laid out
        marks = [time.process_time()]
        seen = (see or grid_features)(generator, latents, first, prompts)
        marks.append(time.process_time())
        decoder.read(seen, states)
        marks.append(time.process_time())
        if see is None:
            tile_features(latents, maps)  # the sampler has paid for the maps
        marks.append(time.process_time())
        if repeat:
            for name, spent in zip(seconds, np.diff(marks)):
                seconds[name] += float(spent)
    frames, imagined = TIMED * len(rows) * K, seconds["input" if see else "input that was imagined"]
    return {
        "frames_per_cpu_s": frames / (seconds["input"] + seconds["heads"]),
        "imagined_frames_per_cpu_s": frames / (imagined + seconds["heads"]),
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
