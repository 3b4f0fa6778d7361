"""`pixeltraj collect TASK --out STORE`"""

from pixeltraj.render.collect import CollectConfig as Config
from pixeltraj.render.collect import collect

__all__ = ["Config", "run"]


def run(config: Config) -> None:
    store = collect(config)
    ends = [bool(store.read("terminations", end - 2, end - 1)[0]) for end in store.offsets[1:]]
    print(
        f"{store.path}: {len(store)} episodes of {store.task.name}, {store.frame_count} states, "
        f"{sum(ends)} terminated; next: pixeltraj render {store.path}"
    )
