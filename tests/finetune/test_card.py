"""The model card beside a LoRA: what the hub reads, and what a person wants to know."""

import json
from pathlib import Path

import numpy as np
import pytest
from huggingface_hub import ModelCard

from pixeltraj.base import Base
from pixeltraj.finetune.card import CARD_FILE, write_card
from pixeltraj.finetune.train import FinetuneConfig, finetune
from pixeltraj.generator import CONFIG_FILE
from pixeltraj.store import Store


@pytest.fixture(scope="module")
def lora(store_path: Path, plain_base_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("lora") / "push-lora"
    finetune(FinetuneConfig(store_path, out, str(plain_base_path), steps=2, batch=1, rank=2), {5: np.arange(5)[None]})
    return out


def test_fine_tuning_writes_one(lora: Path, store: Store, plain_base_path: Path) -> None:
    card, made = ModelCard.load(lora / CARD_FILE), json.loads((lora / CONFIG_FILE).read_text())
    assert card.data.library_name == "diffusers" and {"lora", "pixeltraj"} <= set(card.data.tags)
    assert card.data.license == "other" and card.data.base_model is None
    for word in (
        store.task.prompt,
        made["base"],
        plain_base_path.name,
        "| k | 5 |",
        "| rank | 2 |",
        "azimuth",
        "seed 0",
    ):
        assert word in card.text, word
    assert f"{made['chosen_loss_after']:.4f}" in card.text
    assert "without `conv_in.safetensors` it is not shown the first frame" in card.text
    assert str(plain_base_path) not in card.content, "a path of one machine"


def test_a_base_of_the_hub_is_named_with_its_revision(lora: Path, plain_base_path: Path, tmp_path: Path) -> None:
    base, made = Base.load(str(plain_base_path)), json.loads((lora / CONFIG_FILE).read_text())
    base.path = f"somebody/stable-diffusion@{'a' * 40}"
    write_card(base, made, tmp_path)
    card = ModelCard.load(tmp_path / CARD_FILE)
    assert card.data.base_model == "somebody/stable-diffusion"
    assert card.data.to_dict()["base_model_relation"] == "adapter"
    assert f"revision {'a' * 40}" in card.text


def test_the_embedded_base_is_ours_to_license(lora: Path, tmp_path: Path) -> None:
    write_card(Base.load(), json.loads((lora / CONFIG_FILE).read_text()), tmp_path)
    card = ModelCard.load(tmp_path / CARD_FILE)
    assert card.data.license == "mit" and "the embedded one" in card.text
