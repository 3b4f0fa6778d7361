"""`pixeltraj view RUN`, or `pixeltraj view --store STORE --decoder DIR`"""

import webbrowser
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from pixeltraj.cli.imagination import ImagineConfig
from pixeltraj.cli.view_server import ViewServer
from pixeltraj.cli.viewer import Viewer
from pixeltraj.errors import PixeltrajError
from pixeltraj.files import read_json
from pixeltraj.store import Store


@dataclass(frozen=True)
class Config:
    run: Annotated[Path | None, tyro.conf.Positional] = None
    """Folder of `pixeltraj demo`: whatever is not given below is taken from it."""
    store: Path | None = None
    """A rendered store; its states are what can be imagined from."""
    decoder: Path | None = None
    """Folder that `pixeltraj decode train` wrote."""
    lora: Path | None = None
    """Folder that fine-tuning wrote; the base alone if there is none."""
    base: str | None = None
    """A diffusers folder or hub id; the embedded base if not given."""
    length: Path | None = None
    """Folder that `pixeltraj length` wrote: it proposes how many frames are imagined."""
    num_inference_steps: int = 8
    """Denoising steps of the sampler."""
    port: int = 0
    """Where the page is served on this machine; 0 takes any free one."""
    open: bool = True
    """Open the page in the browser."""


def run(config: Config) -> None:
    server = serve(config)
    print(f"{server.url} shows what is imagined; Ctrl-C ends it", flush=True)
    if config.open:
        webbrowser.open(server.url)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        print()
    finally:
        server.server_close()


def serve(config: Config) -> ViewServer:
    """The page's server, bound but not yet answering. Raises PixeltrajError where parts are missing or do not fit."""
    path, parts = find(config)
    store = Store.open(path)
    store.require_frames()
    imaginer, wanted = parts.read()
    if imaginer.task.name != store.task.name:
        raise PixeltrajError(f"{parts.decoder} reads {imaginer.task.name}, {path} holds {store.task.name}")
    if wanted and store.renderer != wanted:
        raise PixeltrajError(
            f"{path} was rendered with {store.renderer}, {parts.decoder} was trained on frames drawn with {wanted}: "
            f"train the decoder on a store that is rendered like this one"
        )
    try:
        return ViewServer(Viewer(store, imaginer), config.port)
    except (OSError, OverflowError) as error:
        raise PixeltrajError(f"nothing can be served on port {config.port} ({error}); give another --port") from error


def find(config: Config) -> tuple[Path, ImagineConfig]:
    """The store, and what the imaginer is put together from: what was given, else what the run's folder has."""
    folder, base = config.run, config.base
    store, decoder, lora, length = config.store, config.decoder, config.lora, config.length
    if folder is not None:
        if not folder.is_dir():
            raise PixeltrajError(f"there is no run at {folder}; `pixeltraj demo --out {folder}` makes one")
        store = store or folder / "demos"
        decoder = decoder or folder / "decoder"
        lora = lora or _there(folder / "lora")
        length = length or _there(folder / "length")
        if base is None and (about := _there(folder / "config.json")):
            said = read_json(about, "demo").get("base", "None")  # a demo keeps its settings as text
            base = None if said == "None" else said
    if store is None or decoder is None:
        lacks = " and ".join(name for name, part in (("--store", store), ("--decoder", decoder)) if part is None)
        raise PixeltrajError(f"give {lacks}, or the folder of a demo: `pixeltraj view runs/demo`")
    steps = config.num_inference_steps
    if steps < 1:
        raise PixeltrajError(f"--num-inference-steps must be at least 1, not {steps}")
    return store, ImagineConfig(decoder, lora, base, length=length, num_inference_steps=steps)


def _there(path: Path) -> Path | None:
    return path if path.exists() else None
