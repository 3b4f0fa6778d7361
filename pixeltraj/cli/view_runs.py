"""Run: a store and what imagines from its states; found in folders, loaded when first asked for."""

import threading
from dataclasses import replace
from pathlib import Path

from pixeltraj.cli.imagination import ImagineConfig
from pixeltraj.cli.viewer import Viewer
from pixeltraj.decode.decoder import CONFIG
from pixeltraj.errors import PixeltrajError
from pixeltraj.files import read_json
from pixeltraj.store import Store

STORES = ("demos", "store")
"""What a run calls its store: a demo the first, others the second."""
PARTS = (*STORES, "decoder", "lora", "length")
"""Folders of which a run has at least one."""


class Run:
    """Told apart at once, loaded once. A failure is remembered, and loading tried again when asked again."""

    def __init__(
        self, name: str, store: Path, parts: ImagineConfig, busy: threading.Lock, settings: Path | None = None
    ) -> None:
        """busy: one for all runs, held while weights are loaded and while something is imagined; settings: JSON that
        names the base, where `parts` does not."""
        self.name, self.store, self.parts, self.settings = name, store, parts, settings
        self.task: str | None = None
        """None while the store could not be opened."""
        self.error: str | None = None
        """One line, where it cannot be used as it was last seen."""
        self._viewer: Viewer | None = None
        self._busy = busy

    @property
    def loaded(self) -> bool:
        return self._viewer is not None

    def _all_parts(self) -> ImagineConfig:
        parts = self.whole_parts()
        if not (parts.decoder / CONFIG).is_file():
            raise PixeltrajError(f"no decoder at {parts.decoder}; `pixeltraj decode train` makes one")
        return parts

    def whole_parts(self) -> ImagineConfig:
        """`parts` with the base that the settings name. Raises PixeltrajError where they cannot be read."""
        if self.parts.base is not None or self.settings is None or not self.settings.is_file():
            return self.parts
        settings = read_json(self.settings, "demo")
        said = settings.get("base") if isinstance(settings, dict) else None
        return replace(self.parts, base=None if said == "None" else said)  # a demo keeps its settings as text

    def look(self) -> None:
        """See what can be seen without loading any weights: `task`, and perhaps an `error`."""
        try:
            self._open_store()
            self._all_parts()
        except Exception as error:  # whatever is wrong with one run, the others can be looked at
            self.error = line(error)

    def open(self) -> Viewer:
        """Loaded by whoever asks first; others wait. Raises PixeltrajError where parts are missing or do not fit."""
        if self._viewer is None:
            with self._busy:  # while diffusers loads one model, modules made in other threads come out empty
                self._open()
        assert self._viewer is not None
        return self._viewer

    def _open(self) -> None:
        if self._viewer is None:
            try:
                self._viewer = self._load()
            except Exception as error:
                self.error = line(error)
                raise
            self.error = None

    def _open_store(self) -> Store:
        store = Store.open(self.store)
        self.task = store.task.name
        store.require_frames()
        return store

    def _load(self) -> Viewer:
        store = self._open_store()
        imaginer, wanted = self._all_parts().read()
        decoder = self.parts.decoder
        if imaginer.task.name != store.task.name:
            raise PixeltrajError(f"{decoder} reads {imaginer.task.name}, {self.store} holds {store.task.name}")
        if wanted and store.renderer != wanted:
            raise PixeltrajError(
                f"{self.store} was rendered with {store.renderer}, {decoder} was trained on frames drawn with "
                f"{wanted}: train the decoder on a store that is rendered like this one"
            )
        return Viewer(store, imaginer, self._busy)


def run_folders(folder: Path) -> list[Path]:
    """The folder itself where it is a run, else the runs in it, by name. What counts is what is in them."""
    if is_run(folder):
        return [folder]
    return sorted(path for path in folder.iterdir() if not path.name.startswith(".") and is_run(path))


def is_run(folder: Path) -> bool:
    return any((folder / part).is_dir() for part in PARTS)


def line(error: Exception) -> str:
    """What went wrong, in one line."""
    text = " ".join(str(error).split())
    return text if isinstance(error, PixeltrajError) else f"{type(error).__name__}: {text}"
