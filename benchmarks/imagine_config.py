"""What the benchmark of imagination is asked to do, and where it keeps what it makes."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.jobs import remember
from pixeltraj.base import Base
from pixeltraj.files import read_json
from pixeltraj.grid import LENGTHS

EPISODES_FROM = 9_000_000
"""Seed of the first episode of every store that is collected here: far from those that bases are pretrained on."""
HELDOUT_TASKS = ("push-back-v3", "plate-slide-v3", "window-close-v3", "faucet-open-v3", "hammer-v3")
"""No base that the project ships has seen them."""


@dataclass(frozen=True)
class Effort:
    """How much is collected, trained and measured. A finished stage is only taken up by the same effort."""

    frames: int = 1500
    """Frames that are collected and drawn for each task that is tuned; every fifth episode is held out."""
    lora_steps: int = 500
    """Fine-tuning steps of each LoRA of k=5: less than three minutes of one core."""
    long_lora_steps: int = 300
    """Of every other LoRA, whose steps take longer, likewise."""
    decoder_steps: int = 800
    """Steps of each decoder's keypoint head; its other heads get as many."""
    starts: int = 80
    """Held-out windows from which imagination sets out with k=5; with k=25 half as many."""
    samples: int = 4
    """Futures that are imagined from each of them."""
    num_inference_steps: int | None = None
    """Denoising steps of the sampler, everywhere; if not given as the generator has them."""
    audited: int = 32
    """Trajectories of each length that are held against the simulator."""
    diverse_starts: int = 16
    """Starts whose futures are compared with each other."""
    diverse_samples: int = 8
    """Futures of each of them, imagined and real."""
    vae_frames: int = 100
    """Frames of each task on which the VAE is measured."""
    scratch_steps: int = 4000
    """U-Net steps from scratch: thirty minutes of one core."""
    seed: int = 0
    """Of everything that is trained, drawn and imagined."""


@dataclass(frozen=True)
class Benchmark:
    json: Path | None = None
    """Where to write the figures."""
    out: Path = Path("runs/benchmarks/imagine")
    """Folder of everything that is made; an interrupted run is taken up there."""
    base: str | None = None
    """A diffusers folder, single file or hub id; the embedded base if not given."""
    tasks: tuple[str, ...] = ("push-v3",)
    """Meta-World tasks that are tuned, with one LoRA for all lengths each."""
    runners: tuple[str, ...] = ("HalfCheetah-v5", "Hopper-v5")
    """Locomotion tasks that are tuned, with one LoRA for k=5 and 10 each."""
    at_once: int = 2
    """Processes at a time, of one thread each."""
    scratch: bool = False
    """Also train on a held-out task from scratch, half an hour of one core."""
    prompts: bool = False
    """Also tune a held-out task with language, one-hot and no prompts, three seeds each: half an hour of both cores."""
    pictures: Path | None = None
    """Folder for pictures of the best, the median and the worst imagined trajectory."""
    effort: Effort = field(default_factory=Effort)

    def store(self, task: str) -> Path:
        return self.out / "stores" / task

    def lora(self, task: str, label: str) -> Path:
        """label: which of the task's LoRAs; `all` makes all of its lengths."""
        return self.out / "loras" / f"{task}-{label}"

    def decoder(self, task: str) -> Path:
        """It reads the grids of the LoRA `all`, and, as latents are latents, those of any other LoRA of the base."""
        return self.out / "decoders" / task

    def arrays(self, name: str) -> Path:
        return self.out / "arrays" / f"{name}.safetensors"

    def trained_lengths(self, task: str) -> tuple[int, ...]:
        return LENGTHS if task in self.tasks else self.measured_lengths(task)

    def measured_lengths(self, task: str) -> tuple[int, ...]:
        """What the task's decoder reads."""
        if task in self.tasks:
            return (5, 25)
        return (5, 10) if task in self.runners else (5,)

    def remember(self) -> None:
        """Write down what is asked, in `out`. Raises PixeltrajError where something else was begun there."""
        asked = {
            "base": self.base,
            "identity": Base.load(self.base).identity,
            "tasks": list(self.tasks),
            "runners": list(self.runners),
            "effort": asdict(self.effort),
        }
        remember(self.out, asked)

    @classmethod
    def recall(cls, out: Path) -> "Benchmark":
        """What `remember` wrote."""
        said: dict[str, Any] = read_json(out / "config.json", "benchmark")
        tasks, runners = tuple(said["tasks"]), tuple(said["runners"])
        return cls(out=out, base=said["base"], tasks=tasks, runners=runners, effort=Effort(**said["effort"]))
