"""Audited: what `pixeltraj audit` wrote of each imagined transition, as the report shows it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from pixeltraj.cli.audit import columns as table
from pixeltraj.cli.audit import rows
from pixeltraj.errors import PixeltrajError
from pixeltraj.eval.cases import Case
from pixeltraj.files import read_json
from pixeltraj.store import Store

FILE = "transitions.safetensors"
_WANTED = ("episode", "step", "error_pct", "action_residual", "violation", "reward_wrong", "diverged")


@dataclass
class Audited:
    """n transitions of an imagined store."""

    columns: dict[str, np.ndarray]
    """(n, ...) each of `_WANTED`"""
    found: dict[str, Any]
    """What its audit.json says."""

    @classmethod
    def find(cls, folder: Path, given: bool, imagined: Store) -> "Audited | None":
        """The audit in a folder; None where there is none and none was asked for.

        Raises PixeltrajError where it is damaged, or of other transitions than the imagined store holds.
        """
        path = folder / FILE
        again = f"make it again: {command(imagined.path, folder)}"
        if not path.is_file():
            if given:
                raise PixeltrajError(f"no audit at {folder}: {command(imagined.path, folder)} makes one")
            return None
        try:
            columns = load_file(path)
        except (OSError, SafetensorError) as error:
            raise PixeltrajError(f"{path} cannot be read ({error}); {again}") from error
        if lacking := [name for name in _WANTED if name not in columns]:
            raise PixeltrajError(f"{path} lacks {', '.join(lacking)}; {again}")
        lengths = np.array([episode["transitions"] for episode in imagined.episodes])
        episode, step = columns["episode"], columns["step"]
        if len(episode) and not ((episode < len(lengths)).all() and (step < lengths[episode]).all()):
            raise PixeltrajError(f"{path} is of transitions that {imagined.path} does not have; {again}")
        found = read_json(folder / "audit.json", "audit")
        if found.get("task") != imagined.task.name:
            raise PixeltrajError(
                f"{folder} is of {found.get('task')}, {imagined.path} holds {imagined.task.name}; {again}"
            )
        return cls(columns, found)

    @property
    def summary(self) -> dict[str, Any]:
        """JSON-able: the table that `pixeltraj audit` prints, and how many transitions are wrong in which way."""
        columns = self.columns
        labels = [label.strip() for label, _ in rows(self.found, self.found["imagined"])]
        return {
            "labels": labels,
            "columns": {
                name: values for name, values in table(self.found).items() if any(v is not None for v in values)
            },
            "transitions": len(columns["episode"]),
            "violations": int((columns["violation"] > 0).sum()),
            "rewards_wrong": int((columns["reward_wrong"] > 0).sum()),
            "diverged": int((columns["diverged"] > 0).sum()),
        }


def add_checks(cases: Sequence[Case], audited: Audited | None) -> None:
    """Give each case what the audit says of its transitions; NaN where it says nothing."""
    if audited is None:
        return
    columns = audited.columns
    residual = columns["action_residual"]
    checks = {
        "one_step": columns["error_pct"],
        "action_residual": _mean_told(np.abs(residual)),
        **{name: columns[name] for name in ("violation", "reward_wrong", "diverged")},
    }
    for case in cases:
        mine = np.flatnonzero(columns["episode"] == case.episode)
        for name, values in checks.items():
            case.checks[name] = np.full(len(case.imagined), np.nan)
            case.checks[name][columns["step"][mine]] = values[mine]


def _mean_told(residual: np.ndarray) -> np.ndarray:
    """(n, A) -> (n,) the mean over the dimensions that could be told, NaN where none could."""
    told = np.isfinite(residual)
    return np.where(told.any(axis=1), np.nansum(residual, axis=1) / np.maximum(told.sum(axis=1), 1), np.nan)


def command(imagined: Path, folder: Path) -> str:
    return f"`pixeltraj audit {imagined} --real STORE --out {folder}`"
