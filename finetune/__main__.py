"""accelerate launch -m pixeltraj.finetune --store STORE --k 5 --out DIR"""

import json
import sys

import torch
import tyro
from accelerate import PartialState

from pixeltraj.cli import guarded
from pixeltraj.finetune.train import FinetuneConfig, finetune


def main() -> int:
    # Denormal gradients made steps ten times slower. Threads inherit this from the one that starts them.
    torch.set_flush_denormal(True)
    config = tyro.cli(FinetuneConfig, prog="pixeltraj.finetune", description=__doc__)
    result = finetune(config)
    keys = ("steps", "loss_before", "loss_after", "heldout_loss_before", "heldout_loss_after")
    PartialState().print(json.dumps({key: result[key] for key in keys}))  # once, whatever the number of processes
    return 0


if __name__ == "__main__":
    sys.exit(guarded(main))
