"""`pixeltraj eval TASK --store STORE --out DIR --decoder DIR`"""

from dataclasses import dataclass, field
from pathlib import Path

from pixeltraj.cli.adaptation import Adaptation, AdaptiveImagineConfig
from pixeltraj.cli.imagination import ImagineConfig
from pixeltraj.decode.decoder import Actions
from pixeltraj.decode.own_reward import Rewards
from pixeltraj.errors import PixeltrajError
from pixeltraj.eval.experiment import EvalConfig
from pixeltraj.eval.experiment import run as run_experiment
from pixeltraj.keep import ALL, Keep
from pixeltraj.tasks import get_task


@dataclass(frozen=True, kw_only=True)
class Config(EvalConfig):
    decoder: Path | None = None
    """Folder that `pixeltraj decode train` wrote; not needed for the arm without imagination."""
    lora: Path | None = None
    """Folder that fine-tuning wrote; the base alone if not given."""
    base: str | None = None
    """A diffusers folder, single file or hub id; the embedded base if not given."""
    k: int | None = None
    """Frames in an image, one of those that the generator was trained for; the least of them if not given."""
    keep: Keep = ALL
    """What is kept of what is imagined; all of it if nothing is said."""
    rewards: Rewards = "learned"
    """Where rewards and ends come from. task: its own function of decoded states and actions, not learned."""
    actions: Actions = "sampled"
    """Where actions come from. sampled: what the store's agent would have done between the decoded states, from a
    diffusion model; read: off the pictures, as in the paper. Agents that clone learn more from sampled ones."""
    adapt: Adaptation = field(default_factory=Adaptation)
    """How the generator learns on from what the agent lives through; with an indicator of none it does not."""


def run(config: Config) -> None:
    if "with" in config.arms and config.decoder is None:
        raise PixeltrajError("the arm with imagination needs --decoder DIR (`pixeltraj decode train` makes one)")
    make: ImagineConfig | AdaptiveImagineConfig | None = None
    if config.decoder:
        models = config.decoder, config.lora, config.base, config.k
        make = ImagineConfig(*models, keep=config.keep, rewards=config.rewards, actions=config.actions)
        if config.adapt.indicator != "none":
            make = AdaptiveImagineConfig(make, config.adapt)
    experiment = config.experiment(make)
    if make:
        make(get_task(config.task)).close()  # parts that do not fit are reported here, before any run starts
    run_experiment(experiment)
    print((config.out / "table.md").read_text())
