"""The command line: one file a command, each with a dataclass `Config` and a function `run(config)`.

A command's file is imported only when it is called, so that `pixeltraj --help` answers at once and a command
needs only what it uses.
"""

import errno
import importlib
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches

from pixeltraj.errors import PixeltrajError

NO_MUJOCO = (
    "MuJoCo cannot be imported with MUJOCO_GL={backend} ({reason}); "
    "`pixeltraj doctor` tells what this machine needs to draw frames"
)
_OF_THE_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR}


@dataclass(frozen=True)
class Command:
    """One line of `pixeltraj --help`."""

    module: str
    """In pixeltraj/cli."""
    summary: str
    simulator: bool = True
    """Needs MuJoCo."""


COMMANDS: dict[str, Command] = {
    "doctor": Command("doctor", "what this machine can do, and the exact fix for what it cannot", simulator=False),
    "demo": Command("demo", "everything below on one task, small; ends with a report"),
    "collect": Command("collect", "trajectories of a policy in the simulator -> a store"),
    "render": Command("render", "84x84 frames for every state of a store"),
    "camera": Command("camera", "the camera through which states can be read best, proposed from them"),
    "latents": Command("latents", "a store's frames as the VAE sees them, made once for all that train on them"),
    "decode train": Command("decode_train", "the decoder: U-Net features -> keypoints, states, actions, rewards"),
    "length": Command("length", "the length estimator: how many frames a trajectory needs"),
    "imagine": Command("imagine", "imagined trajectories from held-out states, and pictures of them"),
    "audit": Command("audit", "imagined transitions against the simulator and against real ones"),
    "synther": Command("synther", "the SynthER baseline: transitions sampled from a diffusion model of states"),
    "state-level": Command("state_level", "that baseline for trajectories: a diffusion model of whole ones, as states"),
    "view": Command("view", "a page to choose a start state and watch what is imagined from it", simulator=False),
    "eval": Command("eval", "the same agent with and without imagination"),
    "experiment": Command("experiment", "a table or figure of the paper: makes what it needs, runs it, compares"),
    "report": Command("report", "one page: what was imagined beside the simulator, and where the pipeline loses"),
    "distill": Command("distill", "a fine-tuned LoRA -> one that needs one to four denoising steps"),
    "pretrain": Command("pretrain", "the embedded base from scratch"),
    "import": Command("importing", "a dataset of D4RL, Minari or NPZ -> a store"),
    "export": Command("exporting", "a store -> Minari, NPZ or a folder of training images"),
}


def main(arguments: list[str] | None = None) -> int:
    """Run one command -> the exit status: 0 done, 1 found wanting, 2 not possible as asked, 130 interrupted.

    arguments: without the program's name; the command line's if not given.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    if not arguments or arguments[0] in ("-h", "--help"):
        print(overview())
        return 0 if arguments else 2
    return guarded(lambda: run_command(*find_command(arguments)))


def guarded(work: Callable[[], int]) -> int:
    """The exit status of `work`; what a user can mend becomes one line on stderr."""
    try:
        return work()
    except PixeltrajError as error:
        return _fail(str(error))
    except OSError as error:
        if error.errno not in _OF_THE_DISK:
            raise
        place = error.filename or "a file"
        return _fail(f"{place} cannot be written: {error.strerror}; free space or choose another folder")
    except KeyboardInterrupt:
        _fail("interrupted; the same command goes on from here")
        return 130


def overview() -> str:
    """The text of `pixeltraj --help`."""
    width = max(map(len, COMMANDS)) + 2
    lines = [f"  {name:{width}}{command.summary}" for name, command in COMMANDS.items()]
    return "\n".join(
        [
            "usage: pixeltraj COMMAND [OPTIONS]",
            "",
            "Imaginary experience for RL agents.",
            "",
            *lines,
            "",
            "`pixeltraj COMMAND --help` explains a command. Fine-tuning has its own launcher:",
            "`accelerate launch -m pixeltraj.finetune --help`.",
        ]
    )


def find_command(arguments: list[str]) -> tuple[str, list[str]]:
    """(name, what follows it). Raises PixeltrajError where there is no such command."""
    for words in (2, 1):
        name = " ".join(arguments[:words])
        if name in COMMANDS:
            return name, arguments[words:]
    typed = next((name for name in COMMANDS if name.split()[0] == arguments[0]), None)
    near = [typed] if typed else get_close_matches(arguments[0], COMMANDS, n=1)
    hint = f"did you mean `pixeltraj {near[0]}`?" if near else f"there are: {', '.join(COMMANDS)}"
    raise PixeltrajError(f"unknown command {arguments[0]!r}: {hint}")


def run_command(name: str, arguments: list[str]) -> int:
    """Parse the arguments into the command's `Config` and run it."""
    import tyro

    command = COMMANDS[name]
    if command.simulator:
        try:
            import mujoco  # noqa: F401
        except Exception as error:  # it loads the GL binding, and each fails in its own way
            backend = os.environ.get("MUJOCO_GL", "unset")
            raise PixeltrajError(NO_MUJOCO.format(backend=backend, reason=_first_line(error))) from error
    module = importlib.import_module(f"pixeltraj.cli.{command.module}")
    config = tyro.cli(module.Config, prog=f"pixeltraj {name}", description=command.summary, args=arguments)
    return module.run(config) or 0


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]


def _fail(reason: str) -> int:
    print(f"error: {' '.join(reason.split())}", file=sys.stderr)
    return 2
