"""torchrl's losses as agents, so that ours can be measured beside them: same sizes, same batches, same settings."""

from typing import Any

import numpy as np
import torch
from tensordict import TensorDict
from tensordict.nn import NormalParamExtractor, ProbabilisticTensorDictSequential, TensorDictModule
from torch import Tensor, nn
from torchrl.data import Bounded
from torchrl.modules import MLP, ProbabilisticActor, TanhNormal, ValueOperator
from torchrl.objectives import BCLoss, CQLLoss, IQLLoss, REDQLoss, SACLoss, SoftUpdate, TD3BCLoss

from pixeltraj.replay_buffer import Batch

HIDDEN = 256
LEARNING_RATE = 3e-4


class TorchRL:
    """One of torchrl's losses, an Adam, and target networks that follow by 0.005."""

    NAMES = ("sac", "redq", "td3_bc", "iql", "cql", "bc")

    def __init__(self, name: str, state_size: int, action_size: int, learning_rate: float = LEARNING_RATE) -> None:
        self.size = state_size, action_size
        self.loss = getattr(self, f"_{name}")()
        if name != "bc":
            self.loss.make_value_estimator(gamma=0.99)
            self.follow = SoftUpdate(self.loss, tau=0.005)
        self.optimizer = torch.optim.Adam(self.loss.parameters(), lr=learning_rate, fused=True)
        self.every = 2 if name == "td3_bc" else 1
        self.updates = 0

    def update(self, batch: Batch) -> dict[str, Tensor]:
        """One step of every network, the policy's every `every` steps. -> losses, scalars."""
        rows = as_tensordict(batch)
        self.updates += 1
        if self.every == 1:
            losses = self.loss(rows)
        else:  # the policy waits for its turn
            losses = {"loss_qvalue": self.loss.qvalue_loss(rows)[0]}
            if self.updates % self.every == 0:
                losses["loss_actor"] = self.loss.actor_loss(rows)[0]
        losses = {key: loss for key, loss in losses.items() if key.startswith("loss") and key != "loss_actor_bc"}
        self.optimizer.zero_grad()
        sum(losses.values()).backward()
        self.optimizer.step()
        if hasattr(self, "follow") and self.updates % self.every == 0:
            self.follow.step()
        return {key: loss.detach() for key, loss in losses.items()}

    @torch.no_grad()
    def act(self, states: np.ndarray, explore: bool) -> np.ndarray:
        """states (..., S) -> actions (..., A): the policy's mode, or a sample of it."""
        rows = TensorDict({"observation": torch.from_numpy(states)}, batch_size=states.shape[:-1])
        with self.loss.actor_network_params.to_module(self.loss.actor_network):
            module = self.loss.actor_network
            if isinstance(module, ProbabilisticTensorDictSequential):
                policy = module.get_dist(rows)
                return (policy.sample() if explore else policy.deterministic_sample).numpy()
            assert not explore
            return module(rows)["action"].numpy()

    # The losses, with the networks that they want

    def _sac(self) -> Any:
        return SACLoss(self._gaussian(), self._critic(), num_qvalue_nets=2, loss_function="l2")

    def _redq(self) -> Any:
        spec = Bounded(-1.0, 1.0, (self.size[1],))
        return REDQLoss(self._gaussian(), self._critic(), num_qvalue_nets=10, loss_function="l2", action_spec=spec)

    def _cql(self) -> Any:
        return CQLLoss(
            self._gaussian(),
            self._critic(),
            loss_function="l2",
            min_q_weight=5.0,
            action_spec=Bounded(-1.0, 1.0, (self.size[1],)),
        )

    def _td3_bc(self) -> Any:
        return TD3BCLoss(
            self._deterministic(), self._critic(), bounds=(-1.0, 1.0), loss_function="l2", action_spec=None
        )

    def _iql(self) -> Any:
        value = ValueOperator(self._mlp(self.size[0], 1), in_keys=["observation"])
        return IQLLoss(self._gaussian(), self._critic(), value, loss_function="l2", temperature=3.0, expectile=0.7)

    def _bc(self) -> Any:
        return BCLoss(self._deterministic(), loss_function="l2")

    def _mlp(self, inputs: int, outputs: int) -> nn.Module:
        return MLP(in_features=inputs, out_features=outputs, num_cells=[HIDDEN, HIDDEN], activation_class=nn.ReLU)

    def _critic(self) -> Any:
        return ValueOperator(self._mlp(sum(self.size), 1), in_keys=["observation", "action"])

    def _deterministic(self) -> Any:
        network = nn.Sequential(self._mlp(*self.size), nn.Tanh())
        return TensorDictModule(network, in_keys=["observation"], out_keys=["action"])

    def _gaussian(self) -> Any:
        network = nn.Sequential(self._mlp(self.size[0], 2 * self.size[1]), NormalParamExtractor())
        return ProbabilisticActor(
            TensorDictModule(network, in_keys=["observation"], out_keys=["loc", "scale"]),
            in_keys=["loc", "scale"],
            distribution_class=TanhNormal,
            distribution_kwargs={"low": -1.0, "high": 1.0},
            spec=Bounded(-1.0, 1.0, (self.size[1],)),
            return_log_prob=True,
        )


def as_tensordict(batch: Batch) -> TensorDict:
    """torchrl's names; nothing is truncated, so that done and terminated are the same."""
    rewards, ends = (torch.from_numpy(column)[:, None] for column in (batch.rewards, batch.terminations))
    after = {"observation": torch.from_numpy(batch.next_states), "reward": rewards, "done": ends, "terminated": ends}
    states, actions = torch.from_numpy(batch.states), torch.from_numpy(batch.actions)
    return TensorDict({"observation": states, "action": actions, "next": after}, batch_size=[len(states)])
