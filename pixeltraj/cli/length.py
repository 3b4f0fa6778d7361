"""`pixeltraj length STORE --out DIR`"""

from pixeltraj.length import LengthConfig as Config
from pixeltraj.length import train_length

__all__ = ["Config", "run"]


def run(config: Config) -> None:
    metrics = train_length(config).about["metrics"]
    if metrics["states"]:
        print(
            f"held-out states, {metrics['states']}: {metrics['right_preset']:.0%} get the right preset, "
            f"{metrics['too_short']:.0%} a shorter and {metrics['too_long']:.0%} a longer one"
        )
    print(f"length estimator in {config.out}")
