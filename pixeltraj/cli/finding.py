"""Finding: one line of what `pixeltraj doctor` reports."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Finding:
    """What was tried, how it went, and what to do about it."""

    name: str
    level: Literal["ok", "warn", "fail"]
    """fail: the demo cannot run until it is mended."""
    text: str
    fix: str = ""


def one_line(error: Exception) -> str:
    """The kind of an exception and the first line of what it says."""
    first = next(iter(str(error).strip().splitlines()), "")
    return f"{type(error).__name__}: {first}" if first else type(error).__name__
