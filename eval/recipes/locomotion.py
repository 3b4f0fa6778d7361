"""Recipes on D4RL Locomotion: online (Figures 3, 6, Table 4), offline (Tables 1, 2), random dropping (Figure 10)."""

from typing import Any

from pixeltraj.eval.augmentation import Augmentation
from pixeltraj.eval.recipes.recipe import (
    Adapt,
    Data,
    Dreamer,
    Dreamt,
    Recipe,
    Sampled,
    Scale,
    Side,
    StateDreamer,
    Trial,
)

WORDS = {"HalfCheetah-v5": "halfcheetah", "Hopper-v5": "hopper", "Walker2d-v5": "walker2d"}
QUALITIES = ("medium", "medium-replay", "random", "medium-expert")
"""Of the online experiments; the first is what a smaller scale runs."""

# Table 1: normalised return of TD3+BC and IQL, each alone, + SynthER, + S4RL, + imagination
TABLE_1 = {
    ("HalfCheetah-v5", "random"): (11.3, 12.2, 11.5, 12.5, 15.2, 17.2, 15.8, 17.1),
    ("HalfCheetah-v5", "medium"): (48.1, 49.9, 48.5, 52.3, 48.3, 49.6, 48.8, 53.1),
    ("HalfCheetah-v5", "medium-replay"): (44.8, 45.9, 45.9, 46.5, 43.5, 46.7, 46.3, 49.2),
    ("HalfCheetah-v5", "medium-expert"): (90.8, 87.2, 91.2, 93.6, 94.6, 93.3, 94.3, 95.2),
    ("Hopper-v5", "random"): (8.6, 14.6, 9.4, 15.2, 7.2, 7.7, 7.4, 8.1),
    ("Hopper-v5", "medium"): (60.4, 62.5, 63.4, 65.7, 62.8, 72.0, 70.3, 72.4),
    ("Hopper-v5", "medium-replay"): (64.4, 63.4, 62.3, 64.7, 84.6, 103.2, 95.6, 103.6),
    ("Hopper-v5", "medium-expert"): (101.1, 105.4, 103.5, 111.2, 106.2, 110.8, 108.1, 113.6),
    ("Walker2d-v5", "random"): (0.6, 2.3, 3.2, 2.1, 4.1, 4.2, 4.1, 4.3),
    ("Walker2d-v5", "medium"): (82.7, 84.8, 83.7, 87.5, 84.0, 86.7, 84.5, 89.1),
    ("Walker2d-v5", "medium-replay"): (85.6, 90.5, 88.3, 86.3, 82.6, 83.3, 83.1, 85.4),
    ("Walker2d-v5", "medium-expert"): (110.0, 110.2, 106.3, 111.2, 111.7, 111.4, 111.3, 111.7),
}
"""Its "expert" rows are D4RL's medium-expert datasets, as in SynthER's own table."""
TABLE_1_SIDES = tuple(
    f"{agent}{more}" for agent in ("td3_bc", "iql") for more in ("", "+synther", "+s4rl", "+imagination")
)

# Table 2: normalised return of cloning from pixels, alone and + imagination
TABLE_2 = {
    ("Walker2d-v5", "medium"): (40.9, 42.2),
    ("Walker2d-v5", "medium-replay"): (16.5, 17.7),
    ("Walker2d-v5", "medium-expert"): (47.7, 50.2),
    ("Walker2d-v5", "expert"): (91.5, 93.1),
    ("HalfCheetah-v5", "medium"): (51.6, 55.3),
    ("HalfCheetah-v5", "medium-replay"): (25.0, 25.2),
    ("HalfCheetah-v5", "medium-expert"): (57.5, 68.1),
    ("HalfCheetah-v5", "expert"): (67.4, 85.3),
}
"""V-D4RL calls medium-replay mixed, and medium-expert medexp."""
TABLE_2_SIDES = ("bc_pixels", "bc_pixels+imagination")

# Table 4: hours of training on one GPU
TABLE_4 = {
    "Walker2d-v5": {"sac": 6.5, "sac+imagination": 15.0, "redq": 6.0, "redq+imagination": 14.5},
    "Hopper-v5": {"sac": 7.0, "sac+imagination": 17.0, "redq": 6.5, "redq+imagination": 16.5},
    "HalfCheetah-v5": {"sac": 7.0, "sac+imagination": 16.5, "redq": 6.5, "redq+imagination": 16.0},
}
OWN_DATA = (
    "random data is collected; medium, medium-replay and medium-expert are yours (--data). The v5 environments are not "
    "D4RL's v2"
)


def online(scale: Scale) -> list[Trial]:
    trials = []
    for quality in QUALITIES:
        for task, word in WORDS.items():
            data = Data(task, quality)
            sides = [side for agent in ("sac", "redq") for side in three(agent, data, scale)]
            trials.append(Trial(task=task, dataset=quality, panel=word, sides=tuple(sides)))
    return trials


def three(agent: str, data: Data, scale: Scale) -> tuple[Side, Side, Side]:
    """One agent without, with SynthER, with imagination: the same real data in the replay buffer of each."""
    plain: dict[str, Any] = {"agent": agent, "data": (data,), "symmetric": False}
    dreamer = Dreamer(data, data, scale.lengths)
    return (
        Side(name=agent, **plain),
        Side(name=f"{agent}+synther", synthetic=(Sampled(data),), **plain),
        Side(name=f"{agent}+imagination", dreamer=dreamer, **plain),
    )


def hours(scale: Scale) -> list[Trial]:
    trials = []
    for task, word in WORDS.items():
        data = Data(task, "medium")
        sides = [side for agent in ("sac", "redq") for side in three(agent, data, scale)[::2]]
        trials.append(Trial(task=task, dataset="medium", panel=word, sides=tuple(sides), paper=TABLE_4[task]))
    return trials


def offline(scale: Scale) -> list[Trial]:
    trials = []
    for (task, quality), row in TABLE_1.items():
        data = Data(task, quality)
        paper = dict(zip(TABLE_1_SIDES, row))
        sides = [side for agent in ("td3_bc", "iql") for side in four(agent, data, scale)]
        panel = f"{WORDS[task]}-{quality}"
        trials.append(Trial(task=task, dataset=quality, panel=panel, sides=tuple(sides), paper=paper))
    return trials


def four(agent: str, data: Data, scale: Scale) -> tuple[Side, Side, Side, Side]:
    """An offline agent on data alone, with SynthER, with S4RL, with trajectories that were imagined before."""
    plain: dict[str, Any] = {"agent": agent, "data": (data,), "online": False, "symmetric": False}
    dreamt = Dreamt(Dreamer(data, data, scale.lengths))
    return (
        Side(name=agent, **plain),
        Side(name=f"{agent}+synther", synthetic=(Sampled(data),), **plain),
        Side(name=f"{agent}+s4rl", augment=Augmentation(), **plain),
        Side(name=f"{agent}+imagination", synthetic=(dreamt,), **plain),
    )


def pixels(scale: Scale) -> list[Trial]:
    trials = []
    for (task, quality), row in TABLE_2.items():
        sides = four(TABLE_2_SIDES[0], Data(task, quality), scale)[::3]
        paper = dict(zip(TABLE_2_SIDES, row))
        trials.append(Trial(task=task, dataset=quality, panel=WORDS[task], sides=sides, paper=paper))
    return trials


def levels(scale: Scale) -> list[Trial]:
    trials = []
    for quality in QUALITIES:
        for task in WORDS:
            data = Data(task, quality)
            plain: dict[str, Any] = {"agent": "sac", "data": (data,), "symmetric": False}
            sides = (
                Side(name="sac", **plain),
                Side(name="sac+states", dreamer=StateDreamer(data), **plain),
                Side(name="sac+images", dreamer=Dreamer(data, data, scale.lengths), **plain),
            )
            trials.append(Trial(task=task, dataset=quality, panel="Locomotion", sides=sides))
    return trials


def dropping(scale: Scale) -> list[Trial]:
    trials = []
    for quality in QUALITIES:
        for task in WORDS:
            data = Data(task, quality)
            plain: dict[str, Any] = {"agent": "rlpd", "data": (data,), "dreamer": Dreamer(data, data, scale.lengths)}
            sides = (
                Side(name="without dropping", adapt=Adapt("reward", drop=0.0), **plain),
                Side(name="dropping", adapt=Adapt("reward"), **plain),
            )
            trials.append(Trial(task=task, dataset=quality, panel="Locomotion", sides=sides))
    return trials


RECIPES = (
    Recipe(
        name="figure3-online",
        shows="Figure 3 (and 12): SAC and REDQ without imagination, with SynthER, with a fixed generator's imagination",
        differs=f"all sides have the same offline data in the replay buffer; {OWN_DATA}",
        steps=250_000,
        trials=online,
    ),
    Recipe(
        name="table1-offline",
        shows="Table 1: TD3+BC and IQL on data alone, with SynthER, with S4RL, and with imagined trajectories",
        differs=OWN_DATA,
        steps=1_000_000,
        trials=offline,
    ),
    Recipe(
        name="table2-pixels",
        shows="Table 2: cloning from pixels on data alone, and with imagined trajectories' frames",
        differs=(
            "V-D4RL's walker-walk and cheetah-run are DeepMind Control's, with scores of their own: compare gains, not "
            "levels. How long it trained the paper does not say. All data is yours (--data) and drawn here"
        ),
        steps=100_000,
        trials=pixels,
    ),
    Recipe(
        name="table4-hours",
        shows="Table 4: what imagination costs SAC and REDQ in wall-clock time",
        differs=f"the machine is yours: compare ratios. {OWN_DATA}",
        steps=250_000,
        trials=hours,
        measure="hours",
    ),
    Recipe(
        name="figure6-levels",
        shows="Figure 6: SAC without imagination, with trajectories as states, with trajectories as images",
        differs=f"the model of states has one length; {OWN_DATA}",
        steps=250_000,
        trials=levels,
    ),
    Recipe(
        name="figure10-dropping",
        shows="Figure 10: adaptation by the Reward indicator, with and without dropping at random",
        differs=OWN_DATA,
        steps=250_000,
        trials=dropping,
    ),
)
