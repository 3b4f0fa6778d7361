"""Run a training and note when each optimizer step was done.

    finetune_clock.py FILE [--uncropped] SCRIPT ...
    finetune_clock.py FILE -m MODULE ...

FILE gets JSON, {"steps": [[wall, cpu], ...]}: seconds since this process began, on the clock and of its processor. It
needs nothing but PyTorch, so that any training can be run by it in its own environment.
"""

import json
import runpy
import sys
import time
from pathlib import Path

from torch.optim.optimizer import register_optimizer_step_post_hook


def main() -> None:
    began, steps = time.perf_counter() - time.process_time(), []
    register_optimizer_step_post_hook(lambda *_: steps.append([time.perf_counter() - began, time.process_time()]))
    out, sys.argv = Path(sys.argv[1]), sys.argv[2:]
    if sys.argv[0] == "--uncropped":
        leave_out_crop()
        sys.argv.pop(0)
    try:
        if sys.argv[0] == "-m":
            module, sys.argv = sys.argv[1], sys.argv[1:]
            runpy.run_module(module, run_name="__main__", alter_sys=True)
        else:
            sys.path.insert(0, str(Path(sys.argv[0]).parent))
            runpy.run_path(sys.argv[0], run_name="__main__")
    except SystemExit as ended:
        if ended.code:
            raise
    out.write_text(json.dumps({"steps": steps}))


def leave_out_crop() -> None:
    """torchvision's random crop then gives back what it is given."""
    from torchvision import transforms

    transforms.RandomCrop.forward = lambda _, image: image


if __name__ == "__main__":
    main()
