"""`pixeltraj import TASK --from PATH_OR_ID --format d4rl|minari|npz --out STORE`"""

import numpy as np

from pixeltraj.render.exchange.importing import ImportConfig as Config
from pixeltraj.render.exchange.importing import import_dataset

__all__ = ["Config", "run"]


def run(config: Config) -> None:
    store = import_dataset(config)
    error = np.median([episode["replay_error"] for episode in store.episodes])
    print(
        f"{store.path}: {len(store)} episodes of {store.task.name}, {store.frame_count} states; its simulator misses "
        f"the next state by {error:.1%} of what the state changes; next: pixeltraj render {store.path}"
    )
