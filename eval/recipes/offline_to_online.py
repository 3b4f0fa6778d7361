"""Recipes of agents that begin with offline data: D4RL (Figure 4), Meta-World (Figure 5), and the ablations there."""

from collections.abc import Callable
from typing import Any

from pixeltraj.eval.recipes.locomotion import OWN_DATA, QUALITIES, WORDS
from pixeltraj.eval.recipes.recipe import Adapt, Data, Dreamer, Dreamt, Recipe, Sampled, Scale, Side, Trial

AGENTS = ("rlpd", "spirl", "parrot")
MAZES = (
    "AntMaze_UMaze_Fixed-v5", "AntMaze_UMaze-v5", "AntMaze_Medium-v5", "AntMaze_Medium_Diverse_GR-v5",
    "AntMaze_Large-v5", "AntMaze_Large_Diverse_GR-v5",
)  # fmt: skip
KITCHEN = "FrankaKitchen-mixed-v1"
PUSH, MANY, SEQUENCE = "push-v3", "multitask-v0", "sequence-v0"

# Table 5: SynthER, single transitions, trajectories, + condition on the state, full; RLPD
TABLE_5_SIDES = ("synther", "transition", "trajectory", "condition", "full")
TABLE_5 = {
    "Locomotion": (94.6, 93.5, 97.1, 101.3, 102.3),
    "AntMaze": (97.3, 97.2, 97.6, 98.2, 98.7),
    "Multitask": (0.57, 0.60, 0.72, 0.75, 0.77),
    "Sequence": (0.62, 0.64, 0.71, 0.79, 0.81),
}
DEMONSTRATIONS = (
    "scripted demonstrations instead of an agent's replay; all sides have demonstrations of the evaluation task, the "
    "generator has those of 14 other tasks (push) or of whole sequences (sequence)"
)


def meta_world(scale: Scale) -> list[tuple[str, Data, Dreamer]]:
    """(panel, the agent's data, the generator) of the paper's two settings."""
    push, sequence = Data(PUSH), Data(SEQUENCE)
    return [
        ("Multitask", push, Dreamer(Data(MANY), push, scale.lengths)),
        ("Sequence", sequence, Dreamer(sequence, sequence, scale.lengths)),
    ]


def settings(scale: Scale) -> list[tuple[str, Data, Dreamer]]:
    """The same of all four settings of Table 5."""
    runners = [Data(task, quality) for quality in QUALITIES for task in WORDS]
    panels = [*(("Locomotion", data) for data in runners), *(("AntMaze", Data(maze)) for maze in MAZES)]
    d4rl = [(panel, data, Dreamer(data, data, scale.lengths)) for panel, data in panels]
    return [*meta_world(scale), *d4rl]


def trial(panel: str, data: Data, *sides: Side, paper: dict[str, float] | None = None) -> Trial:
    return Trial(task=data.task, dataset=data.quality, panel=panel, sides=sides, paper=paper or {})


def on_d4rl(scale: Scale) -> list[Trial]:
    kitchen = Data(KITCHEN, "mixed")
    found = [s for s in settings(scale) if s[0] in ("Locomotion", "AntMaze")]
    found.append(("Kitchen", kitchen, Dreamer(kitchen, kitchen, scale.lengths)))
    return [trial(panel, data, *agents(data, dreamer)) for panel, data, dreamer in found]


def on_meta_world(scale: Scale) -> list[Trial]:
    return [trial(panel, data, *agents(data, dreamer)) for panel, data, dreamer in meta_world(scale)]


def agents(data: Data, dreamer: Dreamer) -> list[Side]:
    """Each agent without and with an adapted generator's imagination; one of them with SynthER."""
    sides = [Side(name="rlpd+synther", agent="rlpd", data=(data,), synthetic=(Sampled(data),))]
    for agent in AGENTS:
        plain: dict[str, Any] = {"agent": agent, "data": (data,)}
        sides.append(Side(name=agent, **plain))
        sides.append(Side(name=f"{agent}+imagination", dreamer=dreamer, adapt=adaptation(agent), **plain))
    return sorted(sides, key=lambda side: side.name != "rlpd")


def adaptation(agent: str) -> Adapt:
    """By TD error; by reward where an agent's critic does not value single actions."""
    return Adapt("reward" if agent == "spirl" else "td-error")


def ladder(scale: Scale) -> list[Trial]:
    trials = []
    for panel, data, dreamer in settings(scale):
        plain: dict[str, Any] = {"agent": "rlpd", "data": (data,)}
        sides = (
            Side(name="synther", synthetic=(Sampled(data),), **plain),
            Side(name="transition", synthetic=(Dreamt(dreamer, first=True),), **plain),
            Side(name="trajectory", synthetic=(Dreamt(dreamer),), **plain),
            Side(name="condition", dreamer=dreamer, **plain),
            Side(name="full", dreamer=dreamer, adapt=Adapt(), **plain),
        )
        trials.append(trial(panel, data, *sides, paper=dict(zip(TABLE_5_SIDES, TABLE_5[panel]))))
    return trials


def compared(**choices: dict[str, Any]) -> Callable[[Scale], list[Trial]]:
    """RLPD with imagination on Meta-World, a side for each choice of what a `Side` takes."""

    def trials(scale: Scale) -> list[Trial]:
        return [
            trial(
                panel,
                data,
                *(
                    Side(name=name.replace("_", " "), agent="rlpd", data=(data,), **{"dreamer": dreamer, **choice})
                    for name, choice in choices.items()
                ),
            )
            for panel, data, dreamer in meta_world(scale)
        ]

    return trials


def prompts(scale: Scale) -> list[Trial]:
    trials = []
    for panel, data, dreamer in meta_world(scale):
        sides = [
            Side(name=kind, agent="rlpd", data=(data,), dreamer=Dreamer(dreamer.learned, data, dreamer.k, kind))
            for kind in ("none", "one-hot", "language")
        ]
        trials.append(trial(panel, data, *sides))
    return trials


def lengths(scale: Scale) -> list[Trial]:
    trials = []
    for panel, data, dreamer in meta_world(scale):
        longest = Dreamer(dreamer.learned, data, (max(scale.lengths),))
        sides = (
            Side(name="one length", agent="rlpd", data=(data,), dreamer=longest),
            Side(name="several lengths", agent="rlpd", data=(data,), dreamer=dreamer),
        )
        trials.append(trial(panel, data, *sides))
    return trials


RECIPES = (
    Recipe(
        name="figure4-offline-to-online",
        shows="Figure 4: SPiRL, RLPD and PARROT on D4RL with and without an adapting generator, RLPD with SynthER",
        differs=f"AntMaze's data is collected by its scripted policy, the kitchen's is yours (--data); {OWN_DATA}",
        steps=300_000,
        trials=on_d4rl,
    ),
    Recipe(
        name="figure5-meta-world",
        shows="Figure 5: the same agents on Meta-World: push with a generator of 14 other tasks; eight tasks in a row",
        differs=DEMONSTRATIONS,
        steps=1_000_000,
        trials=on_meta_world,
    ),
    Recipe(
        name="table5-ladder",
        shows="Table 5: RLPD with SynthER, imagined transitions, trajectories, + condition on the state, + adaptation",
        differs=f"{DEMONSTRATIONS}; {OWN_DATA}",
        steps=1_000_000,
        trials=ladder,
    ),
    Recipe(
        name="figure7-adaptation",
        shows="Figure 7: RLPD with a generator that stays as it is, and with one that adapts",
        differs=DEMONSTRATIONS,
        steps=1_000_000,
        trials=compared(fixed={}, adapted={"adapt": Adapt()}),
    ),
    Recipe(
        name="figure8-indicators",
        shows="Figure 8: adaptation by the Reward indicator and by TD error; here also without any",
        differs=DEMONSTRATIONS,
        steps=1_000_000,
        trials=compared(
            uniform={"adapt": Adapt("uniform")}, reward={"adapt": Adapt("reward")}, td_error={"adapt": Adapt()}
        ),
    ),
    Recipe(
        name="figure9-prompts",
        shows="Figure 9: a generator without a prompt, with a one-hot code of the task, with its words",
        differs=DEMONSTRATIONS,
        steps=1_000_000,
        trials=prompts,
    ),
    Recipe(
        name="figure11-lengths",
        shows="Figure 11: a generator of 25 frames alone, and one whose length is estimated for each state",
        differs=f"one generator makes all lengths, where the paper has one for each; {DEMONSTRATIONS}",
        steps=1_000_000,
        trials=lengths,
    ),
)
