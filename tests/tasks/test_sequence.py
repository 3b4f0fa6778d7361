"""Several Meta-World tasks behind one environment: drawn at reset, or one after the other."""

from pathlib import Path

import numpy as np
import pytest
import torch

from pixeltraj.base import Base
from pixeltraj.cli.starts import RESETS_FROM, ResetStarts
from pixeltraj.errors import PixeltrajError
from pixeltraj.finetune.conditions import Conditions
from pixeltraj.generator import Generator
from pixeltraj.render.collect import CollectConfig, collect
from pixeltraj.tasks import get_task
from pixeltraj.tasks.multitask import EVALUATION, TRAINING, MultitaskSimulator
from pixeltraj.tasks.sequence import SUBTASKS, SequenceSimulator


@pytest.fixture(scope="module")
def sequence() -> SequenceSimulator:
    return get_task("sequence-v0").make()


@pytest.fixture(scope="module")
def multitask() -> MultitaskSimulator:
    return get_task("multitask-v0").make()


def until_paid(simulator: SequenceSimulator, rng: np.random.Generator) -> tuple[np.ndarray, float, bool, bool, dict]:
    """Steps to the first reward, and what that step gave."""
    while True:
        outcome = simulator.step(simulator.scripted_action() + 0.1 * rng.standard_normal(4))
        if outcome[1] or outcome[2] or outcome[3]:
            return outcome


def test_each_success_pays_once_and_leads_to_the_next_subtasks_start(sequence: SequenceSimulator) -> None:
    rng, paid = np.random.default_rng(0), 0.0
    state, info = sequence.reset(seed=0)
    assert (info["task"], info["completed"]) == ("sweep-v3", 0)
    for index, name in enumerate(SUBTASKS):
        assert sequence.task.subtask(state).name == name
        np.testing.assert_array_equal(state[17:], np.eye(8)[index])
        assert sequence.model is sequence.current.model
        state, reward, terminated, truncated, info = until_paid(sequence, rng)
        assert (reward, info["completed"], truncated) == (1.0, index + 1, False)
        assert terminated == info["success"] == (name == SUBTASKS[-1])
        if not terminated:  # a start: nothing has moved yet
            np.testing.assert_array_equal(state[:7], state[7:14])
            assert info["task"] == SUBTASKS[index + 1]
        paid += reward
    assert sequence.task.returns == (0.0, paid) and get_task("push-v3").returns == (0.0, 1.0)
    assert get_task("Hopper-v5").returns is None


def test_one_seed_fixes_all_starts_and_a_snapshot_carries_them_over(sequence: SequenceSimulator) -> None:
    rng = np.random.default_rng(3)
    sequence.reset(seed=0, options={"task": "sweep-into-v3"})
    for _ in range(20):
        sequence.step(sequence.scripted_action())
    snapshot, rng_state = sequence.snapshot(), rng.bit_generator.state
    expected = until_paid(sequence, rng)
    assert expected[4]["task"] == "coffee-push-v3"
    other = get_task("sequence-v0").make()
    other.reset(seed=9)
    rng.bit_generator.state = rng_state
    other.restore(snapshot)
    np.testing.assert_array_equal(other.snapshot(), snapshot)
    np.testing.assert_array_equal(until_paid(other, rng)[0], expected[0])


def test_states_are_read_within_a_subtask_and_set(sequence: SequenceSimulator) -> None:
    states, keypoints, snapshots = [sequence.reset(seed=1)[0]], [sequence.keypoints()], [sequence.snapshot()]
    for _ in range(20):
        states.append(sequence.step(sequence.scripted_action())[0])
        keypoints.append(sequence.keypoints())
        snapshots.append(sequence.snapshot())
    read = sequence.task.state_from_keypoints(np.array(keypoints)[None], states[0][None])[0]
    np.testing.assert_allclose(read, states, atol=1e-5)
    sequence.set_state(states[12], near=snapshots[10])
    np.testing.assert_allclose(sequence.state(), states[12], atol=2e-3)
    sequence.reset(seed=1, options={"task": "soccer-v3"})
    with pytest.raises(PixeltrajError, match="the snapshot near it is not"):
        sequence.set_state(states[12], near=sequence.snapshot())


def test_a_reset_draws_one_of_fourteen_tasks_and_says_which(multitask: MultitaskSimulator) -> None:
    assert len(set(TRAINING)) == 14 and EVALUATION not in TRAINING and set(SUBTASKS) <= set(TRAINING)
    drawn = [multitask.reset(seed=seed)[1] for seed in range(12)]
    assert len({info["task"] for info in drawn}) > 4
    assert all(TRAINING[int(np.argmax(info["one_hot"]))] == info["task"] for info in drawn)
    state, info = multitask.reset(seed=3, options={"task": "soccer-v3"})
    alone, _ = get_task("soccer-v3").make().reset(seed=3)
    np.testing.assert_array_equal(state, alone)
    assert info["task"] == "soccer-v3"
    with pytest.raises(PixeltrajError, match="has no task 'push-v3'"):
        multitask.reset(options={"task": "push-v3"})


def test_multitask_snapshots_are_of_one_length_and_bring_their_task_along(multitask: MultitaskSimulator) -> None:
    multitask.reset(seed=0, options={"task": "basketball-v3"})
    state, _, _, _, info = multitask.step(multitask.scripted_action())
    snapshot = multitask.snapshot()
    multitask.reset(seed=1, options={"task": "sweep-v3"})
    assert multitask.snapshot().shape == snapshot.shape == (sum(multitask.snapshot_layout.values()),)
    multitask.restore(snapshot)
    np.testing.assert_array_equal(multitask.state(), state)
    np.testing.assert_array_equal(multitask.snapshot(), snapshot)
    assert info["task"] == "basketball-v3"


def test_each_frame_of_a_store_of_several_tasks_is_told_its_own(multitask: MultitaskSimulator, tmp_path: Path) -> None:
    store = collect(CollectConfig("multitask-v0", tmp_path / "store", episodes=3, max_steps=4))
    named = [multitask.reset(seed=seed)[1]["task"] for seed in range(3)]
    assert len(set(named)) > 1
    wanted = [get_task(name).prompt for name in named for _ in range(5)]
    assert store.prompts(np.arange(15)) == wanted
    assert store.prompts(np.array([12, 1])) == [wanted[12], wanted[1]]
    generator = Generator.load(Base.load(), k=5)
    conditions = Conditions([store], generator)
    assert conditions.unique == ["", *sorted(set(wanted))]
    words = conditions.embed(generator, np.array([0, 14]), np.array([True, True]), stated=False)
    assert torch.equal(words, generator.embed([wanted[0], wanted[14]]))


def test_imagination_is_told_the_task_of_the_snapshot(multitask: MultitaskSimulator) -> None:
    task = multitask.task
    state, _ = multitask.reset(seed=0, options={"task": "soccer-v3"})
    assert task.prompt_of(state, multitask.snapshot()) == get_task("soccer-v3").prompt
    assert task.prompt_of(state) == task.prompt
    assert {task.prompt, get_task("soccer-v3").prompt} < set(task.prompts)
    starts, _ = ResetStarts(task, 0, None)(0, 2)
    drawn = [multitask.reset(seed=RESETS_FROM + i)[1]["task"] for i in range(2)]
    assert [start.prompt for start in starts] == [get_task(name).prompt for name in drawn]
