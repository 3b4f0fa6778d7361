"""The cycle check: true states look like their frames, wrong ones do not, and impossible ones are never drawn."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from pixeltraj.decode.cycle import cycle_mismatch, mismatch
from pixeltraj.decode.one_step import one_step_errors
from pixeltraj.errors import PixeltrajError
from pixeltraj.render.backends import open_renderer
from pixeltraj.render.renderer import Renderer
from pixeltraj.tasks import get_task
from pixeltraj.trajectory import Trajectory


@pytest.fixture(scope="module")
def renderer() -> Iterator[Renderer]:
    with open_renderer(get_task("HalfCheetah-v5").make()) as renderer:
        yield renderer


@pytest.fixture
def real(renderer: Renderer) -> Trajectory:
    """Six random decisions of HalfCheetah-v5, drawn."""
    simulator, rng = renderer.simulator, np.random.default_rng(0)
    states, keypoints, snapshots, actions, rewards = [simulator.reset(seed=1)[0]], [], [], [], []
    for _ in range(6):
        keypoints.append(simulator.keypoints())
        snapshots.append(simulator.snapshot())
        actions.append(rng.uniform(-1, 1, 6).astype(np.float32))
        state, reward, *_ = simulator.step(actions[-1])
        states.append(state)
        rewards.append(reward)
    keypoints.append(simulator.keypoints())
    snapshots.append(simulator.snapshot())
    never = np.zeros(6, bool)
    frames = renderer.frames(snapshots)
    made = (np.stack(states), np.stack(actions), np.array(rewards, np.float32), never, never, np.stack(keypoints))
    return Trajectory(*made, snapshots=np.stack(snapshots), frames=frames)


def near(trajectory: Trajectory) -> list[np.ndarray]:
    assert trajectory.snapshots is not None
    return [trajectory.snapshots[0]]


def test_true_states_are_drawn_as_they_were(renderer: Renderer, real: Trajectory) -> None:
    (found,) = cycle_mismatch(renderer, [real], near(real))
    assert found.shape == (7,) and found[0] == 0
    # The camera follows the runner, but the floor's pattern is where the state leaves it open: at the start's x.
    assert found.max() < 0.1
    (errors,) = one_step_errors(renderer.simulator, [real], near(real), np.ones(17))
    assert errors.shape == (6,) and errors.max() < 1e-4


def test_the_more_a_limb_is_misread_the_worse_it_looks(renderer: Renderer, real: Trajectory) -> None:
    told = [cycle_mismatch(renderer, [bent(real, 3, angle)], near(real))[0] for angle in (0.0, 0.1, 0.25, 0.5)]
    at = [scores[3] for scores in told]
    assert at == sorted(at) and at[-1] > at[0] + 0.1
    for scores in told:
        np.testing.assert_array_equal(np.delete(scores, 3), np.delete(told[0], 3))


def test_what_the_simulator_cannot_be_is_infinite(renderer: Renderer, real: Trajectory) -> None:
    lost, past = bent(real, 2, 0.0), bent(real, 4, 2.0)
    lost.states[2, 3] = np.nan
    scores = cycle_mismatch(renderer, [lost, past], near(real) * 2)
    assert [np.flatnonzero(np.isinf(s)).tolist() for s in scores] == [[2], [4]]
    errors = one_step_errors(renderer.simulator, [lost, past], near(real) * 2, np.ones(17))
    assert [np.flatnonzero(np.isinf(e)).tolist() for e in errors] == [[1, 2], [3, 4]], "into it and out of it"


def test_errors_are_in_units_of_the_scale_and_of_what_can_move(renderer: Renderer, real: Trajectory) -> None:
    wrong = bent(real, 2, 0.1)
    (errors,) = one_step_errors(renderer.simulator, [wrong], near(real), np.full(17, 2.0))
    assert errors[1] == pytest.approx(0.1 / (17 * 2), rel=1e-3)
    scale = np.zeros(17)
    scale[3] = 1.0
    assert one_step_errors(renderer.simulator, [wrong], near(real), scale)[0][1] == pytest.approx(0.1, rel=1e-3)
    assert one_step_errors(renderer.simulator, [], [], scale) == []


def test_without_frames_there_is_nothing_to_compare_with(renderer: Renderer, real: Trajectory) -> None:
    with pytest.raises(PixeltrajError, match="imagined frames"):
        cycle_mismatch(renderer, [replace(real, frames=None)], near(real))


def test_mismatch_looks_around_keypoints_only() -> None:
    rng = np.random.default_rng(0)
    frame = rng.integers(0, 255, (84, 84, 3), dtype=np.uint8)
    elsewhere, at_it = frame.copy(), frame.copy()
    elsewhere[60:] = 0
    at_it[38:43, 38:43] = 0
    pixels = np.array([[40.0, 40.0, 1.0], [30.0, 30.0, 1.0]])
    assert mismatch(frame, frame, pixels) == pytest.approx(0.0, abs=1e-9)
    assert mismatch(frame, elsewhere, pixels) == pytest.approx(0.0, abs=1e-9)
    assert mismatch(frame, at_it, pixels) > 0.1
    assert mismatch(frame, at_it, pixels) == mismatch(at_it, frame, pixels)
    out_of_view = np.array([[-50.0, np.nan, 1.0], [500.0, 20.0, -1.0]])
    assert mismatch(frame, frame, out_of_view) == pytest.approx(0.0, abs=1e-9)


def bent(real: Trajectory, frame: int, angle: float) -> Trajectory:
    """The trajectory with its back shin read at another angle in one frame."""
    copied = replace(real, states=real.states.copy())
    copied.states[frame, 3] += angle
    return copied
