"""`pixeltraj render STORE`"""

from pixeltraj.render.render import RenderConfig as Config
from pixeltraj.render.render import render

__all__ = ["Config", "run"]


def run(config: Config) -> None:
    store = render(config)
    print(f"{store.path}: all {store.rendered} frames are drawn")
