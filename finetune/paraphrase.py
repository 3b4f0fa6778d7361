"""Paraphrases: a task's prompt in other words, so that a base listens to what is said and not to how."""

import numpy as np

WORDS: dict[str, tuple[str, ...]] = {
    "push": ("shove", "nudge"),
    "pull": ("drag", "draw"),
    "slide": ("glide", "shift"),
    "press": ("hit", "click"),
    "turn": ("rotate", "twist"),
    "turns": ("rotates", "twists"),
    "lift": ("raise", "hoist"),
    "pick": ("take",),
    "picks": ("takes",),
    "put": ("place", "set"),
    "sweep": ("wipe", "brush"),
    "roll": ("steer", "drive"),
    "drive": ("hammer", "knock"),
    "shut": ("closed",),
    "puck": ("disc",),
    "block": ("cube", "brick"),
    "mug": ("cup",),
    "ball": ("sphere",),
    "goal": ("target", "mark"),
    "hole": ("opening",),
    "wall": ("barrier",),
    "gripper": ("fingers", "claw"),
    "plate": ("dish",),
    "lid": ("cover",),
    "stick": ("rod",),
    "thermos": ("bottle", "flask"),
    "handle": ("grip",),
    "faucet": ("tap",),
    "box": ("case",),
    "maze": ("labyrinth",),
    "runs": ("sprints", "races"),
    "walks": ("goes", "marches"),
    "carries": ("brings",),
    "large": ("big",),
}
"""Words that mean the same in every prompt they stand in."""
FRAMES = ("{}", "{}.", "now {}", "task: {}", "what to do: {}")


def paraphrase(prompt: str, rng: np.random.Generator) -> str:
    """The prompt itself half of the time; else each word of WORDS replaced half of the time, in one of FRAMES."""
    if rng.random() < 0.5:
        return prompt
    words = []
    for word in prompt.split():
        end = "," if word.endswith(",") else ""
        others = WORDS.get(word.removesuffix(","), ())
        words.append(str(rng.choice(others)) + end if others and rng.random() < 0.5 else word)
    return FRAMES[rng.integers(len(FRAMES))].format(" ".join(words))


def vocabulary(prompts: list[str]) -> list[str]:
    """Texts that hold every word of the prompts and of their paraphrases."""
    return [*prompts, *FRAMES, *(word for others in WORDS.values() for word in others)]
