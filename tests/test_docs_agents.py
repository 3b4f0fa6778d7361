"""The code blocks of docs/agents.md run as they stand, but for sizes, with a real (if tiny) base, LoRA and decoder."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pixeltraj.cli import main
from pixeltraj.decode.train import TrainConfig, train
from pixeltraj.finetune.train import FinetuneConfig, finetune
from pixeltraj.replay_buffer import ReplayBuffer, ReplayBufferConfig
from tests.conftest import QUICK

PAGE = (Path(__file__).parents[1] / "docs" / "agents.md").read_text()
SMALL = {
    "total_timesteps=20_000": "total_timesteps=130",
    "total_frames=20_000": "total_frames=100",
    "range(50)": "range(2)",
    "batch_size=256": "batch_size=16",
}


@pytest.fixture(scope="module")
def folder(store_path: Path, base_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("agents")
    runs, base = folder / "runs", str(base_path)
    runs.mkdir()
    finetune(FinetuneConfig(store_path, runs / "lora", base=base, steps=2, batch=2, rank=2))
    train(TrainConfig(store_path, runs / "decoder", base=base, lora=runs / "lora", **QUICK))
    of = f"--from {store_path} --lora {runs / 'lora'} --decoder {runs / 'decoder'} --base {base}"
    assert main(f"imagine push-v3 {of} --n 4 --out {runs / 'imagined'}".split()) == 0
    return folder


@pytest.fixture(autouse=True)
def there(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(folder / "minari"))


def block(name: str) -> str:
    found = re.search(rf"<!-- {name} -->\n```\w+\n(.*?)```", PAGE, re.DOTALL)
    assert found, f"there is no block {name}"
    return found[1]


def run(name: str, base_path: Path) -> dict[str, Any]:
    code = block(name).replace("ImagineConfig(", f"ImagineConfig(base={str(base_path)!r}, ")
    for large, small in SMALL.items():
        code = code.replace(large, small)
    names: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(code, f"docs/agents.md: {name}", "exec"), names)
    return names


def test_stable_baselines3(base_path: Path, folder: Path) -> None:
    model = run("sb3", base_path)["model"]
    part = model.replay_buffer.imagined
    own, dreams = model.replay_buffer.next_observations[:130, 0], part.imagined.columns
    assert part.received >= 16 and len(part.imagined) > 0
    assert (dreams["states"][0] == own).all(1).any()  # it set out from a state that the agent was in
    assert set(np.unique(dreams["rewards"])) <= {0.0, 1.0}  # sparse, as the task's
    assert np.abs(dreams["actions"]).max() <= 1
    model.load_replay_buffer(folder / "runs" / "buffer")
    assert len(model.replay_buffer.imagined.imagined) == len(part.imagined)


def test_torchrl(base_path: Path) -> None:
    names = run("torchrl", base_path)
    told = names["imagine"], names["buffer"].imagined.statistics()
    assert len(names["buffer"]) == 100 and told[1]["requested"] >= 16
    assert told[1]["requested"] > told[1]["missing"] == 0


def test_plain_arrays(base_path: Path) -> None:
    names = run("arrays", base_path)
    made = names["transitions"]
    assert made.states.shape == made.next_states.shape == (len(made.actions), 17)
    np.testing.assert_array_equal(made.states[0], names["state"])


def test_prioritised_replay(base_path: Path) -> None:
    buffer = ReplayBuffer(ReplayBufferConfig(rho=0.0, alpha=1.0), 1, 1, np.random.default_rng(0))
    for i in range(3):
        buffer.store(np.full(1, i), np.zeros(1), 0.0, np.zeros(1), False)
    learn = run("prioritised", base_path)["learn"]
    for _ in range(3):
        learn(buffer, lambda batch: batch.states[:, 0])  # the first one has no error
    assert np.bincount(buffer.sample(300).states[:, 0].astype(int))[0] < 5


def test_files(base_path: Path) -> None:
    for command in block("export").splitlines():
        assert main(command.split()[1:]) == 0
    names = run("files", base_path)
    assert len(names["states"]) == len(names["rewards"]) == names["dataset"].total_steps
    assert names["dataset"].storage.metadata["algorithm_name"].startswith("synthetic")
