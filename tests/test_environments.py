"""Every task is a Gymnasium environment."""

import subprocess
import sys

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from pixeltraj.environments import NAMESPACE, Snapshots, register
from pixeltraj.errors import PixeltrajError
from pixeltraj.simulator import Simulator
from pixeltraj.tasks import TASKS


@pytest.mark.parametrize("name", ["push-v3", "sequence-v0", "multitask-v0", "HalfCheetah-v5"])
def test_environments_keep_gymnasiums_rules(name: str) -> None:
    environment = gymnasium.make(f"{NAMESPACE}/{name}")
    assert isinstance(environment.unwrapped, Simulator) and environment.unwrapped.task is TASKS[name]
    check_env(environment.unwrapped, skip_render_check=True)
    first, second = environment.reset(seed=3)[0], environment.reset(seed=3)[0]
    np.testing.assert_array_equal(first, second)
    assert environment.observation_space.contains(first)
    environment.close()


def test_every_task_is_registered_once() -> None:
    before = dict(gymnasium.registry)
    assert {f"{NAMESPACE}/{name}" for name in TASKS} <= set(before)
    register()
    assert gymnasium.registry == before


def test_vectors_of_environments_step_together() -> None:
    environments = gymnasium.make_vec(f"{NAMESPACE}/push-v3", num_envs=2, vectorization_mode="sync")
    states, _ = environments.reset(seed=0)
    assert states.shape == (2, 17) and not np.array_equal(states[0], states[1])
    assert environments.step(environments.action_space.sample())[0].shape == (2, 17)
    environments.close()


def test_one_line_is_enough_in_a_fresh_process_and_nothing_registers_unasked() -> None:
    code = (
        "import gymnasium, pixeltraj.tasks\n"
        "assert not any('pixeltraj' in name for name in gymnasium.registry)\n"
        "gymnasium.make('pixeltraj.environments:pixeltraj/push-v3').reset(seed=0)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_info_has_the_simulators_state_of_its_moment() -> None:
    environment = gymnasium.make(f"{NAMESPACE}/HalfCheetah-v5", max_episode_steps=3)
    simulator = environment.unwrapped
    assert isinstance(simulator, Simulator)
    state, info = environment.reset(seed=0)
    for _ in range(3):
        np.testing.assert_array_equal(info["snapshot"], simulator.snapshot())
        state, _, _, truncated, info = environment.step(environment.action_space.sample())
    assert truncated
    simulator.restore(info["snapshot"])
    np.testing.assert_array_equal(simulator.state(), state)
    environment.close()
    with pytest.raises(PixeltrajError, match="none of pixeltraj's"):
        Snapshots(gymnasium.make("HalfCheetah-v5"))


def test_unknown_names_are_refused() -> None:
    from pixeltraj.environments import make

    with pytest.raises(PixeltrajError, match="did you mean"):
        make("push-v2")
