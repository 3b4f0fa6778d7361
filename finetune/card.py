"""Card: README.md beside a LoRA, as the hub and diffusers want a model's, from what its CONFIG_FILE holds."""

from pathlib import Path
from typing import Any

from diffusers.utils.hub_utils import populate_model_card
from huggingface_hub import ModelCard, ModelCardData

from pixeltraj.base import EMBEDDED, Base
from pixeltraj.files import write_whole
from pixeltraj.generator import CONV_IN_FILE, STATE_FILE
from pixeltraj.tasks import get_task

CARD_FILE = "README.md"
EPISODES = ("policy", "noise", "seed", "max_steps")
"""What is told of how the store was collected."""
TAGS = ["lora", "stable-diffusion", "text-to-image", "reinforcement-learning", "pixeltraj"]


def write_card(base: Base, made: dict[str, Any], out: Path) -> None:
    """made: what CONFIG_FILE holds, or will hold."""
    embedded = base.path == str(EMBEDDED)
    repository, _, revision = ("", "", "") if Path(base.path).exists() else base.path.partition("@")
    data = ModelCardData(
        license="mit" if embedded else "other",
        license_name=None if embedded else "that-of-the-base",
        base_model=repository or None,
        base_model_relation="adapter" if repository else None,
        inference=False,
    )
    card = ModelCard(f"---\n{data.to_yaml()}\n---\n\n{text(base, made, out.resolve().name, repository, revision)}")
    populate_model_card(card, TAGS)
    write_whole(out / CARD_FILE, lambda beside: card.save(beside))


def text(base: Base, made: dict[str, Any], name: str, repository: str, revision: str) -> str:
    config, how, told = made["config"], made["provenance"], made["fingerprint"]
    task, camera = get_task(told["task"]), told["camera"]
    lengths, store = ", ".join(map(str, made["k"])), how["store"]
    found = "the embedded one" if base.path == str(EMBEDDED) else repository or Path(base.path).name
    losses = [f"| {k} | {loss:.4f} |" for k, loss in after(made).items()]
    rows = {
        "base": f"{found}{f', revision {revision}' if revision else ''}, weights {made['base']}",
        "task": f"{task.name}: {task.prompt}",
        "k": lengths,
        "camera": ", ".join(f"{key} {value}" for key, value in camera.items() if value is not None),
        "renderer": ", ".join(f"{key} {value}" for key, value in how["renderer"].items()),
        "episodes": ", ".join(f"{key} {store[key]}" for key in EPISODES if store.get(key) is not None),
        "rank": config["rank"],
        "steps": f"{made['steps']} of {config['batch']} images, learning rate {config['lr']}, seed {config['seed']}",
        "told": f"prompt ({made['prompt']}), first frame{', current state' if made['states'] else ''}",
        "made with": ", ".join(f"{package} {version}" for package, version in how["versions"].items()),
    }
    way = ""
    if "distilled" in made:
        rows["distilled"] = f"from the LoRA {made['distilled']['teacher']}, for one to four steps of an LCMScheduler"
        way = ", its scheduler an LCMScheduler, and `guidance_scale=1`"
    lines = [
        f"# {name}",
        "",
        f"A LoRA that imagines {lengths} frames of `{task.name}` as one image, five 84x84 frames to a row, each padded "
        f"to 96. It is made for pixeltraj, which reads such images as states, actions and rewards for RL agents.",
        "",
        "| | |",
        "|---|---|",
        *(f"| {key} | {value} |" for key, value in rows.items()),
        "",
        "| k | held-out loss |" if "heldout_loss_after" in made else "| k | loss on what it was trained on |",
        "|---|---|",
        *losses,
        "",
        "## Use",
        "",
        "```sh",
        f"pixeltraj imagine {task.name} --base BASE --lora {name} --decoder DECODER --out IMAGINED",
        "```",
        "",
        f"With diffusers alone, `pipeline.load_lora_weights({name!r})` on a pipeline of the same base{way}. "
        f"{beside(made)}",
        "",
        "## License and limits",
        "",
        "The license is that of the base. It knows this task under this camera, and nothing else.",
    ]
    return "\n".join(lines) + "\n"


def after(made: dict[str, Any]) -> dict[str, float]:
    """By k."""
    name = "heldout_loss" if "heldout_loss_after" in made else "chosen_loss"
    losses: dict[str, float] = made[f"{name}_after_by_k"]
    return losses


def beside(made: dict[str, Any]) -> str:
    """What diffusers leaves alone."""
    files = {CONV_IN_FILE: made["widened"], STATE_FILE: made["states"]}
    lost = {CONV_IN_FILE: "is not shown the first frame", STATE_FILE: "is not told the current state"}
    found = [f"without `{name}` it {lost[name]}" for name, there in files.items() if there]
    return f"It leaves alone what is no LoRA: {', '.join(found)}." if found else "Nothing is lost there."
