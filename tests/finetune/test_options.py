"""Every option of fine-tuning, in a real run: what it changes, and what it leaves as it is."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import load_file

from pixeltraj.base import Base
from pixeltraj.errors import PixeltrajError
from pixeltraj.finetune import train
from pixeltraj.finetune.attention import attend
from pixeltraj.finetune.computing import Computing
from pixeltraj.finetune.conditions import Conditions
from pixeltraj.finetune.evaluation import Evaluation
from pixeltraj.finetune.images import Images, Prior
from pixeltraj.finetune.lora import Lora
from pixeltraj.finetune.loss import Noise, diffusion_loss
from pixeltraj.finetune.train import FinetuneConfig, finetune
from pixeltraj.generator import LORA_FILE, Generator
from pixeltraj.latents import store_latents
from pixeltraj.render.collect import CollectConfig, collect
from pixeltraj.render.render import RenderConfig, render
from pixeltraj.settings import changed
from pixeltraj.store import Store
from pixeltraj.windows import store_windows
from tests.conftest import small_base

PROMPT = "push the red puck to the goal on the table"
Tune = Callable[..., tuple[dict[str, Any], Path]]


@pytest.fixture(scope="module")
def tune(store_path: Path, plain_base_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Tune:
    """A run of a few steps on the base with 4 channels -> what it returns, and its folder."""

    def run(**changes: Any) -> tuple[dict[str, Any], Path]:
        out = tmp_path_factory.mktemp("tuned") / "lora"
        config = FinetuneConfig(store_path, out, str(plain_base_path), steps=8, batch=2, rank=2, lr=1e-2)
        return finetune(replace(config, **changes)), out

    return run


@pytest.fixture(scope="module")
def plain(tune: Tune) -> tuple[dict[str, Any], Path]:
    return tune()


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / LORA_FILE)


def equal(one: Path, other: Path) -> bool:
    a, b = tensors(one), tensors(other)
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


@pytest.mark.parametrize(
    "computing",
    [
        Computing("fp32"),
        Computing("fp16"),
        Computing(attention="sdpa"),
        Computing(checkpointing=True),
        Computing(channels_last=True),
    ],
    ids=["fp32", "fp16", "sdpa", "checkpointing", "channels_last"],
)
def test_how_it_is_computed_changes_little(
    tune: Tune, plain: tuple[dict[str, Any], Path], computing: Computing
) -> None:
    result, _ = tune(computing=computing)
    for key in ("heldout_loss_before", "loss_before", "heldout_loss_after"):
        assert result[key] == pytest.approx(plain[0][key], rel=2e-2), key
    assert plain[0]["heldout_loss_after"] < 0.9 * plain[0]["heldout_loss_before"]


def test_a_compiled_u_net_computes_the_same(tune: Tune, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Captured and differentiated by torch.compile; without generated code, which takes it minutes. On a U-Net of one
    level, since capturing takes its time too."""
    compiled, graphs = torch.nn.Module.compile, []

    def backend(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> Callable[..., Any]:
        graphs.append(graph)
        return graph.forward

    monkeypatch.setattr(torch.nn.Module, "compile", lambda module: compiled(module, backend=backend))
    short = {"base": str(small_base(tmp_path / "base", 8, widths=(8,))), "steps": 2, "no_state": 0.0}
    result, _ = tune(computing=Computing(compile=True), **short)
    assert graphs
    assert result["loss_after"] == pytest.approx(tune(**short)[0]["loss_after"], rel=2e-2)


def test_parts_of_a_step_are_the_step(tune: Tune) -> None:
    """Two passes of two images are one of four."""
    exact = Computing("fp32")
    whole, _ = tune(batch=4, computing=exact)
    parts, _ = tune(batch=2, computing=replace(exact, accumulate=2))
    for key in ("loss_before", "heldout_loss_after"):
        assert parts[key] == pytest.approx(whole[key], rel=1e-5), key
    assert whole["loss_before"] != pytest.approx(tune(batch=2, computing=exact)[0]["loss_before"], rel=1e-3)


def kept_bytes(base: Base, computing: Computing) -> int:
    """What the forward pass of a step keeps for the backward pass."""
    Lora().add(base, 2)
    computing.prepare(base.unet.train())
    generator, seen = Generator(base, 5, ""), {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        seen[tensor.data_ptr()] = tensor.numel() * tensor.element_size()
        return tensor

    tiles, noise = torch.zeros(2, 5, 4, 12, 12), Noise.draw(generator.grid, 2, torch.Generator().manual_seed(0))
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        diffusion_loss(generator, tiles, generator.embed([PROMPT] * 2), noise, computing)
    return sum(seen.values())


def test_the_u_net_is_made_ready(base_path: Path) -> None:
    def prepared(**options: Any) -> torch.nn.Module:
        base = Base.load(str(base_path))
        Lora().add(base, 2)
        Computing(**options).prepare(base.unet)
        return base.unet

    weights = dict(prepared().named_parameters())
    assert {weight.dtype for name, weight in weights.items() if "lora" in name} == {torch.float32}
    assert weights["down_blocks.0.resnets.0.conv1.base_layer.weight"].dtype == torch.bfloat16
    assert weights["down_blocks.0.resnets.0.norm1.weight"].dtype == torch.float32
    assert {weight.dtype for weight in prepared(precision="fp32").parameters()} == {torch.float32}
    halved = dict(prepared(precision="fp16").named_parameters())
    assert {weight.dtype for name, weight in halved.items() if "lora" in name} == {torch.float32}
    assert halved["down_blocks.0.resnets.0.conv1.base_layer.weight"].dtype == torch.float16
    last = prepared(channels_last=True).get_parameter("down_blocks.0.resnets.0.conv1.base_layer.weight")
    assert last.is_contiguous(memory_format=torch.channels_last) and not last.is_contiguous()
    assert kept_bytes(Base.load(str(base_path)), Computing(checkpointing=True)) < 0.8 * kept_bytes(
        Base.load(str(base_path)), Computing()
    )


def test_short_grids_are_attended_plainly_on_a_cpu_unless_told_otherwise() -> None:
    cpu = torch.device("cpu")
    found = []
    for kind, k in (("auto", 5), ("auto", 15), ("sdpa", 5)):
        with attend(kind, k, cpu):  # type: ignore[arg-type]
            found.append(torch.backends.cuda.flash_sdp_enabled())
    assert found == [False, True, True]


def test_xformers_is_tried_out_and_refused_where_it_does_not_run(tune: Tune) -> None:
    """Not installed, or built for another PyTorch, or without a kernel for this device."""
    if torch.cuda.is_available():
        pytest.skip("it may run here")
    with pytest.raises(PixeltrajError, match=r"xformers.*--attention sdpa"):
        tune(computing=Computing(attention="xformers"))


def test_eight_bit_adam(tune: Tune, plain: tuple[dict[str, Any], Path]) -> None:
    pytest.importorskip("bitsandbytes")
    result, folder = tune(computing=Computing(adam_8bit=True))
    assert result["heldout_loss_after"] == pytest.approx(plain[0]["heldout_loss_after"], rel=0.1)
    assert not equal(folder, plain[1])


def test_eight_bit_adam_names_what_it_lacks(tune: Tune, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "bitsandbytes.optim", None)
    with pytest.raises(PixeltrajError, match=r"pixeltraj\[8bit\]"):
        tune(computing=Computing(adam_8bit=True))


def measured(folder: Path, store: Store, base_path: Path) -> float:
    """The held-out loss of what was written, as `finetune` measures it."""
    base = Base.load(str(base_path))
    generator = Generator.load(base, folder)
    windows = {5: store_windows(store, 5, store.split()[1])}
    check = Evaluation(Images([store], base, windows, 0), windows, Conditions([store], generator), 0, Computing())
    return check.losses(generator)[0]


@pytest.mark.parametrize(
    "changes",
    [{}, {"lora": Lora(alpha=6.0)}, {"lora": Lora(text_encoder=True)}, {"ema": 0.5}, {"min_snr": 5.0}],
    ids=["plain", "alpha", "text_encoder", "ema", "min_snr"],
)
def test_what_is_written_is_what_was_trained(
    tune: Tune, plain: tuple[dict[str, Any], Path], store: Store, plain_base_path: Path, changes: dict[str, Any]
) -> None:
    result, folder = tune(**changes) if changes else plain
    assert measured(folder, store, plain_base_path) == pytest.approx(result["heldout_loss_after"], rel=5e-3)
    assert result["heldout_loss_after"] < 0.97 * result["heldout_loss_before"]
    if changes:
        assert not equal(folder, plain[1])


def test_training_goes_on_from_a_lora_with_another_alpha(tune: Tune) -> None:
    first, folder = tune(lora=Lora(alpha=6.0))
    second, _ = tune(lora=Lora(alpha=6.0), start=folder)
    assert second["heldout_loss_before"] == pytest.approx(first["heldout_loss_after"], rel=1e-3)


def test_plain_diffusers_loads_the_text_encoder_s_lora(tune: Tune, plain_base_path: Path) -> None:
    _, folder = tune(lora=Lora(text_encoder=True), lr=5e-2)
    pipeline = StableDiffusionPipeline.from_pretrained(plain_base_path, torch_dtype=torch.float32)
    words = {"device": "cpu", "num_images_per_prompt": 1, "do_classifier_free_guidance": False}
    without = pipeline.encode_prompt(PROMPT, **words)[0]
    pipeline.load_lora_weights(folder)
    theirs = pipeline.encode_prompt(PROMPT, **words)[0]
    ours = Generator.load(Base.load(str(plain_base_path)), folder).embed([PROMPT])
    assert torch.allclose(theirs, ours, atol=1e-4)
    assert (theirs - without).abs().max() > 1e-2


def test_only_the_targets_learn(tune: Tune) -> None:
    _, folder = tune(steps=1, lora=Lora(targets=("to_q", "to_out.0")))
    layers = {name.split(".lora_")[0] for name in tensors(folder)}
    assert {layer for layer in layers if not layer.endswith((".to_q", ".to_out.0"))} == set() != layers
    with pytest.raises(PixeltrajError, match="--targets to_x: "):
        tune(lora=Lora(targets=("to_q", "to_x")))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"lora": Lora(alpha=0)}, "--alpha"),
        ({"lora": Lora(targets=())}, "--targets"),
        ({"computing": Computing(accumulate=0)}, "--accumulate"),
        ({"prior": Prior(share=1.0)}, r"--prior\.share"),
        ({"ema": 1.0}, "--ema"),
        ({"min_snr": 0.0}, "--min-snr"),
    ],
)
def test_senseless_options_are_refused(tune: Tune, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(PixeltrajError, match=words):
        tune(**changes)


class Killed(Exception):
    pass


@pytest.mark.parametrize(
    "changes",
    [{"ema": 0.5}, {"lora": Lora(alpha=6.0, text_encoder=True)}, {"computing": Computing("fp16", accumulate=2)}],
    ids=["ema", "lora", "accumulate-fp16"],
)
def test_a_run_with_options_goes_on_and_ends_like_an_unbroken_one(
    store_path: Path, plain_base_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]
) -> None:
    monkeypatch.setattr(train, "CHECKPOINT_EVERY", 2)
    saved = train.Checkpoint.save

    def save_and_die(self: train.Checkpoint, step: int, **states: Any) -> None:
        saved(self, step, **states)
        raise Killed

    config = FinetuneConfig(store_path, tmp_path / "one", str(plain_base_path), steps=3, batch=1, rank=2, **changes)
    finetune(config)
    broken = replace(config, out=tmp_path / "other")
    with monkeypatch.context() as dying, pytest.raises(Killed):
        dying.setattr(train.Checkpoint, "save", save_and_die)
        finetune(broken)
    finetune(broken)
    assert equal(config.out, broken.out)


@pytest.fixture(scope="module")
def maze(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another task, with other states."""
    path = tmp_path_factory.mktemp("stores") / "maze"
    collect(CollectConfig("PointMaze_UMaze-v3", path, episodes=5, policy="random", max_steps=12))
    render(RenderConfig(path))
    return path


def test_the_prior_is_drawn_by_its_share_and_told_its_own(store: Store, maze: Path, base: Base) -> None:
    other = Store.open(maze)
    learned = {5: store_windows(store, 5, store.split()[0])}
    images, generator = Images([store, other], base, learned, share=0.3), Generator(base, 5, "")
    rows = images.draw(np.random.default_rng(0), 5, 2000)
    foreign = rows[:, 0] >= store.frame_count
    assert foreign.mean() == pytest.approx(0.3, abs=0.03)
    train_rows = np.concatenate([np.arange(*other.offsets[e : e + 2]) for e in other.split()[0]])
    assert set(rows[foreign].ravel() - store.frame_count) <= set(train_rows)
    mine, theirs = rows[~foreign][0], rows[foreign][0]
    tiles = images.tiles(np.stack([theirs, mine]))
    assert torch.equal(tiles[0], store_latents(other, base)[theirs - store.frame_count].float())
    assert torch.equal(tiles[1], store_latents(store, base)[mine].float())
    conditions = Conditions([store, other], generator)
    told = conditions.embed(generator, np.array([mine[0], theirs[0]]), np.ones(2, bool), stated=False)
    expected = generator.embed([store.task.prompt, other.task.prompt])
    assert torch.allclose(told, expected, atol=1e-6) and not torch.allclose(expected[0], expected[1])


def test_a_prior_is_trained_on_too(tune: Tune, plain: tuple[dict[str, Any], Path], maze: Path) -> None:
    result, folder = tune(prior=Prior((maze,), share=0.5))
    assert result["heldout_loss_before"] == plain[0]["heldout_loss_before"]
    assert not equal(folder, plain[1])


def test_a_prior_without_windows_of_the_length_is_refused(tune: Tune, maze: Path) -> None:
    with pytest.raises(PixeltrajError, match="no window of 25 frames"):
        tune(k=(25,), prior=Prior((maze,)))


def test_what_was_trained_before_there_were_options_is_the_same_run(store_path: Path, tmp_path: Path) -> None:
    then = ("base", "k", "steps", "batch", "rank", "lr", "prompt", "states")
    then += ("no_prompt", "no_state", "no_frame", "seed")
    config = FinetuneConfig(store_path, tmp_path)
    told = {"store": str(store_path)} | {name: str(getattr(config, name)) for name in then}
    assert changed(told, config.settings()) == []
    assert changed(told, replace(config, min_snr=5.0).settings()) == ["min_snr"]
