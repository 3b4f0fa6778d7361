"""`pixeltraj decode train`: U-Net features -> states, actions, rewards."""

from typing import Any

from pixeltraj.cli.sight import draw_alike
from pixeltraj.decode.train import TrainConfig, train

Config = TrainConfig


def run(config: TrainConfig) -> None:
    """Train, then print the errors on held-out real frames."""
    print(table(train(config, draw_alike).about["metrics"]))
    print(f"decoder in {config.out}")


def table(metrics: dict[str, Any]) -> str:
    """The errors on held-out real frames, as lines of text."""
    lines = [f"held-out real frames, {metrics['windows']} windows", f"{'state':26}{'error':>10}{'% of range':>12}"]
    for name, row in metrics["state"].items():
        share = "" if row["percent_of_range"] is None else f"{row['percent_of_range']:.2f}"
        lines.append(f"{name:26}{row['error']:>10.4f}{share:>12} {row['unit']}")
    lines.append("keypoints, mm   " + ", ".join(f"{n} {v:.1f}" for n, v in metrics["keypoint_mm"].items()))
    for name, key in (("actions, R^2   ", "action_r2"), ("sampled, R^2   ", "sampled_action_r2")):
        lines.append(f"{name} " + ", ".join(f"{value:.2f}" for value in metrics[key]))
    lines.append("actions, error  " + ", ".join(f"{value:.3f}" for value in metrics["action_error"]))
    for name in ("reward", "termination"):
        lines.append(f"{name:16}" + ", ".join(f"{k} {number(v)}" for k, v in metrics[name].items()))
    return "\n".join(lines)


def number(value: float | int | None) -> str:
    if value is None:
        return "-"
    return str(value) if isinstance(value, int) else f"{value:.3f}"
