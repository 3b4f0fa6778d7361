"""Inverse dynamics: the action that was taken is found again, and what cannot be told is not."""

import numpy as np
import pytest

from pixeltraj.decode.inverse_dynamics import action_residual, response
from pixeltraj.tasks import get_task


def test_a_claimed_action_is_corrected_to_the_one_that_was_taken() -> None:
    rng = np.random.default_rng(0)
    slope = rng.standard_normal((5, 2))
    taken, claimed = rng.uniform(-1, 1, (40, 2)), rng.uniform(-1, 1, (40, 2))
    errors = (claimed - taken) @ slope.T
    residual = action_residual(errors, np.tile(slope, (40, 1, 1)), claimed, np.full(5, 1e-3))
    assert residual == pytest.approx(taken - claimed, abs=1e-3)


def test_an_action_beyond_its_limits_is_not_called_for() -> None:
    residual = action_residual(np.array([[-9.0]]), np.ones((1, 1, 1)), np.array([[0.25]]), np.array([0.01]))
    assert residual == pytest.approx(0.75)


def test_a_dimension_that_does_less_than_the_noise_is_not_told() -> None:
    slope = np.array([[[1.0, 0.0], [0.0, 0.01]]])
    residual = action_residual(np.array([[0.5, 0.5]]), slope, np.zeros((1, 2)), np.full(2, 0.05))
    assert residual[0, 0] == pytest.approx(-0.5, abs=0.01) and np.isnan(residual[0, 1])
    both = np.array([[[1.0, 1.0], [0.0, 0.0]]])
    assert np.isnan(action_residual(np.array([[0.5, 0.5]]), both, np.zeros((1, 2)), np.full(2, 0.05))).all(), (
        "two dimensions that do the same cannot be told from each other"
    )
    unsound = np.array([[np.nan, 0.0]])
    assert np.isnan(action_residual(unsound, slope, np.zeros((1, 2)), np.full(2, 0.05))).all()


def test_the_response_is_what_the_simulator_does() -> None:
    task = get_task("PointMaze_UMaze-v3")
    simulator = task.make()
    simulator.reset(seed=0)
    here, action = simulator.snapshot(), np.array([0.9, -1.0])
    expected, *_ = simulator.step(action)
    slope = response(simulator, here, action, expected.astype(np.float64))
    simulator.restore(here)
    other, *_ = simulator.step(action + [-0.5, 0.5])
    assert slope @ [-0.5, 0.5] == pytest.approx(other - expected, abs=1e-4) and np.abs(slope).max() > 0.01
