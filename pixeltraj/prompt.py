"""Prompt: how a generator is told what is to be done (ATraDiff, section 5.5 and figure 9)."""

import zlib
from typing import Literal

PromptKind = Literal["language", "one-hot", "none"]
"""Plain words; a code that only tells tasks apart; nothing at all."""


def worded(prompt: str, kind: PromptKind) -> str:
    """What the text encoder reads instead of a task's prompt. The code is the same wherever the words are."""
    if kind == "none" or not prompt:
        return ""
    return prompt if kind == "language" else f"task {zlib.crc32(prompt.encode()) % 100_000:05d}"
