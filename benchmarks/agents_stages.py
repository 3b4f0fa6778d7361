"""The stages of the benchmark of agents. `python -m benchmarks.agents_stages OUT NAME` does one.

made/SETTING/data          the data that is learned from, drawn
made/SETTING/WHAT          what arms need beside it: generators, decoders, sampled and imagined stores
runs/SETTING/ARM/SEED      one arm from one seed
speed/AGENT                updates of an agent in a CPU-second, and of its peers

A setting is a task, or a task and the quality of its data.
"""

import shutil
import sys
from functools import partial
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from benchmarks.agents_arms import contenders, given, make, store_of
from benchmarks.agents_config import Part
from benchmarks.agents_contender import Contender, needed
from benchmarks.agents_runners import collect, returns
from benchmarks.jobs import Stage, result, run_stage
from pixeltraj.cli import guarded
from pixeltraj.errors import PixeltrajError
from pixeltraj.eval.agents.catalogue import OF_STATES
from pixeltraj.eval.results import Result
from pixeltraj.eval.run import Run
from pixeltraj.files import read_json
from pixeltraj.store import Store

DATA = "data"


def stages(part: Part, settings: tuple[str, ...], arms: tuple[str, ...], seeds: int) -> list[Stage[Part]]:
    """What matters most first; of arms that matter as much, all from one seed before the next. Whatever an arm needs
    is made when its turn comes. Raises PixeltrajError where there is no such arm."""
    if part.name == "speed":
        require(arms, list(OF_STATES))
        return [speed_stage(name) for name in arms or OF_STATES]
    listed: dict[str, Stage[Part]] = {}
    entries = [(setting, contender) for setting in settings for contender in contenders(part, setting)]
    require(arms, list(dict.fromkeys(contender.name for _, contender in entries)))
    entries = [(setting, contender) for setting, contender in entries if not arms or contender.name in arms]
    for rank in sorted({contender.rank for _, contender in entries}):
        turn = [(setting, contender) for setting, contender in entries if contender.rank == rank]
        for setting in settings:
            for seed in range(seeds):
                for contender in (contender for its, contender in turn if its == setting):
                    for stage in stages_of(setting, contender, seed):
                        listed.setdefault(stage.name, stage)
    return list(listed.values())


def require(arms: tuple[str, ...], known: list[str]) -> None:
    if unknown := [name for name in arms if name not in known]:
        raise PixeltrajError(f"there is no arm {', '.join(unknown)}; there are {', '.join(known)}")


def stages_of(setting: str, contender: Contender, seed: int) -> list[Stage[Part]]:
    """The run, and before it what it waits for."""
    found: list[Stage[Part]] = []
    after: tuple[str, ...] = ()
    if contender.side.data:
        found.append(Stage(f"made/{setting}/{DATA}", partial(collected, setting=setting)))
        after = (found[-1].name,)
    if contender.made:
        work = partial(made, setting=setting, contender=contender)
        found.append(Stage(f"made/{setting}/{contender.made}", work, after))
        after = (found[-1].name,)
    name = f"runs/{setting}/{contender.name}/{seed}"
    return [*found, Stage(name, partial(ran, setting=setting, contender=contender, seed=seed), after)]


def speed_stage(name: str) -> Stage[Part]:
    return Stage(f"speed/{name}", partial(speed, name=name))


def collected(part: Part, setting: str) -> dict[str, Any]:
    everybody = contenders(part, setting)
    first = next(contender for contender in everybody if contender.side.data)
    sizes = {}
    for data in needed(everybody):
        if data.given:
            collect(part, data, given(part, setting) / data.name)
        store = Store.open(store_of(part, setting, first, data))
        training, _ = store.split()
        sizes[data.name] = {"training_episodes": len(training), "frames": store.frame_count}
        sizes[data.name] |= returns(store) if data.given else {}
    return {"data": sizes}


def made(part: Part, setting: str, contender: Contender) -> dict[str, Any]:
    arm = make(part, setting, contender)
    for other in contenders(part, setting):
        if other.made == contender.made and other.side.synthetic != contender.side.synthetic:
            make(part, setting, other)  # another imagined store: runs that need it may run beside each other
    stores = [Store.open(path) for path in arm.stores]
    return {
        "training_episodes": [len(store.split()[0]) for store in stores],
        "expected_length": arm.buffer.expected_length if arm.imagine else None,
    }


def ran(part: Part, setting: str, contender: Contender, seed: int) -> dict[str, Any]:
    """From its checkpoint, where there is one."""
    arm = make(part, setting, contender)
    arm.check()
    run = Run(part.course(), contender.task, arm, seed, part.out / "runs" / setting / f"{arm.name}-{seed}.safetensors")
    with tqdm(total=part.steps, desc=f"{setting} {arm.name} {seed}", unit="step", mininterval=5) as bar:
        found = run.learn(lambda step: bar.update(step - bar.n) and None)
    updates = run.path.with_suffix("") / "updates.json"
    measured = {"run": vars(found)} | ({"updates": read_json(updates, "updates")} if updates.exists() else {})
    run.path.unlink(missing_ok=True)
    shutil.rmtree(run.path.with_suffix(""), ignore_errors=True)  # LoRAs of a generator that adapted
    return measured


def speed(part: Part, name: str) -> dict[str, Any]:
    from benchmarks.agents_speed import measured

    return {"rates": measured((name,), part.steps)[name]}


def finished(part: Part, settings: tuple[str, ...]) -> dict[str, dict[str, list[Result]]]:
    """setting -> arm -> its finished runs, in the order of their seeds; arms without any are left out."""
    found: dict[str, dict[str, list[Result]]] = {}
    for setting in settings:
        for contender in contenders(part, setting):
            folder = part.out / "stages" / "runs" / setting / contender.name
            seeds = sorted(int(path.stem) for path in folder.glob("*.json"))
            runs = [result(part.out, f"runs/{setting}/{contender.name}/{seed}")["run"] for seed in seeds]
            if runs:
                found.setdefault(setting, {})[contender.name] = [as_result(run) for run in runs]
    return found


def as_result(run: dict[str, Any]) -> Result:
    known = {key: value for key, value in run.items() if key != "score"}
    return Result(**{**known, "curve": [(step, score) for step, score in known["curve"]]})


def costs(part: Part, settings: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    """setting -> what was made -> what was told of it, with the seconds and CPU-seconds that it took."""
    found: dict[str, dict[str, Any]] = {}
    for setting in settings:
        for path in sorted((part.out / "stages" / "made" / setting).glob("*.json")):
            found.setdefault(setting, {})[path.stem] = result(part.out, f"made/{setting}/{path.stem}")
    return found


def speeds(part: Part) -> dict[str, dict[str, float]]:
    """agent -> column -> updates in a CPU-second, of what has been measured."""
    known = {name: result(part.out, f"speed/{name}") for name in OF_STATES}
    return {name: told["rates"] for name, told in known.items() if told}


def named(part: Part, name: str) -> Stage[Part]:
    """The stage of that name."""
    if name.startswith("speed/"):
        return speed_stage(name.removeprefix("speed/"))
    _, setting, *_ = name.split("/")
    seed = int(name.split("/")[3]) if name.startswith("runs/") else 0
    listed = [stage for contender in contenders(part, setting) for stage in stages_of(setting, contender, seed)]
    return next(stage for stage in listed if stage.name == name)


def main() -> int:
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)  # denormal gradients make training steps ten times slower
    part = Part.recall(Path(sys.argv[1]))
    run_stage(part, named(part, sys.argv[2]))
    return 0


if __name__ == "__main__":
    sys.exit(guarded(main))
