"""Do agents learn faster with imagination? `python -m benchmarks.agents [--part PART ...] [--json FILE]`.

online: RLPD on a sparse task with 20 scripted demonstrations, action repeat 2: success against decisions in the
environment for arms without any data, with demonstrations alone, and with what a generator, SynthER, a diffusion model
of states, or the simulator itself imagines; each as it is published and with a cloning term on offline and imagined
actions. About an hour and a half of two cores for each task with all arms and five seeds.

speed: updates of each agent in a CPU-second, beside torchrl's and Stable-Baselines3's own of the same sizes. Five
minutes of one core.

locomotion: SAC on HalfCheetah and Hopper that begins with data of a trained policy of medium quality, as it is, with
imagination, with SynthER: D4RL-normalised score. It wants --policies, and so does offline. Half an hour of two cores.

offline: TD3+BC and IQL on medium and mixed data of the same policies, as they are, with imagined trajectories (actions
read or sampled), SynthER, S4RL. Two hours and a quarter.

adaptation: RLPD on push-v3, the generator's LoRA trained on 14 other tasks: it stays as it is, its actions read or
sampled, or learns on from what the agent does, chosen by TD error or by reward; it is told the task in words, by a
code, or not at all. An hour and three quarters.

Everything that is made stays in --out, run by run: an interrupted benchmark is taken up there, what is finished is not
done again, and --show prints what there is. --json writes all of it, --figure draws the curves of a sparse part. A
stage that fails keeps only those from running that wait for it; they are named in the end, and the exit status is 1.
"""

import os
import platform
import signal
import sys
from dataclasses import asdict
from typing import Any

import torch
import tyro

from benchmarks.agents_arms import contenders
from benchmarks.agents_config import SEEDS, Benchmark, Part
from benchmarks.agents_figures import arm_figures, runner_figures, wallclock
from benchmarks.agents_picture import draw
from benchmarks.agents_stages import costs, finished, speeds, stages
from benchmarks.agents_table import table
from benchmarks.jobs import run_stages
from pixeltraj.base import PRETRAINING, Base, resolve
from pixeltraj.cli import guarded
from pixeltraj.files import provenance, read_json, write_json

MODULE = "benchmarks.agents_stages"
TIMED = {
    "online": tuple((f"imagination{more}", f"demonstrations{more}") for more in ("+cloning", "")),
    "locomotion": (("sac+imagination", "sac"),),
    "adaptation": tuple((f"imagination{more}", f"demonstrations{more}") for more in ("+cloning", "")),
}
"""Arms whose wall-clock time is compared: with and without imagination."""
SPARSE = ("online", "adaptation")


def seen(base: str | None, task: str) -> list[dict[str, Any]]:
    """Stores of the task on which the base was trained, as its record tells of them; none where it has no record."""
    path = resolve(base) / PRETRAINING
    stores = read_json(path, "pretraining record").get("stores", {}) if path.is_file() else {}
    named = {f"{task}{kind}" for kind in ("", "-noisy", "-random")}
    keys = ("policy", "noise", "max_steps")
    return [{"store": name, **{key: how.get(key) for key in keys}} for name, how in stores.items() if name in named]


def figures(config: Benchmark, part: Part) -> dict[str, Any]:
    """setting -> arm -> figures of what has been finished."""
    runs = finished(part, config.settings(part))
    told = arm_figures if part.name in SPARSE else runner_figures
    return {
        setting: {
            contender.name: told(by_arm[contender.name], contender, by_arm)
            for contender in contenders(part, setting)
            if contender.name in by_arm
        }
        for setting, by_arm in runs.items()
    }


def report(config: Benchmark) -> dict[str, Any]:
    """What the issue asks for, under its keys, and everything else that was measured."""
    found: dict[str, Any] = {"made": {}, "wallclock": {}, "seen_by_base": {}}
    for part in config.parts():
        settings = config.settings(part)
        if part.name == "speed":
            found["agents"] = speeds(part)
            continue
        found[part.name] = figures(config, part)
        found["made"][part.name] = costs(part, settings)
        found["wallclock"][part.name] = wallclock(finished(part, settings), TIMED.get(part.name, ()))
        if part.name in SPARSE:
            found["seen_by_base"] |= {task: seen(config.base, task) for task in settings}
    return {
        **found,
        "wallclock_ratio": found["wallclock"].get("online"),
        "steps": {part.name: part.steps for part in config.parts()},
        "base": {"path": config.base or "the embedded one", "identity": Base.load(config.base).identity},
        "effort": asdict(config.effort),
        "machine": {"cores": os.cpu_count(), "cpu": platform.machine(), "at_once": config.at_once},
        "provenance": provenance(),
    }


def run(config: Benchmark) -> int:
    """1 where a stage failed. Raises PixeltrajError, before anything is run, where something is asked or lacking."""
    torch.set_num_threads(1)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as an interrupt does: stages end with it
    failed: dict[str, str] = {}
    if not config.show:
        config.check_policies()
        parts = config.parts()
        listed = [stages(p, config.settings(p), config.arms, config.seeds or SEEDS[p.name]) for p in parts]
        for part in parts:
            part.remember()
        for part, of_part in zip(parts, listed):
            missed = run_stages(part, of_part, MODULE, go_on=True)
            failed |= {f"{part.name}/{name}": why for name, why in missed.items()}
    measured = report(config)
    if config.json:
        write_json(config.json, measured)
    if config.figure:
        (part,) = config.parts()
        draw(finished(part, config.settings(part)), config.figure, config.arms)
    print(table(measured))
    for name, why in failed.items():
        print(f"failed: {name}: {why}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(guarded(lambda: run(tyro.cli(Benchmark, prog="python -m benchmarks.agents", description=__doc__))))
