"""Recipe: an experiment of the paper as data. What has to be there, who learns which task with it, for how long.

A recipe opens no file. `pixeltraj experiment` makes what it names (`Data`, `Dreamer`, `Dreamt`, `Sampled`), puts the
arms together and runs them.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from pixeltraj.errors import PixeltrajError
from pixeltraj.eval.augmentation import Augmentation
from pixeltraj.eval.indicator import IndicatorKind
from pixeltraj.eval.run import Course
from pixeltraj.prompt import PromptKind

COLLECTED = ("scripted", "random")
"""Qualities of data that `pixeltraj collect` makes from nothing; all others are the user's own."""
Measure = Literal["score", "hours"]


@dataclass(frozen=True)
class Scale:
    """How much of an experiment is done."""

    name: str
    seeds: int
    """Runs of each arm."""
    tasks: int | None
    """Tasks or datasets of a recipe that are run, the first ones; None: all of them."""
    share: float
    """Of the paper's decisions."""
    evaluations: int
    """Of each run, besides the one at the start."""
    eval_episodes: int
    """Episodes of each."""
    offline_updates: int
    """Updates before the first decision."""
    updates_per_step: int
    """Updates for each decision."""
    episodes: int
    """Of each store of real data; every fifth is held out."""
    max_steps: int | None
    """Decisions after which the episodes of that data are cut."""
    lengths: tuple[int, ...]
    """Frames in an image, of generators that make several lengths."""
    finetune_steps: int
    """Of a LoRA for one task; twice as many for one of many tasks."""
    decode_steps: int
    """Of the keypoint head, and of the other heads."""
    preliminary: int
    """Trajectories that are imagined before the agents start, to measure L of Algorithm 1."""
    generated: int
    """Transitions of a store of imagined or sampled data, at least."""
    synther_steps: int
    """Training steps of SynthER, and of the model of trajectories as numbers."""
    state_depth: int
    """Blocks of the latter; the paper has 128."""
    adapt_every: int
    """Decisions between two updates of a generator that adapts."""


SMOKE = Scale(
    name="smoke", seeds=1, tasks=1, share=0.0, evaluations=3, eval_episodes=1, offline_updates=2, updates_per_step=1,
    episodes=5, max_steps=40, lengths=(5, 10), finetune_steps=2, decode_steps=2, preliminary=4, generated=20,
    synther_steps=10, state_depth=2, adapt_every=15,
)  # fmt: skip
"""Minutes, and no result: shows that all parts of a recipe fit together."""
SMALL = Scale(
    name="small", seeds=3, tasks=1, share=0.012, evaluations=8, eval_episodes=20, offline_updates=500,
    updates_per_step=1, episodes=25, max_steps=None, lengths=(5, 10, 15, 20, 25), finetune_steps=400, decode_steps=1500,
    preliminary=64, generated=5000, synther_steps=10_000, state_depth=24,
    adapt_every=1000,
)  # fmt: skip
"""An evening on two cores for most recipes: the first task of each, 3000 decisions where the paper has 250,000."""
PAPER = Scale(
    name="paper", seeds=5, tasks=None, share=1.0, evaluations=50, eval_episodes=20, offline_updates=5000,
    updates_per_step=1, episodes=1000, max_steps=None, lengths=(5, 10, 15, 20, 25), finetune_steps=20_000,
    decode_steps=20_000, preliminary=256, generated=5_000_000, synther_steps=100_000, state_depth=128,
    adapt_every=10_000,
)  # fmt: skip
"""The paper's steps, seeds and datasets. Weeks of a GPU: give --base a full Stable Diffusion."""
SCALES = {scale.name: scale for scale in (SMOKE, SMALL, PAPER)}


@dataclass(frozen=True)
class Data:
    """A store of real episodes of a task."""

    task: str
    quality: str = "scripted"
    """scripted or random: collected. Others (medium, medium-replay, ...) are looked for in the user's folder."""

    @property
    def name(self) -> str:
        return f"{self.task}-{self.quality}"

    @property
    def given(self) -> bool:
        """Whether it has to be the user's own."""
        return self.quality not in COLLECTED


@dataclass(frozen=True)
class Dreamer:
    """A LoRA of the base, and the decoder that reads what it imagines."""

    learned: Data
    """What the LoRA is trained on."""
    read: Data
    """What the decoder is trained on: real data of the agent's task."""
    k: tuple[int, ...] = (5,)
    """Frames in an image; of several, an estimator of the length chooses."""
    prompt: PromptKind = "language"
    actions: Literal["read", "sampled"] = "read"
    """Where the actions of what it imagines come from; the paper reads them."""

    @property
    def name(self) -> str:
        """Of its models, which are the same whatever is asked of them."""
        both = (self.learned,) if self.learned == self.read else (self.learned, self.read)
        return "-".join([*(data.name for data in both), *map(str, self.k), self.prompt])

    @property
    def dreams(self) -> str:
        """Of what it imagines."""
        return self.name if self.actions == "read" else f"{self.name}-{self.actions}"


@dataclass(frozen=True)
class Dreamt:
    """A store of trajectories that were imagined from held-out real states before the agent starts."""

    dreamer: Dreamer
    first: bool = False
    """Keep nothing but the first transition of each: what a generator of single transitions would give."""

    @property
    def name(self) -> str:
        return f"{self.dreamer.dreams}-{'transitions' if self.first else 'trajectories'}"


@dataclass(frozen=True)
class Sampled:
    """A store that SynthER sampled."""

    learned: Data

    @property
    def name(self) -> str:
        return f"{self.learned.name}-synther"


@dataclass(frozen=True)
class StateDreamer:
    """A model of whole trajectories as numbers, without pictures, that sets out from the agent's state."""

    learned: Data
    k: int = 5
    """Frames of a trajectory."""

    @property
    def name(self) -> str:
        return f"{self.learned.name}-{self.k}-state"


@dataclass(frozen=True)
class Adapt:
    """Online adaptation of a generator; see `pixeltraj eval --help` for what is not named here."""

    indicator: IndicatorKind = "td-error"
    drop: float = 0.1
    """Share that is dropped at random after each update."""


@dataclass(frozen=True, kw_only=True)
class Side:
    """An arm whose parts are named, not made."""

    name: str
    agent: str
    config: Any = None
    """Of the agent's own kind; its defaults if not given."""
    data: tuple[Data, ...] = ()
    """Real data, the same on all sides of a trial unless the paper says otherwise."""
    synthetic: tuple[Dreamt | Sampled, ...] = ()
    """Imagined data that is there from the start."""
    dreamer: Dreamer | StateDreamer | None = None
    """Imagination while the agent learns."""
    adapt: Adapt | None = None
    """How its generator learns on."""
    augment: Augmentation | None = None
    """What is done to states in every update (S4RL)."""
    symmetric: bool = True
    """Half of every batch is real data of before."""
    online: bool = True
    """Whether it acts in the environment."""

    def dreamers(self) -> list[Dreamer | StateDreamer]:
        """All that imagine for it, before or while it learns."""
        before = [part.dreamer for part in self.synthetic if isinstance(part, Dreamt)]
        return [*before, *([self.dreamer] if self.dreamer else [])]


@dataclass(frozen=True, kw_only=True)
class Trial:
    """Sides that learn one task from one dataset: one row of a table, or a part of a panel of a figure."""

    task: str
    dataset: str
    """The word for its data."""
    panel: str
    """Trials of one panel are averaged, as the paper does it."""
    sides: tuple[Side, ...]
    """The first one is what the others are held against."""
    paper: dict[str, float] = field(default_factory=dict)
    """The paper's number of each side, where its text gives one: normalised return, success, or hours."""

    @property
    def name(self) -> str:
        return f"{self.task}-{self.dataset}"

    def needed(self) -> list[Data]:
        """The real data that has to be there, each once."""
        found: list[Data] = []
        for side in self.sides:
            found += side.data
            for part in (*side.dreamers(), *side.synthetic):
                if isinstance(part, Dreamer):
                    found += [part.learned, part.read]
                elif not isinstance(part, Dreamt):
                    found.append(part.learned)
        return list(dict.fromkeys(found))


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One table or figure of the paper."""

    name: str
    shows: str
    """Which one, and what is compared in it."""
    differs: str = ""
    """Where it is not what the paper did."""
    steps: int
    """Decisions of each run in the paper; of offline agents, updates."""
    trials: Callable[[Scale], list[Trial]]
    """All of them, also those that the scale leaves out."""
    measure: Measure = "score"
    """hours: the wall-clock time of a run is what is compared."""

    def chosen(self, scale: Scale) -> list[Trial]:
        """The trials that the scale runs: of each panel, the first ones."""
        kept: list[Trial] = []
        for trial in self.trials(scale):
            before = sum(other.panel == trial.panel for other in kept)
            if scale.tasks is None or (before < scale.tasks and len({t.panel for t in kept} | {trial.panel}) <= 3):
                kept.append(trial)
        return kept

    def course(self, scale: Scale) -> Course:
        """How long each run is."""
        steps = max(round(self.steps * scale.share), 30)
        every = max(steps // scale.evaluations, 1)
        return Course(
            steps=steps,
            updates_per_step=scale.updates_per_step,
            offline_updates=scale.offline_updates,
            eval_every=every,
            eval_episodes=scale.eval_episodes,
            checkpoint_every=every,
        )


def get_scale(name: str) -> Scale:
    """Raises PixeltrajError where there is none of that name."""
    if name not in SCALES:
        raise PixeltrajError(f"there is no scale {name!r}; choose of {', '.join(SCALES)}")
    return SCALES[name]
