"""Processes: how those that `accelerate launch` starts share a fine-tuning, by DDP or by FSDP2, as its file says."""

import os
import warnings
from datetime import timedelta
from typing import Any

import torch
from accelerate import Accelerator, InitProcessGroupKwargs
from accelerate.utils import parse_flag_from_env, patch_environment
from diffusers.training_utils import EMAModel
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.utils._pytree import tree_map_only

from pixeltraj.base import Base
from pixeltraj.errors import PixeltrajError
from pixeltraj.finetune.computing import Computing

FIRST_LATENTS = timedelta(hours=3)
"""How long other processes wait for the first one, which encodes the frames."""
OTHERS = {"DEEPSPEED": "DeepSpeed", "MEGATRON_LM": "Megatron-LM", "PARALLELISM_CONFIG": "a parallelism_config"}
REFUSED = ("FSDP_CPU_RAM_EFFICIENT_LOADING", "FSDP_OFFLOAD_PARAMS", "FSDP_ACTIVATION_CHECKPOINTING")
"""Settings of FSDP that this training does not have: it loads the base in every process, keeps it on the device, and
has --checkpointing."""
SHIPPED = "finetune/configs/8-gpus-fsdp.yaml"


class Processes:
    """DDP: every process holds everything. FSDP2: each holds its share of every weight and of its optimizer, and asks
    the others for a layer's when it computes that layer (`torch.distributed.fsdp.fully_shard`).

    `accelerator` is told of neither FSDP nor precision: its FSDP takes one model only, and turns into DDP on a CPU.
    `sharded`: weights stand in several processes.
    """

    def __init__(self, accumulate: int = 1) -> None:
        """accumulate: backward passes of a step. Without a GPU on the CPU, however it was launched."""
        with patch_environment(ACCELERATE_USE_FSDP="false"):
            self.accelerator = Accelerator(
                gradient_accumulation_steps=accumulate,
                mixed_precision="no",
                cpu=not torch.accelerator.is_available(),
                kwargs_handlers=[InitProcessGroupKwargs(timeout=FIRST_LATENTS)],
            )
        self.sharded = _fsdp() and self.accelerator.num_processes > 1

    def wrap(self, base: Base, text: bool) -> list[nn.Module]:
        """Make what is trained known to all processes, in place -> the models. text: the text encoder is trained too.

        Under FSDP2 the parameters of these models are new ones afterwards.
        """
        names = ["unet", *(["state_encoder"] if base.state_encoder is not None else []), *(["text_encoder"] * text)]
        for name in names:
            model = getattr(base, name)
            setattr(base, name, self._shard(model) if self.sharded else self.accelerator.prepare(model))
        return [getattr(base, name) for name in names]

    def unwrap(self, base: Base) -> None:
        """Ready to be evaluated: by every process, since under FSDP2 each still holds its share only."""
        base.unet = self.accelerator.unwrap_model(base.unet).eval()
        base.text_encoder = self.accelerator.unwrap_model(base.text_encoder)
        if base.state_encoder is not None:
            base.state_encoder = self.accelerator.unwrap_model(base.state_encoder).eval()

    @torch.no_grad()
    def whole(self, states: Any) -> Any:
        """State dicts with whole tensors instead of shares. Every process has to call it."""
        return tree_map_only(DTensor, lambda share: share.full_tensor(), states)

    def restore(
        self,
        states: dict[str, Any],
        parameters: list[nn.Parameter],
        optimizer: torch.optim.Optimizer,
        average: EMAModel | None,
    ) -> None:
        """The optimizer and the average go on from state dicts that `whole` gave; each process keeps its share."""
        optimizer.load_state_dict(states["optimizer"])
        for parameter, moments in optimizer.state.items():
            moments.update({name: _share(value, parameter) for name, value in moments.items()})
        if average:
            average.load_state_dict(states["average"])
            average.to(self.accelerator.device)
            average.shadow_params = list(map(_share, average.shadow_params, parameters))

    def _shard(self, model: nn.Module) -> nn.Module:
        mesh = init_device_mesh(self.accelerator.device.type, (self.accelerator.num_processes,))
        reshard = bool(parse_flag_from_env("FSDP_RESHARD_AFTER_FORWARD", default=True))
        layers = os.environ.get("FSDP_TRANSFORMER_CLS_TO_WRAP", "").split(",")  # classes fetched as a whole
        for module in reversed(list(model.modules())):  # the innermost first
            if type(module).__name__ in layers and module is not model:
                fully_shard(module, mesh=mesh, reshard_after_forward=reshard)
        fully_shard(model, mesh=mesh)
        # what comes out of the state encoder is a view; nothing here is added to it in place
        warnings.filterwarnings("ignore", "FSDP2-wrapped module")
        if self.accelerator.device.type == "cpu":  # gloo does not average
            for module in model.modules():
                if isinstance(module, FSDPModule):
                    module.set_force_sum_reduction_for_comms(True)
        return model


def check_launch(computing: Computing) -> None:
    """Raises PixeltrajError where accelerate's file asks for what this training cannot do, before anything is
    loaded."""
    for name, words in OTHERS.items():
        if parse_flag_from_env(f"ACCELERATE_USE_{name}"):
            raise PixeltrajError(f"{words} is not supported: launch with DDP or FSDP2, as finetune/configs has them")
    if not _fsdp():
        return
    if os.environ.get("FSDP_VERSION") != "2":
        raise PixeltrajError(f"of FSDP only the second version is supported: set fsdp_version: 2, as {SHIPPED} has it")
    for name in REFUSED:
        if parse_flag_from_env(name):
            raise PixeltrajError(f"{name.lower()} is not supported: set it to false, as {SHIPPED} has it")
    if os.environ.get("FSDP_AUTO_WRAP_POLICY", "NO_WRAP").upper() == "SIZE_BASED_WRAP":
        raise PixeltrajError(f"FSDP wraps layers by their classes here, not by size: name them, as {SHIPPED} does")
    for option in ("channels_last", "adam_8bit"):
        if getattr(computing, option):
            raise PixeltrajError(f"--{option.replace('_', '-')} does not work with FSDP: leave one of them out")


def _share(whole: Tensor, parameter: Tensor) -> Tensor:
    """What this process holds of a tensor that belongs to a parameter."""
    if not isinstance(parameter, DTensor) or whole.shape != parameter.shape:  # how many steps there were, say
        return whole
    return distribute_tensor(whole, parameter.device_mesh, parameter.placements, src_data_rank=None)


def _fsdp() -> bool:
    return bool(parse_flag_from_env("ACCELERATE_USE_FSDP"))
