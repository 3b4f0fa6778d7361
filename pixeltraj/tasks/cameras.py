"""Cameras of the tasks, by name, kept in cameras.json, where `pixeltraj camera TASK --write NAME` puts them.

Tasks of one name see through one camera, and one generator can learn their frames together. A camera is part of a
task's fingerprint: stores and models that were made through another one are refused.
"""

from dataclasses import asdict
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pixeltraj.camera import Camera
from pixeltraj.errors import PixeltrajError
from pixeltraj.files import read_json, write_json

PATH = Path(__file__).with_name("cameras.json")


def named_camera(name: str) -> Camera:
    """The camera of that name. Raises PixeltrajError, naming the nearest ones, where there is none."""
    cameras = _cameras()
    if name not in cameras:
        near = get_close_matches(name, cameras, n=3, cutoff=0.4) or list(cameras)
        raise PixeltrajError(
            f"no camera {name!r} in {PATH.name}, there are: {', '.join(near)}; "
            f"write one with `pixeltraj camera TASK --write {name}`"
        )
    try:
        return Camera(**cameras[name] | {"lookat": tuple(cameras[name]["lookat"])})
    except (TypeError, KeyError) as error:
        raise PixeltrajError(f"the camera {name!r} in {PATH} is damaged ({error}); write it again") from error


def write_camera(name: str, camera: Camera) -> None:
    """Add the camera, or replace the one of that name. The others stay as they are."""
    write_json(PATH, _cameras() | {name: asdict(camera)})


def _cameras() -> dict[str, dict[str, Any]]:
    return read_json(PATH, "table of cameras")
