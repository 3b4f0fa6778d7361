"""Guidance: how strongly each condition steers the sampler (classifier-free, Ho & Salimans 2022)."""

from dataclasses import dataclass

from pixeltraj.errors import PixeltrajError


@dataclass(frozen=True)
class Condition:
    """What the U-Net is told in one forward pass."""

    frame: bool = True
    state: bool = True
    prompt: bool = True


@dataclass(frozen=True)
class Guidance:
    """guidance_scale of each condition: 1 follows it as it was trained, more exaggerates it, 0 ignores it.

    Each condition is guided by what it adds to those before it (frame, state, prompt), as in InstructPix2Pix
    (Brooks et al. 2023, equation 3). Every scale that differs from the next one costs one more forward pass a step.
    """

    frame: float = 1.0
    """The first frame."""
    state: float = 1.0
    """The current state's tokens."""
    prompt: float = 1.0
    """The task's prompt."""

    def __post_init__(self) -> None:
        if min(self.frame, self.state, self.prompt) < 0:
            raise PixeltrajError(f"guidance scales must not be negative: {self}")

    def passes(self, states: bool) -> dict[Condition, float]:
        """The forward passes that are needed, each with its factor; the factors add up to 1.

        states: whether the generator takes state tokens at all.
        """
        factors: dict[Condition, float] = {}
        for condition, factor in (
            (Condition(False, False, False), 1 - self.frame),
            (Condition(True, False, False), self.frame - self.state),
            (Condition(True, states, False), self.state - self.prompt),
            (Condition(True, states, True), self.prompt),
        ):
            factors[condition] = factors.get(condition, 0.0) + factor
        return {condition: factor for condition, factor in factors.items() if abs(factor) > 1e-9}


UNGUIDED = Guidance()
"""Every condition as it was trained: one forward pass a step."""
