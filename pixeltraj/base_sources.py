"""Where a base comes from: the embedded one, a folder, a single file, or the hub."""

from pathlib import Path

from pixeltraj.base_files import (
    CONFIGS,
    EMBEDDED,
    STATE_ENCODER,
    WEIGHTS,
    BaseFiles,
    check_configs,
    find_folder,
)
from pixeltraj.errors import PixeltrajError
from pixeltraj.single_file import find_single_file

PICKLES = (".ckpt", ".pt", ".pth", ".bin")


def find(path: str | None) -> BaseFiles:
    """What --base names: nothing for the embedded base, a folder in diffusers' layout, a .safetensors file, or a hub
    id, with @REVISION or without, which is fetched or taken from the cache.

    Raises PixeltrajError, before any weight is read or fetched, where it is not there or cannot be a base.
    """
    if path is None:
        return find_folder(EMBEDDED, str(EMBEDDED))
    local = Path(path)
    if local.is_dir():
        return find_folder(local, path)
    if local.suffix in PICKLES:
        raise PixeltrajError(
            f"{path} is a pickle, which can run anything: take the .safetensors of the same checkpoint, or where you "
            f'trust it `python -c "from diffusers import StableDiffusionPipeline as P; '
            f"P.from_single_file('{path}').save_pretrained('FOLDER')\"` and give --base FOLDER"
        )
    if local.suffix == ".safetensors":
        return find_single_file(local, fetch_configs)
    if path.count("/") != 1 or path.startswith((".", "/", "~")):
        raise PixeltrajError(
            f"no base at {path}: give a diffusers folder, a .safetensors file or a hub id (ID or ID@REVISION) with "
            f"--base"
        )
    return fetch(path)


def resolve(path: str | None) -> Path:
    """The folder of a base's configs, checked."""
    return find(path).folder


def fetch(name: str) -> BaseFiles:
    """ID or ID@REVISION from the hub: the configs, and the weights once these have been checked."""
    identifier, _, revision = name.partition("@")
    folder = fetch_configs(identifier, revision or None)
    check_configs(folder)
    commit = folder.name  # the branch may move meanwhile
    parts = [*WEIGHTS.items(), (STATE_ENCODER, WEIGHTS["unet"])]
    for kind in ("", ".fp16"):
        patterns = [f"{part}/{stem}{kind}{end}" for part, stem in parts for end in (".safetensors", "-*.safetensors")]
        indices = [f"{part}/{stem}.safetensors.index{kind}.json" for part, stem in parts]
        folder = download(identifier, commit, [*CONFIGS, *patterns, *indices])
        if all(any((folder / part).glob("*.safetensors")) for part in WEIGHTS):
            break
    return find_folder(folder, f"{identifier}@{commit}")


def fetch_configs(identifier: str, revision: str | None = None) -> Path:
    """The folder of a hub repository's configs and tokenizer."""
    return download(identifier, revision, CONFIGS)


def download(identifier: str, revision: str | None, patterns: list[str]) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(identifier, revision=revision, allow_patterns=patterns))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        asked = f"{identifier}@{revision}" if revision else identifier
        raise PixeltrajError(f"the hub has no base {asked!r} that can be reached from here ({error})") from error
