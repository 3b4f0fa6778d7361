"""The arms on HalfCheetah and Hopper, of the parts locomotion and offline, and the data that they learn from.

medium   a trained policy of medium quality acts, with a little noise
mixed    the same policy, a quarter of the episodes with noise of .1, .2, .3 and .6 on its actions each: returns
         from nothing up to the policy's own. It stands in for medium-replay, which is what an agent met on its way
         to medium quality, and is not that: all of it comes from one policy
"""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.agents_config import Part
from benchmarks.agents_contender import Contender
from pixeltraj.eval.d4rl_scores import normalised
from pixeltraj.eval.recipes.locomotion import four, three
from pixeltraj.eval.recipes.recipe import Data, Dreamt, Scale, Side
from pixeltraj.files import provenance
from pixeltraj.render.collect import CollectConfig, rollout
from pixeltraj.render.policies import make_policy
from pixeltraj.store import Store
from pixeltraj.tasks import get_task
from pixeltraj.trajectory import Trajectory

NOISE = {"medium": (0.1,), "mixed": (0.1, 0.2, 0.3, 0.6)}
"""Standard deviations of the noise on actions, episode after episode. Four, as every fifth episode is held out."""


def locomotion(task: str, scale: Scale) -> list[Contender]:
    """SAC that begins with medium data in its replay buffer: as it is, with SynthER's, with imagination."""
    return [_contender(task, side, "sac") for side in three("sac", Data(task, "medium"), scale)]


def offline(setting: str, scale: Scale) -> list[Contender]:
    """TD3+BC and IQL on one store, nothing done in the environment: as they are, and with what SynthER sampled, S4RL
    changes or a generator imagined before, its actions read or sampled."""
    task, quality = setting.rsplit("-", 1)
    data = Data(task, quality)
    found = []
    for agent in ("td3_bc", "iql"):
        sides = four(agent, data, scale)
        found += [_contender(task, side, agent) for side in (*sides, _sampled(sides[-1]))]
    return found


def _sampled(side: Side) -> Side:
    """The same, of imagined trajectories whose actions are sampled."""
    parts = [replace(p, dreamer=replace(p.dreamer, actions="sampled")) for p in side.synthetic if isinstance(p, Dreamt)]
    return replace(side, name=f"{side.name}-sampled", synthetic=tuple(parts))


def _contender(task: str, side: Side, against: str) -> Contender:
    imagined = side.dreamer or any(isinstance(part, Dreamt) for part in side.synthetic)
    made = "imagination" if imagined else "synther" if side.synthetic else None
    return Contender(task=task, side=side, against=against, made=made)


def collect(part: Part, data: Data, out: Path) -> None:
    """The store: as many decisions as the effort's episodes have where none ends early, in whole episodes."""
    task = get_task(data.task)
    if out.exists():
        Store.open(out, task).require_episodes()
        return
    simulator = task.make()
    policy = make_policy(f"sb3:{part.policy(data.task)}", simulator)
    config = CollectConfig(data.task, out, part.policy(data.task).name, max_steps=part.effort.max_steps)
    wanted = part.effort.episodes * (config.max_steps or task.horizon)
    noises, found = NOISE[data.quality], list[Trajectory]()
    while sum(len(one.actions) for one in found) < wanted:
        noise = noises[len(found) % len(noises)]
        found.append(rollout(simulator, policy, replace(config, noise=noise), seed=len(found)))
    beside = out.with_name(f"{out.name}.partial")
    shutil.rmtree(beside, ignore_errors=True)  # of an interrupted run
    how = provenance(policy=config.policy, noises=list(noises), decisions=wanted)
    Store.create(beside, task, how, simulator.snapshot_layout).append(found)
    beside.rename(out)


def returns(store: Store) -> dict[str, Any]:
    """Of the episodes that are trained on: D4RL-normalised, 10th, 50th and 90th percentile, mean; and their number of
    transitions."""
    training = [store.trajectory(episode) for episode in store.split()[0]]
    scores = [normalised(store.task.name, float(one.rewards.sum())) for one in training]
    known = np.array([score for score in scores if score is not None])
    percentiles = dict(zip(("low", "median", "high"), np.percentile(known, [10, 50, 90]).tolist()))
    return {"return": percentiles | {"mean": float(known.mean())}, "transitions": sum(len(t.actions) for t in training)}
