"""`pixeltraj distill LORA --store STORE --out DIR`"""

import torch

from pixeltraj.finetune.distill import DistillConfig as Config
from pixeltraj.finetune.distill import distill

__all__ = ["Config", "run"]


def run(config: Config) -> None:
    # Denormal gradients made steps ten times slower. Threads inherit this from the one that starts them.
    torch.set_flush_denormal(True)
    result = distill(config)
    before, after = (result[f"heldout_loss_{when}"] for when in ("before", "after"))
    print(f"{config.out}: one step is {after:.4f} from the teacher's {config.cut}, {before:.4f} before")
