"""stable-baselines3's and sb3-contrib's own agents, unchanged, learn from a buffer that imagines."""

import importlib
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from sb3_contrib import TQC, CrossQ
from stable_baselines3 import SAC, TD3
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.vec_env import SubprocVecEnv, VecNormalize
from stable_baselines3.her import HerReplayBuffer

import pixeltraj.environments
from pixeltraj.background import BackgroundConfig, BackgroundImagination
from pixeltraj.errors import PixeltrajError
from pixeltraj.stable_baselines3 import ImaginedReplayBuffer, ReportImagination
from pixeltraj.tasks import get_task
from pixeltraj.trajectory import Trajectory

HERE = Path(__file__).parent
TASK = get_task("HalfCheetah-v5")
ID = "pixeltraj/HalfCheetah-v5"
S, A = TASK.state_size, TASK.action_size
BOX = spaces.Box(-np.inf, np.inf, (S,), np.float32), spaces.Box(-1, 1, (A,), np.float32)


@pytest.fixture
def oracle(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(HERE))
    return importlib.import_module("oracle").Oracle


def make(agent: type[OffPolicyAlgorithm], env: Any, imagination: Any, **options: Any) -> Any:
    buffer = {"imagination": imagination, "task": TASK, "imagine_batch": 4} | options
    return agent(
        "MlpPolicy",
        env,
        buffer_size=1000,
        learning_starts=40,
        batch_size=32,
        replay_buffer_class=ImaginedReplayBuffer,
        replay_buffer_kwargs=buffer,
        policy_kwargs={"net_arch": [16]},
        device="cpu",
        seed=0,
    )


def rows_of(wanted: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """(n,) bool: which of the wanted rows (n, S) are among rows (m, S)."""
    return (wanted[:, None] == rows[None]).all(2).any(1)


@pytest.mark.parametrize("agent", [SAC, TD3, TQC, CrossQ])
def test_agents_learn_unchanged(agent: type[OffPolicyAlgorithm], oracle: Any) -> None:
    model = make(agent, ID, oracle())
    before = [p.clone() for p in model.policy.parameters()]
    model.learn(120, callback=ReportImagination())
    buffer = model.replay_buffer
    part = buffer.imagined
    assert abs(part.requested - 120 / 4) < 5 * np.sqrt(120 / 4) and 0 <= part.requested - part.received < 4
    imagined, own = part.imagined.columns, buffer.next_observations[:120, 0]
    assert rows_of(imagined["states"][: len(part.imagined) : 4], own).all()
    assert any(not torch.equal(a, b) for a, b in zip(before, model.policy.parameters()))
    logged = model.logger.name_to_value
    assert logged["imagination/transitions"] == len(part.imagined) == 4 * part.received
    assert 0 < logged["imagination/share"] < 1


def test_each_transition_is_imagined_with_probability_rho_and_stays_whole(oracle: Any) -> None:
    model = make(SAC, ID, oracle(), rho=0.3)
    model.learn(100)
    buffer, n = model.replay_buffer, 4000
    batch = buffer.sample(n)
    dreams = buffer.imagined.imagined.columns
    imagined = ~rows_of(batch.actions.numpy(), buffer.actions[:100, 0])  # states may be in both: dreams begin in them
    assert abs(imagined.sum() - 0.3 * n) < 5 * np.sqrt(n * 0.3 * 0.7)
    for field, name in (("observations", "states"), ("next_observations", "next_states"), ("actions", "actions")):
        assert rows_of(getattr(batch, field).numpy()[imagined], dreams[name][: len(buffer.imagined.imagined)]).all()
    place = {tuple(state): i for i, state in enumerate(dreams["states"])}
    rows = [place[tuple(state)] for state in batch.observations.numpy()[imagined]]
    np.testing.assert_array_equal(batch.next_observations.numpy()[imagined], dreams["next_states"][rows])
    np.testing.assert_array_equal(batch.rewards.numpy()[imagined, 0], dreams["rewards"][rows])
    assert all(column.dtype == torch.float32 for column in batch[:5])


def test_what_was_imagined_long_ago_is_drawn_no_more(oracle: Any) -> None:
    model = make(SAC, ID, oracle(), max_age=100, imagined_capacity=400)
    model.learn(200)
    part, own = model.replay_buffer.imagined, model.replay_buffer.next_observations[:200, 0]
    assert part.imagined.capacity == 400 and part.statistics()["length"] == 4.0
    starts = part.imagined.columns["states"]
    old = rows_of(starts, own[:60])
    drawn = part.draw(2000).states
    assert old.any() and not rows_of(drawn, starts[old]).any()
    assert rows_of(drawn, own[100:]).any()


def test_the_agents_seed_fixes_all_of_it(oracle: Any) -> None:
    one, again = (make(SAC, ID, oracle()).learn(80) for _ in range(2))
    for a, b in zip(one.policy.parameters(), again.policy.parameters()):
        assert torch.equal(a, b)
    for name, column in one.replay_buffer.imagined.imagined.columns.items():
        np.testing.assert_array_equal(column, again.replay_buffer.imagined.imagined.columns[name])


def test_vectors_of_environments_and_their_normalisation(oracle: Any) -> None:
    """Two processes, whose episodes end by time after five steps: the oracle sees to it that snapshots fit states."""
    where = "pixeltraj.environments:" + ID
    vector = make_vec_env(where, 2, env_kwargs={"max_episode_steps": 5}, vec_env_cls=SubprocVecEnv, seed=0)
    env = VecNormalize(vector)
    model = make(SAC, env, oracle(), rho=0.6, expected_length=1.0, imagine_batch=1)
    model.learn(60)
    buffer = model.replay_buffer
    assert buffer.dones.sum() == buffer.timeouts.sum() == 12
    last = buffer.next_observations[:30][buffer.timeouts[:30] > 0]
    assert rows_of(last, buffer.imagined.imagined.columns["states"]).all()  # time was up, but the state has a value
    assert not buffer.imagined.own.columns["terminations"].any()
    torch.manual_seed(0)
    raw = buffer.imagined.imagined.columns
    batch = buffer.sample(64, env)
    assert not batch.dones.any()
    assert rows_of(batch.observations.numpy(), env.normalize_obs(raw["states"])).sum() > 10
    assert np.isin(batch.rewards.numpy()[:, 0], env.normalize_reward(raw["rewards"])).sum() > 10
    env.close()


def test_a_saved_agent_goes_on_imagining(oracle: Any, tmp_path: Path) -> None:
    model = make(SAC, ID, oracle()).learn(80)
    model.save(tmp_path / "agent")
    model.save_replay_buffer(tmp_path / "buffer")
    again = SAC.load(tmp_path / "agent", env=gymnasium.make(ID), device="cpu")
    again.load_replay_buffer(tmp_path / "buffer")
    part, before = again.replay_buffer.imagined, model.replay_buffer.imagined
    assert (part.requested, part.received, len(part.imagined)) == (before.requested, before.received, 4 * part.received)
    again.learn(80, reset_num_timesteps=False)
    assert part.received > before.received and len(part.imagined) == 4 * part.received


def test_what_cannot_be_saved_is_set_again(oracle: Any, tmp_path: Path) -> None:
    model = make(SAC, ID, oracle()(TASK)).learn(20)
    model.save_replay_buffer(tmp_path / "buffer")
    model.load_replay_buffer(tmp_path / "buffer")
    with pytest.warns(UserWarning, match="set it again"):
        model.learn(30)
    received = model.replay_buffer.imagined.received
    model.replay_buffer.imagined.imagination = oracle()
    model.learn(30)
    assert model.replay_buffer.imagined.received > received


def test_imagination_in_the_background(oracle: Any, tmp_path: Path) -> None:
    with BackgroundImagination(oracle(), TASK, BackgroundConfig(wait=True)) as imagination:
        model = make(TD3, ID, imagination).learn(60, callback=ReportImagination())
        model.save(tmp_path / "agent")
        told = model.replay_buffer.imagined.statistics()
        assert told["received"] > 0 and 0 < told["worker_share"] < 1 and told["stale"] == 0
    same = make(TD3, ID, oracle()).learn(60)
    for a, b in zip(model.policy.parameters(), same.policy.parameters()):
        assert torch.equal(a, b)


def test_an_agent_goes_on_where_nothing_is_imagined(oracle: Any) -> None:
    model = make(SAC, ID, oracle(per_state=0))
    with pytest.warns(UserWarning, match="nothing came from 4 states"):
        model.learn(60)
    assert model.replay_buffer.sample(32).observations.shape == (32, S)
    ordinary = make(SAC, ID, None).learn(60)
    assert ordinary.replay_buffer.imagined.requested == 0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"rho": 1.0}, "rho is 1.0"),
        ({"rho": -0.1}, "rho is -0.1"),
        ({"observation_space": spaces.Box(-1, 1, (39,), np.float32)}, "observations of 39 .* HalfCheetah-v5 has 17"),
        ({"action_space": spaces.Box(-1, 1, (4,), np.float32)}, "actions of 4"),
        ({"action_space": spaces.Discrete(4)}, "actions are Discrete"),
        (
            {"observation_space": spaces.Dict({"observation": BOX[0], "desired_goal": BOX[0]})},
            "neither HerReplayBuffer",
        ),
        ({"observation_space": spaces.Box(0, 255, (84, 84, 3), np.uint8)}, "nor images"),
        ({"task": None}, "name it: task="),
        ({"task": "HalfCheetah"}, "did you mean"),
    ],
)
def test_what_does_not_fit_is_refused(oracle: Any, change: dict[str, Any], words: str) -> None:
    arguments = {"observation_space": BOX[0], "action_space": BOX[1], "imagination": oracle(), "task": TASK} | change
    with pytest.raises(PixeltrajError, match=words):
        ImaginedReplayBuffer(100, device="cpu", **arguments)


def test_hindsight_is_refused(oracle: Any) -> None:
    class Both(ImaginedReplayBuffer, HerReplayBuffer):
        pass

    with pytest.raises(PixeltrajError, match="neither HerReplayBuffer"):
        Both(100, spaces.Dict({"observation": BOX[0]}), BOX[1], imagination=oracle(), task=TASK)


def test_an_environment_without_snapshots_and_an_imagination_of_another_task_are_refused(oracle: Any) -> None:
    with pytest.raises(PixeltrajError, match="infos have no `snapshot`"):
        make(SAC, TASK.make(), oracle()).learn(5)
    hopper = get_task("Hopper-v5")

    def of_another_task(states: np.ndarray, snapshots: np.ndarray, seed: int) -> list[Trajectory]:
        simulator = hopper.make()
        start, _ = simulator.reset(seed=seed)
        return [oracle()(hopper).trajectory(start, simulator.snapshot(), np.random.default_rng(seed)) for _ in states]

    model = make(SAC, pixeltraj.environments.Snapshots(TASK.make()), of_another_task, rho=0.8)
    with pytest.raises(PixeltrajError, match=r"states and actions of \(11, 3\), the environment's are \(17, 6\)"):
        model.learn(30)


def test_a_reset_forgets_both_parts(oracle: Any) -> None:
    model = make(SAC, ID, oracle()).learn(60)
    model.replay_buffer.reset()
    assert model.replay_buffer.size() == len(model.replay_buffer.imagined.imagined) == 0
    model.learn(60)
    assert len(model.replay_buffer.imagined.imagined) > 0
