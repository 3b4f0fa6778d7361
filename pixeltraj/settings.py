"""Settings: what a run has to share with the one that it goes on from. A folder of ours that was moved is the same."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pixeltraj.files import file_hash

MANIFESTS = ("zarr.json", "pixeltraj.json", "config.json", "length.json", "model_index.json")
"""Of folders of ours: the file that says what lies beside it."""
HASH = " hash"


def folder_hash(folder: Path) -> str | None:
    """Of what the folder says is in it; None where it is none of ours."""
    known = [folder / name for name in MANIFESTS if (folder / name).is_file()]
    return file_hash(known[0]) if known else None


def recorded(settings: Mapping[str, Any]) -> dict[str, str]:
    """As they are kept in files: as text, and of a folder of ours what is in it besides."""
    hashes = {key: folder_hash(value) for key, value in settings.items() if isinstance(value, Path)}
    told = {f"{key}{HASH}": value for key, value in hashes.items() if value is not None}
    return {key: str(value) for key, value in settings.items()} | told


def changed(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """Names of the settings in which what `recorded` gave differs. A folder is the same where its path or what is in it
    is: it may have been moved, and it may have been made again."""
    names = [key for key in {**before, **now} if not key.endswith(HASH)]
    moved = [key for key in names if (mark := f"{key}{HASH}") in now and before.get(mark) == now[mark]]
    return [key for key in names if before.get(key) != now.get(key) and key not in moved]


def alike(before: Any, now: Any) -> bool:
    """Whether two descriptions (`pixeltraj.eval.arm.described`) are the same, wherever the folders in them are."""
    if isinstance(before, dict) and isinstance(now, dict):
        if "hash" in before and "hash" in now:
            return bool(before["hash"] == now["hash"])
        return before.keys() == now.keys() and all(alike(before[key], now[key]) for key in now)
    if isinstance(before, list) and isinstance(now, list):
        return len(before) == len(now) and all(map(alike, before, now))
    return bool(before == now)
