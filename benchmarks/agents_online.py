"""The arms on sparse tasks of Meta-World: of the part online, and of the part adaptation (the multi-task setting)."""

from dataclasses import replace

from benchmarks.agents_contender import Contender
from pixeltraj.eval.agents.diffusion_ql import DiffusionQLConfig
from pixeltraj.eval.agents.rlpd import RLPDConfig
from pixeltraj.eval.recipes.offline_to_online import MANY
from pixeltraj.eval.recipes.recipe import Adapt, Data, Dreamer, Sampled, Side, StateDreamer

CLONING = 10.0
"""Weight of the cloning term of arms that clone (design measurements: the gain of short runs comes through it)."""
WITH_CLONING = "+cloning"
WITHOUT_DECISIONS = ("cloning", "diffusion-cloning")
"""Arms that take none."""
DIFFUSION = DiffusionQLConfig(eta=0.0, denoising=20, candidates=1, learning_rate=1e-3)
"""Behaviour cloning by a diffusion model of actions."""
BASELINE = "demonstrations"
IMAGINATION = "imagination"
SAMPLED = "imagination-sampled"
READ, STATES_READ = "oracle-read", "oracle-read-states"
CLONED, DIFFUSED = "diffusion-demonstrations+cloning", "diffusion-imagination+cloning"
"""A diffusion model of actions decides: it clones demonstrations, or what is imagined from where it gets, too."""


def online(task: str) -> list[Contender]:
    """RLPD on demonstrations of a sparse task, with and without what imagines; each with and without cloning."""
    data = Data(task)
    pictures = Dreamer(data, data)
    sampled = replace(pictures, actions="sampled")
    plain: dict[str, Side] = {
        BASELINE: Side(name=BASELINE, agent="rlpd", data=(data,)),
        IMAGINATION: Side(name=IMAGINATION, agent="rlpd", data=(data,), dreamer=pictures),
        SAMPLED: Side(name=SAMPLED, agent="rlpd", data=(data,), dreamer=sampled),
        "oracle": Side(name="oracle", agent="rlpd", data=(data,)),
        READ: Side(name=READ, agent="rlpd", data=(data,), dreamer=pictures),
        STATES_READ: Side(name=STATES_READ, agent="rlpd", data=(data,), dreamer=pictures),
        "synther": Side(name="synther", agent="rlpd", data=(data,), synthetic=(Sampled(data),)),
        "state-level": Side(name="state-level", agent="rlpd", data=(data,), dreamer=StateDreamer(data)),
        "imagination-own": Side(name="imagination-own", agent="rlpd", data=(data,), dreamer=pictures),
        "demonstrations-100": Side(name="demonstrations-100", agent="rlpd", data=(data,)),
    }
    sides = {
        "cloning": Side(name="cloning", agent="bc", data=(data,), online=False, symmetric=False),
        "diffusion-cloning": Side(
            name="diffusion-cloning",
            agent="diffusion_ql",
            config=DIFFUSION,
            data=(data,),
            online=False,
            symmetric=False,
        ),
        "none": Side(name="none", agent="rlpd", config=RLPDConfig(bc_weight=0.0)),
    }
    sides |= {name: Side(name=name, agent=name, data=(data,)) for name in ("spirl", "parrot")}
    for name, dreamer in ((CLONED, None), (DIFFUSED, sampled)):
        sides[name] = Side(name=name, agent="diffusion_ql", config=DIFFUSION, data=(data,), dreamer=dreamer)
    for side in plain.values():
        sides |= with_and_without_cloning(side)
    ranks = (
        (f"{BASELINE}{WITH_CLONING}", "imagination+cloning", f"{SAMPLED}{WITH_CLONING}", "oracle+cloning")
        + ("cloning", BASELINE, IMAGINATION),
        ("synther+cloning", "state-level+cloning", "imagination-own+cloning", "demonstrations-100+cloning")
        + (f"{READ}{WITH_CLONING}", f"{STATES_READ}{WITH_CLONING}", "diffusion-cloning"),
    )
    rank = {name: i for i, names in enumerate(ranks) for name in names}
    ordered = [*rank, *(name for name in sides if name not in rank)]
    return [
        Contender(
            task=task,
            side=sides[name],
            against=CLONED if name == DIFFUSED else f"{BASELINE}{WITH_CLONING}" if "cloning" in name else BASELINE,
            rank=rank.get(name, len(ranks)),
            made=_made(sides[name]) if "100" not in name else name.removesuffix(WITH_CLONING),
            many="100" in name,
            alone="own" in name,
            oracle=name.removesuffix(WITH_CLONING) == "oracle",
            read=name.startswith(READ),
            actions_known=name.startswith(STATES_READ),
        )
        for name in ordered
    ]


def adaptation(task: str) -> list[Contender]:
    """RLPD on demonstrations of a task that the generator's LoRA has not seen, but 14 others: a generator that stays as
    it is, its actions read or sampled, one that learns on from the agent's transitions, and one told of tasks by a code
    or not at all. Those that clone come first."""
    data, others = Data(task), Data(MANY)
    words = Dreamer(others, data)
    plain = {
        BASELINE: {},
        IMAGINATION: {"dreamer": words},
        SAMPLED: {"dreamer": replace(words, actions="sampled")},
        "td-error": {"dreamer": words, "adapt": Adapt("td-error")},
        "reward": {"dreamer": words, "adapt": Adapt("reward")},
        "one-hot": {"dreamer": Dreamer(others, data, prompt="one-hot")},
        "no-prompt": {"dreamer": Dreamer(others, data, prompt="none")},
    }
    against = dict.fromkeys(plain, IMAGINATION) | dict.fromkeys((BASELINE, IMAGINATION, SAMPLED), BASELINE)
    made = {name: name for name in plain if name != BASELINE}
    made |= dict.fromkeys((SAMPLED, "td-error", "reward"), IMAGINATION)
    found = []
    for name, choice in plain.items():
        side = Side(name=name, agent="rlpd", data=(data,), **choice)  # type: ignore[arg-type]
        for more, one in with_and_without_cloning(side).items():
            cloning = WITH_CLONING if more.endswith(WITH_CLONING) else ""
            entry = Contender(task=task, side=one, against=f"{against[name]}{cloning}", made=made.get(name))
            found.append(replace(entry, rank=0 if cloning else 1))
    return sorted(found, key=lambda contender: contender.rank)


def with_and_without_cloning(side: Side) -> dict[str, Side]:
    """Two of one."""
    weights = {f"{side.name}{WITH_CLONING}": CLONING, side.name: 0.0}
    return {name: replace(side, name=name, config=RLPDConfig(bc_weight=weight)) for name, weight in weights.items()}


def _made(side: Side) -> str | None:
    """With and without cloning the same; all that ask the generator of the embedded base share one."""
    name = side.name.removesuffix(WITH_CLONING)
    if isinstance(side.dreamer, Dreamer) and "own" not in name:
        return IMAGINATION
    return name if side.dreamer or side.synthetic else None
