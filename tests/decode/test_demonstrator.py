"""The demonstrator: what it learns from pairs of states, and that what was trained in parts is trained as in one go."""

from pathlib import Path

import numpy as np
import pytest
import torch

from pixeltraj import diffuser as module
from pixeltraj.checkpoint import Checkpoint
from pixeltraj.decode.demonstrator import Demonstrator
from pixeltraj.diffuser import DiffuserConfig
from pixeltraj.errors import PixeltrajError
from pixeltraj.tasks import get_task
from pixeltraj.trajectory import Trajectory

TASK = get_task("push-v3")
SMALL = DiffuserConfig(steps=600, width=64, depth=2, batch=64, lr=3e-3, ema=0.98, num_inference_steps=12)


def trajectories(count: int, steps: int = 8) -> list[Trajectory]:
    """Actions are where the hand goes, and of the fourth only the sign can be known: it is 0.8 or -0.8 by chance."""
    rng = np.random.default_rng(0)
    made = []
    for _ in range(count):
        states = rng.normal(size=(steps + 1, TASK.state_size)).astype(np.float32)
        by_chance = rng.choice([-0.8, 0.8], (steps, 1))
        actions = np.concatenate([np.tanh(np.diff(states[:, :3], axis=0) / 2), by_chance], axis=1)
        nothing = np.zeros(steps, bool)
        points = np.zeros((steps + 1, len(TASK.keypoints), 3), np.float32)
        made.append(
            Trajectory(states, actions.astype(np.float32), np.zeros(steps, np.float32), nothing, nothing, points)
        )
    return made


def test_samples_what_leads_from_one_state_to_the_next_and_does_not_average() -> None:
    *data, new, other = trajectories(102)
    demonstrator = Demonstrator(TASK, SMALL)
    demonstrator.fit(data)
    states, wanted = np.stack([new.states, other.states]), np.stack([new.actions, other.actions])
    actions = demonstrator(states, torch.Generator().manual_seed(0))
    assert actions.shape == wanted.shape and actions.dtype == np.float32 and np.abs(actions).max() <= 1
    assert np.corrcoef(actions[..., :3].ravel(), wanted[..., :3].ravel())[0, 1] > 0.9
    chosen = actions[..., 3]
    assert np.abs(chosen).mean() > 0.6 and (chosen > 0.5).any() and (chosen < -0.5).any(), "least squares would say 0"
    np.testing.assert_array_equal(actions, demonstrator(states, torch.Generator().manual_seed(0)))
    assert (actions != demonstrator(states, torch.Generator().manual_seed(1))).any()


def test_comes_back_as_it_was_saved_and_goes_on_where_it_was_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, states = trajectories(3), np.stack([one.states for one in trajectories(2)])
    config = DiffuserConfig(steps=20, width=8, depth=1, batch=8, num_inference_steps=3)
    whole, killed = (Demonstrator(TASK, config) for _ in range(2))
    whole.fit(data)
    monkeypatch.setattr(module, "CHECKPOINT_EVERY", 7)
    checkpoint = Checkpoint(tmp_path / "checkpoint", {})
    train = killed.diffuser._train

    def dies(whitened: torch.Tensor, optimizer: torch.optim.Optimizer, step: int, progress: float) -> torch.Tensor:
        if step == 16:
            raise KeyboardInterrupt
        return train(whitened, optimizer, step, progress)

    monkeypatch.setattr(killed.diffuser, "_train", dies)
    with pytest.raises(KeyboardInterrupt):
        killed.fit(data, checkpoint)
    assert checkpoint.load()[0] == 14
    resumed = Demonstrator(TASK, config)
    resumed.fit(data, checkpoint)
    resumed.save(tmp_path)
    again = Demonstrator.load(tmp_path, TASK)
    for one in (resumed, again):
        rng, same = (torch.Generator().manual_seed(3) for _ in range(2))
        np.testing.assert_array_equal(one(states, rng), whole(states, same))


def test_what_cannot_be_loaded_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PixeltrajError, match=r"cannot sample actions.*train it again.*or give --actions read"):
        Demonstrator.load(tmp_path, TASK)
    demonstrator = Demonstrator(TASK, DiffuserConfig(steps=1, width=8, depth=1))
    demonstrator.fit(trajectories(1))
    demonstrator.save(tmp_path)
    with pytest.raises(PixeltrajError, match="is of push-v3, not door-open-v3"):
        Demonstrator.load(tmp_path, get_task("door-open-v3"))
