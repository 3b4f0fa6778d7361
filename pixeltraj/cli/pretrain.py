"""`pixeltraj pretrain --stores STORE STORE ... --out DIR`"""

import torch

from pixeltraj.finetune.pretrain import PretrainConfig as Config
from pixeltraj.finetune.pretrain import pretrain

__all__ = ["Config", "run"]


def run(config: Config) -> None:
    # Denormal gradients made steps ten times slower. Threads inherit this from the one that starts them.
    torch.set_flush_denormal(True)
    base = pretrain(config)
    print(f"{config.out}: base {base.identity}")
