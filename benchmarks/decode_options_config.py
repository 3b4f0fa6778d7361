"""What the benchmark of the decoder's options is asked to do, and where it keeps what it makes."""

from dataclasses import asdict, dataclass, field
from pathlib import Path

from benchmarks.decode_options_list import OPTIONS, Option
from benchmarks.jobs import remember
from pixeltraj.base import Base
from pixeltraj.decode.train import TrainConfig
from pixeltraj.errors import PixeltrajError
from pixeltraj.files import read_json

K = 5
SEEDS = 10
"""There are no more of them."""


@dataclass(frozen=True)
class Effort:
    """How much is collected and trained, the same for every option. A finished stage is only taken up by the same
    effort."""

    frames: int = 4000
    """Frames of each task's store; every fifth episode is held out."""
    windows: int = 600
    """Windows of each kind, at most, that a decoder is trained on."""
    lora_steps: int = 250
    """Fine-tuning steps of each LoRA, k=5."""
    steps: int = 600
    """Steps of what reads single frames; the other heads get as many."""


@dataclass(frozen=True)
class Benchmark:
    json: Path | None = None
    """Where to write the figures."""
    option: tuple[str, ...] = tuple(option.name for option in OPTIONS)
    """What to measure."""
    out: Path = Path("runs/benchmarks/decode_options")
    """Folder of everything that is made; an interrupted run is taken up there, other options are added."""
    base: str | None = None
    """A diffusers folder, single file or hub id; the embedded base if not given."""
    tasks: tuple[str, ...] = ("push-v3", "HalfCheetah-v5")
    """What is read."""
    seeds: int = 1
    """Decoders of each option, with other weights and batches."""
    shipped_seeds: int = 3
    """Decoders of the option `shipped`: how far two of them differ is what a difference has to exceed."""
    at_once: int = 2
    """Processes at a time, of one thread each."""
    effort: Effort = field(default_factory=Effort)

    @property
    def options(self) -> list[Option]:
        """Raises PixeltrajError where there is no such option."""
        known = {option.name: option for option in OPTIONS}
        if unknown := [name for name in self.option if name not in known]:
            raise PixeltrajError(f"there is no option {unknown[0]!r}; there are {', '.join(known)}")
        return [option for option in OPTIONS if option.name in self.option]

    def seeds_of(self, option: Option) -> range:
        return range(min(SEEDS, max(self.seeds, self.shipped_seeds if option.name == "shipped" else 0)))

    def store(self, task: str) -> Path:
        return self.out / "stores" / task

    def lora(self, task: str) -> Path:
        return self.out / "loras" / task

    def windows(self, task: str, input: str, of: str) -> Path:
        """The windows of one task as the generator of another (or the same) sees them."""
        return self.out / "windows" / f"{task}-{input}-{of}.safetensors"

    def training(self, task: str, seed: int = 0, longer: int = 1) -> TrainConfig:
        """As a decoder is shipped, but for the time it takes. `out` is not used: these decoders are not kept."""
        steps, out = self.effort.steps * longer, self.out / "decoders"
        common = {"steps": steps, "head_steps": steps, "windows": self.effort.windows, "seed": seed}
        return TrainConfig(self.store(task), out, self.base, self.lora(task), (K,), **common)

    def remember(self) -> None:
        """Write down what is asked, in `out`. Raises PixeltrajError where something else was begun there."""
        identity = Base.load(self.base).identity
        asked = {"base": self.base, "identity": identity, "tasks": list(self.tasks), "effort": asdict(self.effort)}
        remember(self.out, asked)

    @classmethod
    def recall(cls, out: Path) -> "Benchmark":
        """What `remember` wrote, with all options and seeds that there are."""
        said = read_json(out / "config.json", "benchmark")
        effort = Effort(**said["effort"])
        return cls(out=out, base=said["base"], tasks=tuple(said["tasks"]), seeds=SEEDS, effort=effort)
