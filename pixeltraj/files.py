"""Files that are written whole or not at all, and that say how they were made."""

import hashlib
import importlib.metadata
import json
import os
import platform
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pixeltraj.errors import PixeltrajError


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary file beside `path`, flush it to the disk and rename it into place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}.partial{path.suffix}")
    try:
        write(beside)
        with beside.open("rb") as file:
            os.fsync(file.fileno())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    write_whole(path, lambda beside: beside.write_text(json.dumps(value, indent=2) + "\n"))


def read_json(path: Path, what: str) -> Any:
    """The parsed file. Raises PixeltrajError, calling the file `what`, where it is missing or not JSON."""
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        raise PixeltrajError(f"no {what} at {path}") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise PixeltrajError(f"{path} is not the JSON of a {what}: {error}") from None


def file_hash(*paths: Path) -> str:
    """The first 16 hex digits of the SHA-256 of the files' bytes, in the order given."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:16]


def provenance(**more: Any) -> dict[str, Any]:
    """How a file is being made: command, versions, and whatever else is given."""
    packages = ("pixeltraj", "torch", "diffusers", "mujoco", "gymnasium", "metaworld", "numpy")
    return {
        "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "python": platform.python_version(),
        "versions": {name: importlib.metadata.version(name) for name in packages},
        **more,
    }
