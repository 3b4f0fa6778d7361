"""The commands of docs/stable_diffusion.md are run as they stand, but for sizes, on a tiny Stable Diffusion 1.5."""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import tyro

from benchmarks.random_bases import SHAPES, write_random_base
from pixeltraj.cli import main
from pixeltraj.finetune.train import FinetuneConfig, finetune
from pixeltraj.generator import CONV_IN_FILE, LORA_FILE, STATE_FILE
from pixeltraj.render.collect import CollectConfig, collect
from pixeltraj.render.render import RenderConfig, render
from pixeltraj.store import Store

PAGE = (Path(__file__).parents[1] / "docs" / "stable_diffusion.md").read_text()
LAUNCH = "accelerate launch -m pixeltraj.finetune "
SMALL = {
    "pixeltraj collect": "--episodes 5 --max-steps 4",
    LAUNCH: "--steps 2 --batch 1 --rank 2",
    "pixeltraj decode": "--steps 2 --head-steps 2 --batch 2 --copies 1 --scatter 2",
    "pixeltraj imagine": "--n 1",
    "pixeltraj distill": "--steps 1 --batch 1 --rank 2 --cut 2 --jump 1",
}


def block(name: str) -> str:
    found = re.search(rf"<!-- {name} -->\n```\w+\n(.*?)```", PAGE, re.DOTALL)
    assert found, f"there is no block {name}"
    return found[1]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the first block was run; `accelerate config` and the launcher are accelerate's own."""
    folder = tmp_path_factory.mktemp("page")
    write_random_base(SHAPES["sd-1.5"].tiny(), folder / "base")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for command in [*block("stages").splitlines()[1:], *block("few").splitlines()]:
            small = next((words for start, words in SMALL.items() if command.startswith(start)), "")
            words = shlex.split(f"{command.replace('$BASE', 'base')} {small}")
            if command.startswith(LAUNCH):
                finetune(tyro.cli(FinetuneConfig, args=words[4:]))
            else:
                assert main(words[1:]) == 0, command
    return folder


def test_the_stages_end_with_imagined_trajectories(folder: Path) -> None:
    for name, steps in (("imagined", 10), ("few-imagined", 2)):
        store = Store.open(folder / "runs" / "sd" / name)
        assert len(store) == 1 and store.attributes["provenance"]["num_inference_steps"] == {"5": steps}
    files = {path.name for path in (folder / "runs" / "sd" / "lora").iterdir()}
    assert {LORA_FILE, CONV_IN_FILE, STATE_FILE, "README.md"} <= files


def test_diffusers_alone_generates(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    code = block("ours").replace(", width=480)", ", width=480, num_inference_steps=1)")
    found: dict[str, object] = {"BASE": "base"}
    exec(code, found)
    assert np.asarray(found["image"]).shape == (96, 480, 3)


def test_grids_of_25_frames_are_squares(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from PIL import Image

    monkeypatch.chdir(folder)
    collect(CollectConfig("push-v3", folder / "long", episodes=5, max_steps=24, policy="random"))
    render(RenderConfig(folder / "long"))
    command = block("theirs").replace("runs/push", "long")
    assert main(shlex.split(command)[1:]) == 0
    sizes = {Image.open(path).size for path in (folder / "runs" / "images" / "train").glob("*.png")}
    assert sizes == {(480, 480)}
