"""The stages of the benchmark: what depends on what. `python -m benchmarks.imagine_stages OUT NAME` does one."""

import sys
from functools import partial
from pathlib import Path

import torch

from benchmarks import ending, imagine_unseen
from benchmarks.imagine_config import Benchmark
from benchmarks.imagine_diversity import diversity
from benchmarks.imagine_dynamics import dynamics
from benchmarks.imagine_errors import one_for_all, pixel_errors
from benchmarks.imagine_quality import speed, vae
from benchmarks.imagine_tuning import collected, decoding, tuned
from benchmarks.jobs import Stage, run_stage
from pixeltraj.cli import guarded


def stages(config: Benchmark) -> list[Stage]:
    """Those that run beside each other; the ones that most wait for come first."""
    listed = []
    for task in (*config.tasks, *config.runners):
        lengths = config.trained_lengths(task)
        listed.append(Stage(f"store-{task}", partial(collected, task=task)))
        listed.append(Stage(f"lora-{task}", partial(tuned, task=task, label="all", k=lengths), (f"store-{task}",)))
        listed.append(Stage(f"decoder-{task}", partial(decoding, task=task), (f"lora-{task}",)))
    for task in config.tasks:
        for k in reversed(config.measured_lengths(task)):
            listed.append(Stage(f"errors-{task}-k{k}", partial(pixel_errors, task=task, k=k), (f"decoder-{task}",)))
    for task in config.tasks[:1]:
        alone, errors = ([f"{what}-{task}-{k}" for k in ("k5", "k25")] for what in ("lora", "errors"))
        for name, k in zip(alone, config.measured_lengths(task)):
            listed.append(Stage(name, partial(tuned, task=task, label=str(k), k=(k,)), (f"store-{task}",)))
        listed.append(Stage("onediff", partial(one_for_all, task=task), (*errors, *alone)))
        listed.append(Stage("length", partial(length, task=task), (f"decoder-{task}",)))
        listed.append(Stage("diversity", partial(diversity, task=task), (f"decoder-{task}",)))
    for task in (*config.tasks, *config.runners):
        listed.append(Stage(f"dynamics-{task}", partial(dynamics, task=task), (f"decoder-{task}",)))
    return [*listed, Stage("vae", vae)]


def timed(config: Benchmark) -> list[Stage]:
    """What must not run beside anything else."""
    return [Stage("speed", partial(speed, task=config.tasks[0]))]


def unseen(scratch: bool, prompts: bool) -> list[Stage]:
    """The task that the base has never seen, and what is asked of it."""
    task, k = imagine_unseen.TASK, (imagine_unseen.K,)
    kinds = imagine_unseen.KINDS if prompts else imagine_unseen.KINDS[:1]
    seeds = imagine_unseen.SEEDS if prompts else 1
    listed = [Stage(f"store-{task}", partial(collected, task=task))]
    if scratch:
        listed.append(Stage("scratch", imagine_unseen.from_scratch, (f"store-{task}",)))
    loras = []
    for kind, seed in ((kind, seed) for kind in kinds for seed in range(seeds)):
        label = imagine_unseen.label(kind, seed)
        loras.append(f"lora-{task}-{label}")
        work = partial(tuned, task=task, label=label, k=k, prompt=kind, seed=seed)
        listed.append(Stage(loras[-1], work, (f"store-{task}",)))
    listed.append(Stage(f"decoder-{task}", partial(decoding, task=task), (loras[0],)))
    if scratch:
        after = ("scratch", f"decoder-{task}")
        listed.append(Stage("lora_vs_scratch", imagine_unseen.lora_against_scratch, after))
    if prompts:
        listed.append(Stage("prompts", imagine_unseen.prompt_errors, (*loras, f"decoder-{task}")))
    return listed


def length(config: Benchmark, task: str) -> dict[str, object]:
    """`benchmarks.ending` of the task."""
    return ending.measure_ending(
        ending.Benchmark(
            store=config.store(task),
            decoder=config.decoder(task),
            lora=config.lora(task, "all"),
            base=config.base,
            imagined=config.effort.audited,
            num_inference_steps=config.effort.num_inference_steps,
            seed=config.effort.seed,
        )
    )


def main() -> int:
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)  # denormal gradients make steps ten times slower
    config, name = Benchmark.recall(Path(sys.argv[1])), sys.argv[2]
    known = {stage.name: stage for stage in (*unseen(True, True), *timed(config), *stages(config))}
    run_stage(config, known[name])
    return 0


if __name__ == "__main__":
    sys.exit(guarded(main))
