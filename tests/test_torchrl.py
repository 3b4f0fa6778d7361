"""torchrl's own collector and loss, with a replay buffer between them that imagines."""

import importlib
import io
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from tensordict import TensorDict
from tensordict.nn import TensorDictModule
from torchrl.collectors import Collector
from torchrl.envs import EnvBase
from torchrl.modules import MLP, NormalParamExtractor, ProbabilisticActor, TanhNormal, ValueOperator
from torchrl.objectives import SACLoss, SoftUpdate
from torchrl.trainers.trainers import ReplayBufferTrainer

import pixeltraj.environments
from pixeltraj.errors import PixeltrajError
from pixeltraj.tasks import get_task
from pixeltraj.torchrl import KEYS, ImaginedReplayBuffer, wrap

TASK = get_task("HalfCheetah-v5")
S, A = TASK.state_size, TASK.action_size


@pytest.fixture
def oracle(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    return importlib.import_module("oracle").Oracle


def environment(**options: Any) -> EnvBase:
    return wrap(gymnasium.make(f"{pixeltraj.environments.NAMESPACE}/{TASK.name}", **options))


def make(imagination: Any, **options: Any) -> ImaginedReplayBuffer:
    return ImaginedReplayBuffer(1000, imagination, TASK, **{"batch_size": 32, "imagine_batch": 4, "seed": 0} | options)


def collect(buffer: ImaginedReplayBuffer, frames: int = 100, policy: Any = None, **options: Any) -> TensorDict:
    """Fill the buffer by torchrl's collector -> all that it brought."""
    env = environment(**options)
    env.set_seed(0)
    collector = Collector(env, policy, frames_per_batch=20, total_frames=frames, auto_register_policy_transforms=False)
    brought = []
    for data in collector:
        buffer.extend(data)
        brought.append(data.clone())
    collector.shutdown()
    return torch.cat(brought)


def test_sac_learns_in_torchrls_own_loop(oracle: Any) -> None:
    torch.manual_seed(0)
    env = environment()
    net = torch.nn.Sequential(MLP(in_features=S, out_features=2 * A, num_cells=[16]), NormalParamExtractor())
    module = TensorDictModule(net, in_keys=["observation"], out_keys=["loc", "scale"])
    keys = ["loc", "scale"]
    actor = ProbabilisticActor(module, in_keys=keys, spec=env.action_spec, distribution_class=TanhNormal)
    value = ValueOperator(MLP(in_features=S + A, out_features=1, num_cells=[16]), in_keys=["observation", "action"])
    loss = SACLoss(actor, value)
    loss.make_value_estimator(gamma=0.99)
    target, optimizer = SoftUpdate(loss, tau=0.005), torch.optim.Adam(loss.parameters(), 1e-3)
    before = [p.clone() for p in loss.parameters()]
    buffer = make(oracle())
    for data in Collector(env, actor, frames_per_batch=20, total_frames=100, auto_register_policy_transforms=False):
        buffer.extend(data)
        for _ in range(5):
            losses = loss(buffer.sample())
            total = losses["loss_actor"] + losses["loss_qvalue"] + losses["loss_alpha"]
            optimizer.zero_grad()
            total.backward()
            optimizer.step()
            target.step()
    assert torch.isfinite(total) and any(not torch.equal(a, b) for a, b in zip(before, loss.parameters()))
    told = buffer.imagined.statistics()
    assert len(buffer) == 100 and told["transitions"] == 4 * told["received"] > 0 and 0 < told["share"] < 1


def test_own_and_imagined_transitions_come_whole_and_in_proportion(oracle: Any) -> None:
    buffer, n = make(oracle(), rho=0.3), 4000
    brought = collect(buffer)
    batch = buffer.sample(n)
    imagined = batch["imagined"][:, 0]
    assert set(batch.keys(include_nested=True, leaves_only=True)) == {*KEYS, "imagined"}
    assert abs(int(imagined.sum()) - 0.3 * n) < 5 * np.sqrt(n * 0.3 * 0.7)
    dreams = {
        k: torch.from_numpy(v[: len(buffer.imagined.imagined)]) for k, v in buffer.imagined.imagined.columns.items()
    }
    own = {key: brought[key] for key in KEYS}
    theirs = (dreams[k] for k in ("states", "actions", "next_states", "rewards", "terminations", "terminations"))
    made = {key: value.reshape(len(value), -1) for key, value in zip(KEYS, theirs)}
    for part, mine in ((own, batch[~imagined]), (made, batch[imagined])):
        rows = (mine["action"][:, None] == part["action"]).all(2).int().argmax(1)
        for key in KEYS:
            assert torch.equal(mine[key], part[key][rows]) and mine[key].dtype == own[key].dtype, key
    starts = dreams["states"][::4]
    assert (starts[:, None] == brought["next", "observation"]).all(2).any(1).all()


def test_what_is_imagined_ages_and_has_its_own_capacity(oracle: Any) -> None:
    buffer = make(oracle(), imagined_capacity=50, max_age=1)
    collect(buffer)
    part = buffer.imagined
    assert part.imagined.capacity == 50 and part.imagined.appended > 50 > len(part.imagined)


def test_where_time_is_up_imagination_sets_out_from_the_last_state(oracle: Any) -> None:
    """The collector has reset the environment by then: the oracle sees to it that snapshots fit states."""
    buffer = make(oracle(), rho=0.8, expected_length=1.0, imagine_batch=1)
    brought = collect(buffer, 40, max_episode_steps=5)
    last = brought["next", "observation"][brought["next", "truncated"][:, 0]]
    starts = torch.from_numpy(buffer.imagined.imagined.columns["states"])
    assert len(last) == 8 and (last[:, None] == starts).all(2).any(1).all()


def test_a_run_goes_on_exactly_where_it_was(oracle: Any) -> None:
    buffer, again = make(oracle()), make(oracle(), seed=1)
    collect(buffer)
    file = io.BytesIO()
    torch.save(buffer.state_dict(), file)
    file.seek(0)
    again.load_state_dict(torch.load(file, weights_only=True))
    policy = TensorDictModule(lambda observation: observation[..., :A].tanh(), ["observation"], ["action"])
    for one in (buffer, again):
        collect(one, 40, policy)
    torch.manual_seed(0)
    first = buffer.sample(64)
    torch.manual_seed(0)
    assert (first == again.sample(64)).all() and first["imagined"].any()
    assert again.imagined.requested == buffer.imagined.requested


def test_torchrls_trainer_takes_it(oracle: Any) -> None:
    buffer = make(oracle())
    hook = ReplayBufferTrainer(buffer, batch_size=16, flatten_tensordicts=True)
    batch = collect(make(None), 80)
    hook.extend(batch.reshape(4, 20))
    assert hook.sample(batch).shape == (16,) and next(iter(buffer)).shape == (32,)
    hook.load_state_dict(hook.state_dict())
    buffer.add(batch[0])
    assert len(buffer) == 81
    buffer.empty()
    assert len(buffer) == len(buffer.imagined.imagined) == 0


def test_it_goes_on_where_nothing_is_imagined(oracle: Any) -> None:
    buffer = make(oracle(per_state=0))
    with pytest.warns(UserWarning, match="goes on with its own"):
        collect(buffer)
    assert not buffer.sample()["imagined"].any()


def test_what_does_not_fit_is_refused(oracle: Any) -> None:
    with pytest.raises(PixeltrajError, match=r"rho is 1.0"):
        make(oracle(), rho=1.0)
    with pytest.raises(PixeltrajError, match="did you mean"):
        ImaginedReplayBuffer(10, oracle(), "HalfCheetah-v4")
    with pytest.raises(PixeltrajError, match=r"use gymnasium.make\('pixeltraj/TASK'\)"):
        wrap(gymnasium.make("HalfCheetah-v5"))
    buffer = make(oracle(), batch_size=None)
    with pytest.raises(PixeltrajError, match="give batch_size"):
        buffer.sample()
    with pytest.raises(PixeltrajError, match="is empty"):
        buffer.sample(4)
    data = collect(make(None), 20)
    with pytest.raises(PixeltrajError, match="no action"):
        buffer.extend(data.exclude("action"))
    with pytest.raises(PixeltrajError, match=r"observation \(5,\), HalfCheetah-v5 has \(17,\)"):
        buffer.extend(data.clone().set("observation", torch.zeros(20, 5)))
    with pytest.raises(PixeltrajError, match="infos have no `snapshot`"):
        buffer.extend(data.exclude(("next", "snapshot")))
