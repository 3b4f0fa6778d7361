"""Preparation: makes what a recipe names, each part once, and puts arms together from it.

PARTS/  data/NAME/                            a store of real episodes
        dreamers/NAME/{lora,decoder,length}/  a generator, what reads it, and what chooses of several lengths
        imagined/NAME/  sampled/NAME/         stores of imagined and of SynthER's data
"""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from pixeltraj.cli.adaptation import Adaptation, AdaptiveImagineConfig
from pixeltraj.cli.imagination import ImagineConfig
from pixeltraj.cli.imagine import Config as ImagineCommand
from pixeltraj.cli.imagine import imagine
from pixeltraj.cli.sight import draw_alike
from pixeltraj.cli.state_level import Config as StateLevelCommand
from pixeltraj.cli.state_level import synthesize as sample_states
from pixeltraj.cli.synther import Config as SyntherCommand
from pixeltraj.cli.synther import synthesize
from pixeltraj.decode.decoder import CONFIG as DECODER_CONFIG
from pixeltraj.decode.train import TrainConfig, train
from pixeltraj.errors import PixeltrajError
from pixeltraj.eval.agents.catalogue import sees
from pixeltraj.eval.arm import Arm, MakeImagine
from pixeltraj.eval.recipes.recipe import Adapt, Data, Dreamer, Dreamt, Sampled, Scale, Side, StateDreamer, Trial
from pixeltraj.eval.state_level import StateLevelImagine
from pixeltraj.files import provenance
from pixeltraj.finetune.train import FinetuneConfig, finetune
from pixeltraj.length import CONFIG as LENGTH_CONFIG
from pixeltraj.length import LengthConfig, train_length
from pixeltraj.render.collect import CollectConfig, collect
from pixeltraj.render.exchange.importing import ImportConfig, import_dataset
from pixeltraj.render.policies import make_policy
from pixeltraj.render.render import RenderConfig, render
from pixeltraj.replay_buffer import ReplayBufferConfig
from pixeltraj.store import Store
from pixeltraj.tasks import get_task
from pixeltraj.trajectory import Trajectory


@dataclass(frozen=True)
class Preparation:
    scale: Scale
    parts: Path
    """Folder of all that is made."""
    given: Path | None = None
    """Folder of the user's own data."""
    base: str | None = None
    """A diffusers folder, single file or hub id; the embedded base if not given."""

    def check(self, trials: Sequence[Trial]) -> None:
        """Raise PixeltrajError, before anything is made, where data is lacking that only the user can give."""
        wanted = dict.fromkeys(data for trial in trials for data in trial.needed())
        lacking = [data.name for data in wanted if self._given(data) and not self._source(data)]
        if lacking:
            raise PixeltrajError(
                f"no data for {', '.join(lacking)}: give --data DIR with, for each, NAME/ (a store), NAME.hdf5 (a file "
                f"of D4RL) or NAME.zip (a policy of stable-baselines3, which then acts)"
            )
        for data in wanted:
            if not self._given(data) and data.quality == "scripted":
                make_policy("scripted", get_task(data.task).make())

    def plan(self, trials: Sequence[Trial]) -> list[str]:
        """What `prepare` would make, a line each, in order; the dreams are named by what they learn from."""
        lines: dict[str, None] = {}
        for trial in trials:
            lines |= {f"data {data.name}": None for data in trial.needed()}
            for side in trial.sides:
                lines |= {f"dreamer {dreamer.name}": None for dreamer in side.dreamers()}
                for part in side.synthetic:
                    lines[f"{'imagined' if isinstance(part, Dreamt) else 'sampled'} {part.name}"] = None
        return list(lines)

    def arm(self, side: Side) -> Arm:
        """All that the side needs is there afterwards; what an interrupted preparation left is taken up."""
        buffer = ReplayBufferConfig()
        make: MakeImagine | None = None
        if side.dreamer:
            buffer = replace(buffer, expected_length=self.expected_length(side.dreamer))
            make = self.imagination(side.dreamer, side.adapt)
        return Arm(
            name=side.name,
            agent=side.agent,
            config=side.config,
            stores=tuple(self.data(data, drawn=sees(side.agent)) for data in side.data),
            synthetic=tuple(
                self.dreamt(part) if isinstance(part, Dreamt) else self.sampled(part) for part in side.synthetic
            ),
            imagine=make,
            augment=side.augment,
            buffer=buffer,
            symmetric=side.symmetric,
            online=side.online,
        )

    def imagination(self, dreamer: Dreamer | StateDreamer, adapt: Adapt | None) -> MakeImagine:
        """Raises PixeltrajError where what has no pictures is to adapt."""
        if isinstance(dreamer, Dreamer):
            parts = self.dreamer(dreamer)
            return AdaptiveImagineConfig(parts, self.adaptation(adapt)) if adapt else parts
        if adapt:
            raise PixeltrajError(f"{dreamer.name} knows no pictures and cannot adapt; leave out the adaptation")
        self._of_states(dreamer)
        return StateLevelImagine(self._folder(dreamer))

    def adaptation(self, adapt: Adapt) -> Adaptation:
        steps = min(Adaptation.steps, self.scale.finetune_steps)
        return Adaptation(indicator=adapt.indicator, drop=adapt.drop, every=self.scale.adapt_every, steps=steps)

    # Parts

    def data(self, data: Data, drawn: bool = False) -> Path:
        """The store. drawn: with its frames."""
        source = self._source(data)
        path = source if source and source.is_dir() else self.parts / "data" / data.name
        if source and source.suffix == ".hdf5":
            import_dataset(ImportConfig(data.task, str(source), "d4rl", path))
        elif path != source:
            policy = f"sb3:{source}" if source else "random" if self._pretended(data) else data.quality
            collect(CollectConfig(data.task, path, policy, self.episodes(data), max_steps=self.scale.max_steps))
        if drawn:
            render(RenderConfig(path))
        return path

    def episodes(self, data: Data) -> int:
        """Those of many tasks are as many for each."""
        return self.scale.episodes * len(getattr(get_task(data.task), "subtasks", [None]))

    def dreamer(self, dreamer: Dreamer) -> ImagineConfig:
        folder = self._folder(dreamer)
        learned, read = self.data(dreamer.learned, drawn=True), self.data(dreamer.read, drawn=True)
        lora, decoder, length = (folder / part for part in ("lora", "decoder", "length"))
        torch.set_flush_denormal(True)  # denormal gradients made steps ten times slower
        steps = self.scale.finetune_steps * (1 if learned == read else 2)
        tuning = FinetuneConfig(learned, lora, self.base, k=dreamer.k, steps=steps, prompt=dreamer.prompt)
        finetune(tuning)
        if not (decoder / DECODER_CONFIG).exists():
            reading = self.scale.decode_steps
            few = min(TrainConfig.scatter, reading // 5)
            asked = TrainConfig(read, decoder, self.base, lora, steps=reading, head_steps=reading, scatter=few)
            train(asked, draw_alike)
        estimated = len(dreamer.k) > 1 and tells_an_end(Store.open(read))
        if estimated and not (length / LENGTH_CONFIG).exists():
            train_length(LengthConfig(read, length, k=dreamer.k))
        # without an end that could be estimated, the longest: nothing has to be cut off
        chooser = length if estimated else None
        return ImagineConfig(decoder, lora, self.base, max(dreamer.k), chooser, actions=dreamer.actions)

    def expected_length(self, dreamer: Dreamer | StateDreamer) -> float:
        """L of Algorithm 1: the mean number of transitions in a preliminary run."""
        if isinstance(dreamer, StateDreamer):
            return mean_length(self._of_states(dreamer))
        alike = replace(dreamer, actions="read")  # actions make nothing longer
        return mean_length(self._imagined(alike, self.scale.preliminary, "preliminary"))

    def dreamt(self, part: Dreamt) -> Path:
        """At least `generated` transitions."""
        each = 1.0 if part.first else self.expected_length(part.dreamer)
        store = self._imagined(part.dreamer, int(np.ceil(self.scale.generated / each)), "trajectories")
        if not part.first:
            return store.path
        path = self.parts / "imagined" / part.name
        first_transitions(store, path)
        return path

    def sampled(self, part: Sampled) -> Path:
        out = self.parts / "sampled" / part.name
        source = self.data(part.learned)
        synthesize(SyntherCommand(store=source, out=out, n=self.scale.generated, steps=self.scale.synther_steps))
        return out

    def _of_states(self, dreamer: StateDreamer) -> Store:
        """Trains the model, and samples the preliminary run."""
        return sample_states(
            StateLevelCommand(
                store=self.data(dreamer.learned),
                out=self.parts / "imagined" / f"{dreamer.name}-preliminary",
                model=self._folder(dreamer),
                n=self.scale.preliminary,
                k=dreamer.k,
                condition=True,
                steps=self.scale.synther_steps,
                depth=self.scale.state_depth,
            )
        )

    def _folder(self, dreamer: Dreamer | StateDreamer) -> Path:
        return self.parts / "dreamers" / dreamer.name

    def _imagined(self, dreamer: Dreamer, n: int, what: str) -> Store:
        parts = self.dreamer(dreamer)
        out = self.parts / "imagined" / f"{dreamer.dreams}-{what}-{n}"
        source = self.data(dreamer.read, drawn=True)
        return imagine(ImagineCommand(**vars(parts), task=dreamer.read.task, source=source, out=out, n=n))[0]

    # The user's own

    def _pretended(self, data: Data) -> bool:
        """Whether a random policy stands in for data that is not there: nothing is meant to come of a smoke test."""
        return data.given and self.scale.name == "smoke" and not self._source(data)

    def _given(self, data: Data) -> bool:
        return data.given and not self._pretended(data)

    def _source(self, data: Data) -> Path | None:
        if not data.given or self.given is None:
            return None
        places = (self.given / f"{data.name}{suffix}" for suffix in ("", ".hdf5", ".zip"))
        return next((place for place in places if place.exists()), None)


def tells_an_end(store: Store) -> bool:
    """Whether an episode that is trained on ends by itself."""
    return any(store.trajectory(episode).terminations.any() for episode in store.split()[0])


def mean_length(store: Store) -> float:
    """Transitions of a trajectory. Raises PixeltrajError where there is none."""
    if not len(store):
        raise PixeltrajError(f"{store.path} is empty: nothing that was imagined could be used")
    return float(np.mean([episode["transitions"] for episode in store.episodes]))


def first_transitions(source: Store, out: Path) -> None:
    """A store of the first transition of each trajectory."""
    if out.exists():
        Store.open(out, source.task).require_episodes()
        return
    cut = [first_transition(trajectory) for trajectory in source]
    how = provenance(imagined=True, first_transitions_of=source.attributes["provenance"])
    beside = out.with_name(f"{out.name}.partial")
    shutil.rmtree(beside, ignore_errors=True)  # of an interrupted run
    Store.create(beside, source.task, how, {}).append(cut)
    beside.rename(out)


def first_transition(trajectory: Trajectory) -> Trajectory:
    """The first of its transitions; frames are left out."""
    return Trajectory(
        states=trajectory.states[:2],
        actions=trajectory.actions[:1],
        rewards=trajectory.rewards[:1],
        terminations=trajectory.terminations[:1],
        truncations=trajectory.truncations[:1],
        keypoints=trajectory.keypoints[:2],
        origin=trajectory.origin,
    )
