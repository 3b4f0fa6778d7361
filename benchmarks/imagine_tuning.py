"""Stores, LoRAs and decoders that are made on the spot."""

from pathlib import Path
from typing import Any, Protocol

from benchmarks.imagine_config import EPISODES_FROM, Benchmark
from pixeltraj.base import Base
from pixeltraj.decode.decoder import CONFIG, Decoder
from pixeltraj.decode.train import TrainConfig, train
from pixeltraj.finetune.train import FinetuneConfig, finetune
from pixeltraj.generator import Generator
from pixeltraj.prompt import PromptKind
from pixeltraj.render.collect import CollectConfig, collect
from pixeltraj.render.render import RenderConfig, render
from pixeltraj.store import Store
from pixeltraj.tasks import get_task

EPISODES = 10
"""In a store at least, and as many more at a time until it has its frames."""
LONGEST = 60
"""Decisions after which random episodes are cut, so that many starts are seen."""


def drawn(
    path: Path, task: str, frames: int, random: bool = False, episodes: int = EPISODES, longest: int | None = None
) -> Store:
    """A store with at least so many frames and episodes: of the suite's own demonstrator, with noise of .1 on its
    actions, where there is one, else (or if asked) of random actions. longest: decisions in an episode."""
    simulator = get_task(task).make()
    simulator.reset(seed=0)
    random = random or simulator.scripted_action() is None
    policy, noise = ("random", 0.0) if random else ("scripted", 0.1)
    longest = longest or (LONGEST if random else None)
    enough = episodes
    while collect(CollectConfig(task, path, policy, enough, noise, EPISODES_FROM, longest)).frame_count < frames:
        enough += episodes
    return render(RenderConfig(path, workers=1))


class Collecting(Protocol):
    """A benchmark that makes a store for each of its tasks."""

    @property
    def effort(self) -> Any:
        """`frames`: how many at least."""

    def store(self, task: str) -> Path:
        """Where that of a task lies."""


def collected(config: Collecting, task: str) -> dict[str, Any]:
    store = drawn(config.store(task), task, config.effort.frames)
    training, heldout = store.split()
    return {"training_episodes": len(training), "heldout_episodes": len(heldout), "frames": store.frame_count}


def tuned(
    config: Benchmark, task: str, label: str, k: tuple[int, ...], prompt: PromptKind = "language", seed: int = 0
) -> dict[str, Any]:
    """The LoRA `label` of a task."""
    effort = config.effort
    done = finetune(
        FinetuneConfig(
            store=config.store(task),
            out=config.lora(task, label),
            base=config.base,
            k=k,
            steps=effort.lora_steps if k == (5,) else effort.long_lora_steps,
            prompt=prompt,
            seed=effort.seed + seed,
        )
    )
    names = ("steps", "k", "heldout_loss_before", "heldout_loss_after")
    return {name: done[name] for name in names}


def decoding(config: Benchmark, task: str) -> dict[str, Any]:
    """The decoder of a task's LoRA `all`, for the lengths that are measured."""
    steps, folder = config.effort.decoder_steps, config.decoder(task)
    if not (folder / CONFIG).exists():
        train(
            TrainConfig(
                store=config.store(task),
                out=folder,
                base=config.base,
                lora=config.lora(task, "all"),
                k=config.measured_lengths(task),
                steps=steps,
                head_steps=steps,
                copies=2,
                seed=config.effort.seed,
            )
        )
    return {"metrics": reader(config, task).about["metrics"]}


def generator(config: Benchmark, task: str, label: str = "all") -> Generator:
    """A base of its own with that LoRA."""
    return Generator.load(Base.load(config.base), config.lora(task, label))


def reader(config: Benchmark, task: str) -> Decoder:
    """The decoder of the task, with the generator that it belongs to."""
    path = config.lora(task, "all")
    made = Generator.load(Base.load(config.base), path, config.measured_lengths(task)[0])
    return Decoder.load(config.decoder(task), made)
