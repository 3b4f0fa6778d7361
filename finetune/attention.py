"""Attention: which of its implementations a training uses; what is asked for is tried out, not believed."""

from contextlib import AbstractContextManager, nullcontext
from typing import Literal

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from pixeltraj.errors import PixeltrajError

AttentionKind = Literal["auto", "sdpa", "xformers"]
SHORT = 10
"""Frames up to which PyTorch's plain attention is the faster one to train with on a CPU."""


def attend(kind: AttentionKind, k: int, device: torch.device) -> AbstractContextManager[None]:
    """Around a forward pass: PyTorch's choice; under auto not for few tokens on a CPU, where its backward pass is
    slow."""
    plain = kind == "auto" and device.type == "cpu" and k <= SHORT
    return sdpa_kernel(SDPBackend.MATH) if plain else nullcontext()


def require_xformers(device: torch.device) -> None:
    """Raises PixeltrajError unless xformers attends, forward and backward, on that device: built for another PyTorch it
    is found, and fails when it is called."""
    try:
        from xformers.ops import memory_efficient_attention
    except ImportError as error:
        raise PixeltrajError(
            f"--attention xformers needs xformers ({error}): pip install 'pixeltraj[xformers]', or --attention sdpa"
        ) from error
    query = torch.randn(1, 8, 2, 32, generator=torch.Generator().manual_seed(0)).to(device, torch.bfloat16)
    query.requires_grad_(True)  # (B, L, heads, D)
    try:
        memory_efficient_attention(query, query, query).sum().backward()
    except (NotImplementedError, RuntimeError, ValueError) as error:
        why = str(error).strip().splitlines()[0]
        raise PixeltrajError(f"xformers is installed but does not run on {device} ({why}): --attention sdpa") from error
