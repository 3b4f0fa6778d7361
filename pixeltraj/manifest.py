"""Manifest: a store's zarr.json, whose attributes say what is in it. Writing it is the commit."""

import fcntl
import json
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pixeltraj.column import sync_folder
from pixeltraj.errors import PixeltrajError
from pixeltraj.files import read_json, write_json

SCHEMA = 2


def write_manifest(path: Path, attributes: dict[str, Any]) -> None:
    """Attributes of the store at `path`, with a checksum; on disk when this returns."""
    signed = {**attributes, "crc32": _crc32(attributes)}
    write_json(path / "zarr.json", {"zarr_format": 3, "node_type": "group", "attributes": signed})
    sync_folder(path)


def read_manifest(path: Path) -> dict[str, Any]:
    """The attributes. Raises PixeltrajError where there is no store, or none that this code reads."""
    file = path / "zarr.json"
    if not file.is_file():
        raise PixeltrajError(f"{path} is not a store; make one with `pixeltraj collect TASK --out {path}`")
    content = read_json(file, "store")
    attributes = content.get("attributes") if isinstance(content, dict) else None
    if not isinstance(attributes, dict) or not isinstance(attributes.get("schema"), int):
        raise PixeltrajError(f"{file} is not that of a store, or damaged; make the store again")
    if (schema := attributes["schema"]) != SCHEMA:
        fix = "it is newer, update pixeltraj" if schema > SCHEMA else "it is older, collect it again"
        raise PixeltrajError(f"{path} has schema {schema}, this pixeltraj reads {SCHEMA}: {fix}")
    whole = content == {"zarr_format": 3, "node_type": "group", "attributes": attributes}
    if attributes.pop("crc32", None) != _crc32(attributes) or not whole:
        raise PixeltrajError(f"{file} is damaged; make the store again")
    return attributes


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """No other process changes the manifest meanwhile, on none of the machines that share the store."""
    descriptor = os.open(path / ".lock", os.O_RDWR | os.O_CREAT, 0o666)  # NFS locks no folder, and nothing read-only
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    except OSError as error:
        error.filename = error.filename or str(path)  # a full disk does not say where it is full
        raise
    finally:
        os.close(descriptor)


def _crc32(attributes: dict[str, Any]) -> int:
    return zlib.crc32(json.dumps(attributes, sort_keys=True).encode())
