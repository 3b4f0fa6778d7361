"""`pixeltraj view RUN`, or `pixeltraj view --store STORE --decoder DIR`"""

import sys
import threading
import webbrowser
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from pixeltraj.cli.imagination import ImagineConfig
from pixeltraj.cli.view_runs import STORES, Run, run_folders
from pixeltraj.cli.view_server import ViewServer
from pixeltraj.decode.decoder import Actions
from pixeltraj.decode.own_reward import Rewards
from pixeltraj.errors import PixeltrajError


@dataclass(frozen=True)
class Config:
    run: Annotated[Path | None, tyro.conf.Positional] = None
    """Folder of `pixeltraj demo`, whatever is not given below being taken from it; or a folder of such folders."""
    store: Path | None = None
    """A rendered store; its states are what can be imagined from."""
    decoder: Path | None = None
    """Folder that `pixeltraj decode train` wrote."""
    lora: Path | None = None
    """Folder that fine-tuning wrote; the base alone if there is none."""
    base: str | None = None
    """A diffusers folder, single file or hub id; the embedded base if not given."""
    length: Path | None = None
    """Folder that `pixeltraj length` wrote: it proposes how many frames are imagined."""
    num_inference_steps: int | None = None
    """Denoising steps of the sampler: as few as do for the embedded base if not given; a Stable Diffusion of full size
    wants 8 to 12."""
    rewards: Rewards = "learned"
    """Where rewards and ends come from. task: its own function of decoded states and actions, not learned."""
    actions: Actions = "sampled"
    """Where actions come from. sampled: what the store's agent would have done between the decoded states; read: off
    the pictures."""
    port: int = 0
    """Where the page is served on this machine; 0 takes any free one."""
    open: bool = True
    """Open the page in the browser."""


def run(config: Config) -> None:
    server = serve(config)
    for name, one in server.runs.items():
        if one.error:
            print(f"{name} cannot be shown: {one.error}", file=sys.stderr)
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
    """The page's server, bound but not yet answering.

    Raises PixeltrajError where parts of the one run are missing or do not fit, or where no run of several is usable.
    """
    runs = find(config)
    if len(runs) == 1:
        runs[0].open()
    else:
        for one in runs:
            one.look()
        if all(one.error for one in runs):
            raise PixeltrajError(
                f"none of the {len(runs)} runs in {config.run} can be shown; of {runs[0].name}: {runs[0].error}"
            )
    try:
        return ViewServer(runs, config.port)
    except (OSError, OverflowError) as error:
        raise PixeltrajError(f"nothing can be served on port {config.port} ({error}); give another --port") from error


def find(config: Config) -> list[Run]:
    """One run, of what was given and else of what its folder has; or those in a folder of several."""
    if config.num_inference_steps is not None and config.num_inference_steps < 1:
        raise PixeltrajError(f"--num-inference-steps must be at least 1, not {config.num_inference_steps}")
    folder, busy = config.run, threading.Lock()
    if folder is None:
        return [_one(config, None, busy)]
    if not folder.is_dir():
        raise PixeltrajError(f"there is no run at {folder}; `pixeltraj demo --out {folder}` makes one")
    folders = run_folders(folder)
    given = [f"--{name}" for name in ("store", "decoder", "lora", "length") if getattr(config, name)]
    if given and folders in ([], [folder]):
        return [_one(config, folder, busy)]
    if given:
        raise PixeltrajError(f"{folder} holds {len(folders)} runs, {given[0]} is for one: give that one's folder")
    if not folders:
        raise PixeltrajError(f"{folder} is no run and holds none; `pixeltraj demo --out {folder}` makes one")
    return [_one(config, path, busy) for path in folders]


def _one(config: Config, folder: Path | None, busy: threading.Lock) -> Run:
    store, decoder, lora, length = config.store, config.decoder, config.lora, config.length
    if folder is not None:
        store = store or next(filter(None, (_there(folder / name) for name in STORES)), folder / STORES[0])
        decoder = decoder or folder / "decoder"
        lora = lora or _there(folder / "lora")
        length = length or _there(folder / "length")
    if store is None or decoder is None:
        lacks = " and ".join(name for name, part in (("--store", store), ("--decoder", decoder)) if part is None)
        raise PixeltrajError(f"give {lacks}, or the folder of a demo: `pixeltraj view runs/demo`")
    parts = ImagineConfig(
        decoder,
        lora,
        config.base,
        length=length,
        num_inference_steps=config.num_inference_steps,
        rewards=config.rewards,
        actions=config.actions,
    )
    path = folder or store
    return Run(path.name or path.resolve().name, store, parts, busy, folder and folder / "config.json")


def _there(path: Path) -> Path | None:
    return path if path.exists() else None
