"""The tidy table: all curves of a recipe in one Parquet file, a row for every evaluation of every run."""

from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from pixeltraj.errors import PixeltrajError
from pixeltraj.eval.d4rl_scores import normalised
from pixeltraj.eval.results import Result
from pixeltraj.files import write_whole

COLUMNS = {
    "experiment": "string",
    "panel": "string",
    "task": "string",
    "dataset": "string",
    "arm": "string",
    "seed": "int64",
    "step": "int64",
    "score": "float64",
    "normalised": "float64",
    "seconds": "float64",
    "seconds_imagining": "float64",
    "imagined": "int64",
    "own": "int64",
}
"""normalised is null where D4RL has no reference; from `seconds` on they are those of the whole run."""


def require_pyarrow() -> ModuleType:
    """pyarrow itself. Raises PixeltrajError where it is not installed."""
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise PixeltrajError(
            f"results.parquet needs pyarrow, which cannot be imported ({error}): pip install 'pixeltraj[experiments]'"
        ) from error
    return pyarrow


def rows(experiment: str, panel: str, task: str, dataset: str, results: Sequence[Result]) -> list[dict[str, Any]]:
    """Of one trial's finished runs."""
    return [
        {
            "experiment": experiment,
            "panel": panel,
            "task": task,
            "dataset": dataset,
            "arm": result.arm,
            "seed": result.seed,
            "step": step,
            "score": score,
            "normalised": normalised(task, score),
            "seconds": result.seconds,
            "seconds_imagining": result.seconds_imagining,
            "imagined": result.imagined,
            "own": result.own,
        }
        for result in results
        for step, score in result.curve
    ]


def write(path: Path, table: Sequence[dict[str, Any]]) -> None:
    """Raises PixeltrajError where pyarrow is not installed."""
    pyarrow = require_pyarrow()
    schema = pyarrow.schema([(name, getattr(pyarrow, kind)()) for name, kind in COLUMNS.items()])
    made = pyarrow.Table.from_pylist(list(table), schema=schema)
    write_whole(path, lambda beside: pyarrow.parquet.write_table(made, beside))


def read(path: Path) -> list[dict[str, Any]]:
    """Raises PixeltrajError where pyarrow is not installed or the file is no such table."""
    pyarrow = require_pyarrow()
    try:
        found = pyarrow.parquet.read_table(path)
    except (OSError, pyarrow.ArrowInvalid) as error:
        raise PixeltrajError(f"{path} is not a table of results: {error}") from error
    if found.column_names != list(COLUMNS):
        raise PixeltrajError(f"{path} has other columns than a table of results: {', '.join(found.column_names)}")
    return found.to_pylist()
