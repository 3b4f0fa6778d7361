"""What the benchmark of agents is asked to do, and where it keeps what it makes."""

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from benchmarks.jobs import remember
from pixeltraj.base import Base
from pixeltraj.errors import PixeltrajError
from pixeltraj.eval.recipes.recipe import SMALL, Scale
from pixeltraj.eval.run import Course
from pixeltraj.files import read_json

PartName = Literal["online", "speed", "locomotion", "offline", "adaptation"]
STEPS: dict[str, int] = {"online": 4000, "locomotion": 5000, "offline": 5000, "adaptation": 4000}
"""Decisions of a run of each part, where nothing is said; updates of an offline agent."""
SEEDS: dict[str, int] = {"online": 5, "speed": 1, "locomotion": 3, "offline": 3, "adaptation": 5}
"""Runs of each arm, likewise."""
QUALITIES = ("medium", "mixed")
RUNNERS = ("HalfCheetah-v5", "Hopper-v5")
SETTINGS: dict[str, tuple[str, ...]] = {
    "online": ("push-v3", "coffee-push-v3"),
    "speed": (),
    "locomotion": RUNNERS,
    "offline": tuple(f"{task}-{quality}" for task in RUNNERS for quality in QUALITIES),
    "adaptation": ("push-v3",),
}
"""What each part is about: a task, or a task and the data of it; of the part online any sparse task will do."""
POLICIES = {
    "HalfCheetah-v5": ("ppo_HalfCheetah.zip", "ppo_HalfCheetah_norm.npz"),
    "Hopper-v5": ("sac_Hopper.zip",),
}
"""Files of the trained policy that collects a runner's data: the checkpoint first."""


@dataclass(frozen=True)
class Effort:
    """How much is collected, trained and evaluated. A part that was begun is only taken up by the same effort."""

    episodes: int = 25
    """Of a store of demonstrations; every fifth is held out, so that agents and generators have four fifths."""
    many_episodes: int = 125
    """Of the large store of demonstrations."""
    max_steps: int | None = None
    """Decisions after which the episodes of stores are cut; the task's horizon if not given."""
    finetune_steps: int = 500
    """Of a LoRA for one task."""
    decode_steps: int = 1500
    """Of a decoder's keypoint head, and of its other heads."""
    scratch_steps: int = 2200
    """U-Net steps of a generator that has seen nothing but the agent's own demonstrations."""
    synther_steps: int = 10_000
    """Training steps of SynthER and of the state level."""
    state_depth: int = 24
    """Blocks of the state level; the paper has 128."""
    generated: int = 5000
    """Transitions that SynthER samples."""
    preliminary: int = 64
    """Trajectories that are imagined before, to measure L of Algorithm 1."""
    offline_updates: int = 500
    """Updates before the first decision."""
    eval_every: int = 500
    """Decisions between evaluations."""
    eval_episodes: int = 20
    """Episodes of an evaluation, the same in every run."""

    def scale(self) -> Scale:
        """In the words of `pixeltraj experiment`."""
        shared = (
            "episodes", "max_steps", "finetune_steps", "decode_steps", "synther_steps", "state_depth", "generated",
            "preliminary",
        )  # fmt: skip
        return replace(SMALL, name="benchmark", **{name: getattr(self, name) for name in shared})


@dataclass(frozen=True)
class Part:
    """One part of the benchmark as it was asked for: all that its processes have to know."""

    name: PartName
    out: Path
    """Its own folder."""
    steps: int
    """Decisions of a run; updates of an offline agent; turns of a measurement of speed."""
    base: str | None = None
    at_once: int = 2
    effort: Effort = field(default_factory=Effort)
    policies: Path | None = None
    """Folder of trained policies; of the parts that learn from their data only."""

    def policy(self, task: str) -> Path:
        """The checkpoint that collects a runner's data."""
        assert self.policies is not None
        return self.policies / POLICIES[task][0]

    def scale(self) -> Scale:
        """Of what is made: images of five frames, and generators that adapt do so four times in a run."""
        return replace(self.effort.scale(), lengths=(5,), adapt_every=max(self.steps // 4, 1))

    def course(self) -> Course:
        effort = self.effort
        return Course(
            steps=self.steps,
            offline_updates=effort.offline_updates,
            eval_every=effort.eval_every,
            eval_episodes=effort.eval_episodes,
            checkpoint_every=effort.eval_every,
        )

    def remember(self) -> None:
        """Write down what is asked, in `out`. Raises PixeltrajError where something else was begun there."""
        asked = {"part": self.name, "steps": self.steps, "base": self.base, "identity": Base.load(self.base).identity}
        known = {"policies": str(self.policies.resolve())} if self.policies else {}
        remember(self.out, asked | {"effort": asdict(self.effort)} | known)

    @classmethod
    def recall(cls, out: Path) -> "Part":
        """What `remember` wrote."""
        said: dict[str, Any] = read_json(out / "config.json", "benchmark")
        policies = Path(said["policies"]) if "policies" in said else None
        effort = Effort(**said["effort"])
        return cls(said["part"], out, said["steps"], said["base"], effort=effort, policies=policies)


@dataclass(frozen=True)
class Benchmark:
    json: Path | None = None
    """Where to write the figures."""
    figure: Path | None = None
    """Where to draw the learning curves, a PNG; of one part, online or adaptation."""
    part: tuple[PartName, ...] = ("online",)
    """Which parts to run, in this order."""
    out: Path = Path("runs/benchmarks/agents")
    """Folder of everything that is made; an interrupted run is taken up there."""
    policies: Path | None = None
    """Folder of trained policies (Stable-Baselines3), from which the parts locomotion and offline collect their data:
    ppo_HalfCheetah.zip, its observations' normalisation ppo_HalfCheetah_norm.npz, sac_Hopper.zip."""
    tasks: tuple[str, ...] = ()
    """Of one part: what is to be learned, by the headings of its tables; push-v3 and coffee-push-v3 of online, all
    there is of the others if not given. (The embedded base has seen demonstrations of both, and never any of
    push-back-v3.)"""
    arms: tuple[str, ...] = ()
    """Of one part: arms to run, by the names in its tables; all if not given."""
    seeds: int | None = None
    """Runs of each arm, from the seeds 0, 1, ...; if not given 5, of runners 3. More can be asked for later."""
    steps: int | None = None
    """Decisions of each run, or updates of an offline agent; if not given 4000, of runners 5000."""
    turns: int = 5
    """Of the part speed: CPU-seconds that each implementation gets."""
    base: str | None = None
    """A diffusers folder, single file or hub id; the embedded base if not given."""
    at_once: int = 2
    """Processes at a time, of one thread each."""
    show: bool = False
    """Run nothing: print what has been finished so far."""
    effort: Effort = field(default_factory=Effort)

    def parts(self) -> list[Part]:
        """Raises PixeltrajError where nothing could be run like this."""
        if self.seeds is not None and self.seeds < 1:
            raise PixeltrajError(f"--seeds is {self.seeds}; it must be at least 1")
        if self.at_once < 1:
            raise PixeltrajError(f"--at-once is {self.at_once}; it must be at least 1")
        if len(self.part) > 1 and (self.tasks or self.arms):
            raise PixeltrajError("--tasks and --arms are of one part; give one --part, or leave them out")
        if self.figure and self.part not in (("online",), ("adaptation",)):
            raise PixeltrajError("--figure is of one part, online or adaptation; give one --part, or leave it out")
        made = [self._part(name) for name in self.part]
        for part in made:
            self.settings(part)
            part.course().check()
        return made

    def _part(self, name: PartName) -> Part:
        at_once = 1 if name == "speed" else self.at_once  # what runs beside it would be measured with it
        policies = self.policies if name in ("locomotion", "offline") else None
        steps = self.turns if name == "speed" else STEPS[name] if self.steps is None else self.steps
        return Part(name, self.out / name, steps, self.base, at_once, self.effort, policies)

    def settings(self, part: Part) -> tuple[str, ...]:
        """What the part is about. Raises PixeltrajError where it knows no such thing."""
        there = SETTINGS[part.name]
        if part.name != "online" and (unknown := [name for name in self.tasks if name not in there]):
            raise PixeltrajError(
                f"part {part.name} has no task {', '.join(unknown)}; it has {', '.join(there) or 'none'}"
            )
        return self.tasks or there

    def check_policies(self) -> None:
        """Raise PixeltrajError, before anything is run, where a policy is lacking that only the user can give."""
        for part in self.parts():
            if part.name not in ("locomotion", "offline"):
                continue
            wanted = [n for task in RUNNERS if any(task in s for s in self.settings(part)) for n in POLICIES[task]]
            if self.policies is None:
                raise PixeltrajError(
                    f"part {part.name} learns from what trained policies do: give --policies FOLDER with "
                    f"{', '.join(wanted)}"
                )
            if lacking := [name for name in wanted if not (self.policies / name).is_file()]:
                raise PixeltrajError(f"{self.policies} lacks {', '.join(lacking)}; part {part.name} needs them")
