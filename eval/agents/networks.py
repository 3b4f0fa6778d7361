"""Networks of the agents: policies, ensembles of critics in one batched product a layer, and how all are initialised.

Every network takes `bf16`: it is then computed in bfloat16 (autocast); weights, outputs and losses stay float32.

Shapes: B batch, S state, A action, H hidden, N critics.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

LOG_STD_RANGE = (-5.0, 2.0)


class Actor(nn.Module):
    """A Gaussian over actions before their squashing; both its moments depend on the state."""

    def __init__(self, inputs: int, outputs: int, hidden: int, generator: torch.Generator, bf16: bool = False) -> None:
        super().__init__()
        self.network = mlp((inputs, hidden, hidden, 2 * outputs), generator)
        self.bf16 = bf16

    def forward(self, states: Tensor) -> tuple[Tensor, Tensor]:
        """states (..., S) -> mean (..., A), log of the deviation (..., A)"""
        with torch.autocast("cpu", torch.bfloat16, enabled=self.bf16):
            mean, log_std = self.network(states).float().chunk(2, dim=-1)
        low, high = LOG_STD_RANGE
        return mean, low + 0.5 * (high - low) * (log_std.tanh() + 1.0)


class Policy(nn.Module):
    """An action in (-1, 1) for each state, and a Gaussian around it whose deviation is the same everywhere."""

    def __init__(self, inputs: int, outputs: int, hidden: int, generator: torch.Generator, bf16: bool = False) -> None:
        super().__init__()
        self.network = mlp((inputs, hidden, hidden, outputs), generator)
        self.log_std = nn.Parameter(torch.zeros(outputs))
        self.bf16 = bf16

    def forward(self, states: Tensor) -> Tensor:
        """states (..., S) -> actions (..., A), the Gaussian's mean"""
        with torch.autocast("cpu", torch.bfloat16, enabled=self.bf16):
            return self.network(states).float().tanh()

    def deviation(self) -> Tensor:
        """(A,)"""
        return self.log_std.clamp(*LOG_STD_RANGE).exp()

    def log_probability(self, states: Tensor, actions: Tensor) -> Tensor:
        """-> (...,), the logarithm of the density of actions (..., A)."""
        deviation = self.deviation()
        errors = (actions - self(states)) / deviation
        return (-0.5 * errors.square() - deviation.log() - 0.5 * math.log(2 * math.pi)).sum(dim=-1)


class Critics(nn.Module):
    """N value functions side by side: one batched product a layer."""

    def __init__(
        self,
        count: int,
        inputs: int,
        hidden: int,
        generator: torch.Generator,
        layer_norm: bool = False,
        bf16: bool = False,
        layers: int = 2,
        activation: Callable[[Tensor], Tensor] = F.relu,
    ) -> None:
        """layers: how many are hidden"""
        super().__init__()
        sizes = list(pairwise((inputs, *[hidden] * layers, 1)))
        self.weights = nn.ParameterList(torch.empty(count, i, o) for i, o in sizes)
        self.biases = nn.ParameterList(torch.zeros(count, 1, o) for _, o in sizes)
        self.layer_norm, self.bf16, self.activation = layer_norm, bf16, activation
        for weight in self.weights:
            _initialise(weight, weight.shape[1], generator)

    def forward(self, states: Tensor, actions: Tensor) -> Tensor:
        """states (B, S), actions (B, A) -> values (N, B)"""
        with torch.autocast("cpu", torch.bfloat16, enabled=self.bf16):
            x = torch.cat([states, actions], dim=-1).expand(len(self.weights[0]), -1, -1)
            for weight, bias in list(zip(self.weights, self.biases))[:-1]:
                x = torch.baddbmm(bias, x, weight)
                x = self.activation(F.layer_norm(x, x.shape[-1:]) if self.layer_norm else x)
            return torch.baddbmm(self.biases[-1], x, self.weights[-1]).squeeze(-1).float()


def mlp(sizes: Sequence[int], generator: torch.Generator, activation: type[nn.Module] = nn.ReLU) -> nn.Sequential:
    """Linear layers from sizes[0] inputs to sizes[-1] outputs, the activation between them."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(sizes):
        layer = nn.Linear(inputs, outputs)
        _initialise(layer.weight, inputs, generator)
        nn.init.zeros_(layer.bias)
        layers += [layer, activation()]
    return nn.Sequential(*layers[:-1])


def sample(mean: Tensor, log_std: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """The Gaussian's moments (..., A) -> squashed actions (..., A) in (-1, 1), and the logarithm (...,) of their
    density."""
    noise = torch.randn(mean.shape, generator=generator)
    raw = mean + log_std.exp() * noise
    density = -0.5 * noise.square() - log_std - 0.5 * math.log(2 * math.pi)
    squash = 2.0 * (math.log(2.0) - raw - F.softplus(-2.0 * raw))  # log(1 - tanh²), stably
    return raw.tanh(), (density - squash).sum(dim=-1)


@contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """Gradients pass through the module, and none are kept for its own parameters."""
    for parameter in module.parameters():
        parameter.requires_grad_(False)
    yield
    for parameter in module.parameters():
        parameter.requires_grad_(True)


@torch.no_grad()
def follow(target: nn.Module, module: nn.Module, tau: float) -> None:
    """Move the target's parameters by tau towards the module's."""
    torch._foreach_lerp_(list(target.parameters()), list(module.parameters()), tau)


def _initialise(weight: Tensor, inputs: int, generator: torch.Generator) -> None:
    nn.init.uniform_(weight, -1 / math.sqrt(inputs), 1 / math.sqrt(inputs), generator=generator)
