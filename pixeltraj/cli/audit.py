"""`pixeltraj audit STORE --real REAL --out AUDIT`"""

from typing import Any

from pixeltraj.decode.audit_store import AuditConfig as Config
from pixeltraj.decode.audit_store import audit_store

__all__ = ["Config", "run", "table"]

_COLUMNS = ("imagined", "real", "nothing moves", "synther")
_WORST = 3


def run(config: Config) -> None:
    found = audit_store(config)
    print(table(found))
    print(f"\n{config.out / 'audit.json'}, {config.out / 'transitions.safetensors'}")


def table(found: dict[str, Any]) -> str:
    """What `audit_store` found, as a person reads it in ten seconds: a row a figure, a column a yardstick."""
    names = [name for name in _COLUMNS if name != "synther" or found["synther"]]
    wanted = {name: [_text(value) for value in column] for name, column in columns(found).items() if name in names}
    labels = [label for label, _ in rows(found, found["imagined"])]
    left = max(map(len, labels))
    made = found["imagined"]
    counted = f"{made['trajectories']} trajectories, {made['transitions']} transitions"
    speed = f"{found['seconds']:.0f} s, {found['transitions_per_cpu_second']:.0f} transitions a CPU-second"
    lines = [f"{found['task']}: {counted} of {found['store']}; {speed}", ""]
    lines.append(" " * left + "".join(f"{name:>15}" for name in names))
    for i, label in enumerate(labels):
        lines.append(f"{label:{left}}" + "".join(f"{wanted[name][i]:>15}" for name in names).rstrip())
    return "\n".join([*lines, *notes(found)])


def columns(found: dict[str, Any]) -> dict[str, list[Any]]:
    """The values of each column of the table; None where there is none."""
    made, covered = found["imagined"], found["imagined"]["coverage"]
    labels = [label for label, _ in rows(found, made)]
    real = dict(rows(found, found["real"] | {"coverage": covered["real"] if covered else None}))
    still: dict[str, Any] = {}
    if made["one_step"]:
        still = {labels[0]: made["one_step"]["nothing_moves"]["percent_of_range"]}
        still |= {f"  {name}": _dimension(made, name, "nothing_moves") for name in worst(found)}
    if made["open_loop"]:
        last = made["open_loop"]["steps"][-1]
        still[_open_loop_label(made)] = last["nothing_moves"]["percent_of_range"]
    if covered:
        still["coverage of held-out windows, %"] = 100 * covered["nothing_moves"]["coverage"]
    other = dict(rows(found, found["synther"])) if found["synther"] else {}
    by_name = {"imagined": dict(rows(found, made)), "real": real, "nothing moves": still, "synther": other}
    return {name: [values.get(label) for label in labels] for name, values in by_name.items()}


def rows(found: dict[str, Any], part: dict[str, Any]) -> list[tuple[str, Any]]:
    """Label and value of each figure of one subject."""
    one, open_loop, drift = part["one_step"], part["open_loop"], part["static_drift"]
    bent, covered, bad = part["coherence"], part["coverage"], part["violations"]
    last = open_loop["steps"][-1]["error"]["percent_of_range"] if open_loop else None
    return [
        ("one-step error, % of range", one and one["error"]["percent_of_range"]),
        *((f"  {name}", _dimension(part, name, "error")) for name in worst(found)),
        (_open_loop_label(found["imagined"]), last),
        ("action that does not fit, mean |residual|", part["action_residual"]["mean"]),
        ("joints past their limits, %", _percent(bad["joint_limits"], bad["transitions"])),
        ("contacts deeper than real, %", _percent(bad["contacts"], bad["transitions"])),
        ("reward wrong, %", _percent(part["reward"]["wrong"], part["reward"]["compared"])),
        ("termination wrong, %", _percent(part["termination"]["wrong"], part["termination"]["compared"])),
        ("drift of what is static, mm", _drift_mm(drift)),
        ("jerkiness of keypoints, mm", bent and bent["mean"]),
        ("coverage of held-out windows, %", covered and 100 * covered["coverage"]),
        ("distance to training windows, % of range", covered and covered["nearest_training"]),
        ("diversity, of the real one", covered and covered["diversity"]),
        ("refused: NaN, or cannot be set", part["refused"]),
        ("diverged", part["diverged"]),
    ]


def worst(found: dict[str, Any]) -> list[str]:
    """The dimensions in which imagination loses most against real transitions, in % of their ranges."""
    made, real = found["imagined"]["one_step"], found["real"]["one_step"]
    if not made or not real:
        return []
    parts = (made["error"]["dimensions"], real["error"]["dimensions"])
    lost = {n: d["percent_of_range"] - parts[1][n]["percent_of_range"] for n, d in parts[0].items() if _moves(d)}
    return sorted(lost, key=lambda name: -lost[name])[:_WORST]


def notes(found: dict[str, Any]) -> list[str]:
    """What has to be said in words."""
    made = found["imagined"]
    said = []
    dimensions = made["action_residual"]["dimensions"]
    silent = [str(i) for i, row in enumerate(dimensions) if row["mean"] is None]
    if silent:
        said.append(f"action dimension {', '.join(silent)}: one decision moves the state too little to tell")
    for name in ("imagined", "synther"):
        part = found[name]
        if not part:
            continue
        if left := part["refused"] + part["diverged"]:
            said.append(f"{name}: {left} of {part['transitions']} transitions could not be judged: in no average")
        if unasked := part["transitions"] - left - part["reward"]["compared"]:
            said.append(f"{name}: the rewards of {unasked} could not be compared: the simulator has another goal there")
    return ["", *said] if said else []


def _moves(dimension: dict[str, Any]) -> bool:
    return dimension["percent_of_range"] is not None


def _dimension(part: dict[str, Any], name: str, which: str) -> float | None:
    return part["one_step"][which]["dimensions"][name]["percent_of_range"] if part["one_step"] else None


def _open_loop_label(made: dict[str, Any]) -> str:
    steps = made["open_loop"]["steps"][-1]["step"] if made["open_loop"] else 0
    return f"open loop after {steps} steps, % of range" if steps else "open loop"


def _drift_mm(drift: dict[str, Any] | None) -> float | None:
    """Of what drifts most: a keypoint, or a length of the state."""
    points = [point["mean"] for point in drift["keypoints_mm"].values()] if drift else []
    lengths = [1000 * row["mean"] for row in drift["dimensions"].values() if row["unit"] == "m"] if drift else []
    return max(points + lengths, default=None)


def _percent(count: int, of: int) -> float | None:
    return 100 * count / of if of else None


def _text(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, int):
        return str(value)
    return f"{value:.3f}" if 0.0005 <= abs(value) < 0.1 else f"{value:.2f}"
