"""What the benchmark of the decoder is asked to do, and where it keeps what it makes."""

from dataclasses import asdict, dataclass, field
from pathlib import Path

from benchmarks.jobs import remember
from pixeltraj.base import Base
from pixeltraj.files import read_json


@dataclass(frozen=True)
class Effort:
    """How much is collected, trained and measured. A finished stage is only taken up by the same effort."""

    frames: int = 4000
    """Frames of each task's store; every fifth episode is held out."""
    windows: int = 1200
    """Windows of each kind that a decoder is trained on."""
    lora_steps: int = 250
    """Fine-tuning steps of each LoRA, k=5."""
    keypoint_steps: int = 1500
    """Steps of each decoder's keypoint head."""
    head_steps: int = 1500
    """Steps of its other heads."""
    imagined: int = 64
    """Trajectories that are imagined, and as many read from real frames; all are audited."""
    synther_steps: int = 3000
    """Training steps of SynthER, with learning rate 1e-3."""
    seed: int = 0
    """Of everything."""


@dataclass(frozen=True)
class Benchmark:
    json: Path | None = None
    """Where to write the figures."""
    out: Path = Path("runs/benchmarks/decode")
    """Folder of everything that is made; an interrupted run is taken up there."""
    base: str | None = None
    """A diffusers folder, single file or hub id; the embedded base if not given."""
    tasks: tuple[str, ...] = ("push-v3", "push-back-v3", "HalfCheetah-v5", "Hopper-v5")
    """The embedded base has never seen push-back-v3."""
    at_once: int = 2
    """Processes at a time, of one thread each."""
    effort: Effort = field(default_factory=Effort)

    def store(self, task: str) -> Path:
        return self.out / "stores" / task

    def lora(self, task: str) -> Path:
        return self.out / "loras" / task

    def decoder(self, task: str) -> Path:
        return self.out / "decoders" / task

    def remember(self) -> None:
        """Write down what is asked, in `out`. Raises PixeltrajError where something else was begun there."""
        identity = Base.load(self.base).identity
        asked = {"base": self.base, "identity": identity, "tasks": list(self.tasks), "effort": asdict(self.effort)}
        remember(self.out, asked)

    @classmethod
    def recall(cls, out: Path) -> "Benchmark":
        """What `remember` wrote."""
        said = read_json(out / "config.json", "benchmark")
        return cls(out=out, base=said["base"], tasks=tuple(said["tasks"]), effort=Effort(**said["effort"]))
