"""All agents by name, each with the dataclass that configures it: the field's published defaults."""

from typing import Any

import torch

from pixeltraj.errors import PixeltrajError
from pixeltraj.eval.agents.agent import Agent
from pixeltraj.eval.agents.bc import BC, BCConfig
from pixeltraj.eval.agents.bc_pixels import BCPixels, BCPixelsConfig
from pixeltraj.eval.agents.cql import CQL, CQLConfig
from pixeltraj.eval.agents.diffusion_ql import DiffusionQL, DiffusionQLConfig
from pixeltraj.eval.agents.iql import IQL, IQLConfig
from pixeltraj.eval.agents.parrot import PARROT, PARROTConfig
from pixeltraj.eval.agents.redq import REDQ, REDQConfig
from pixeltraj.eval.agents.rlpd import RLPD, RLPDConfig
from pixeltraj.eval.agents.sac import SAC, SACConfig
from pixeltraj.eval.agents.spirl import SPiRL, SPiRLConfig
from pixeltraj.eval.agents.td3_bc import TD3BC, TD3BCConfig
from pixeltraj.replay_buffer import Batch

AGENTS: dict[str, tuple[type[Any], type[Any]]] = {
    "sac": (SAC, SACConfig),
    "redq": (REDQ, REDQConfig),
    "rlpd": (RLPD, RLPDConfig),
    "spirl": (SPiRL, SPiRLConfig),
    "parrot": (PARROT, PARROTConfig),
    "td3_bc": (TD3BC, TD3BCConfig),
    "iql": (IQL, IQLConfig),
    "cql": (CQL, CQLConfig),
    "diffusion_ql": (DiffusionQL, DiffusionQLConfig),
    "bc": (BC, BCConfig),
    "bc_pixels": (BCPixels, BCPixelsConfig),
}


def sees(name: str) -> bool:
    """Whether the agent learns from frames: `agent.Seeing`."""
    return hasattr(AGENTS[name][0], "see")


OF_STATES = tuple(name for name in AGENTS if not sees(name))
"""The others."""


def make_agent(
    name: str,
    offline: Batch,
    generator: torch.Generator,
    config: Any = None,
    value_range: tuple[float, float] | None = None,
) -> Agent:
    """A new agent.

    offline: gives the sizes, and the normalisation of states; `agent.no_data` where there is none.
    generator: all randomness of the agent. config: of the agent's own kind; its defaults if not given.
    value_range: bounds of what returns can be; (0, 1) where the reward is sparse.
    Raises PixeltrajError for a name or a config that does not fit.
    """
    if name not in AGENTS:
        raise PixeltrajError(f"there is no agent {name!r}; choose one of {', '.join(AGENTS)}")
    kind, config_kind = AGENTS[name]
    config = config_kind() if config is None else config
    if type(config) is not config_kind:
        raise PixeltrajError(f"the agent {name} takes a {config_kind.__name__}, not a {type(config).__name__}")
    return kind(config, offline, generator, value_range)
