"""`pixeltraj export STORE --format minari|npz|imagefolder --out PATH`"""

from pixeltraj.render.exchange.exporting import ExportConfig as Config
from pixeltraj.render.exchange.exporting import export

__all__ = ["Config", "run"]


def run(config: Config) -> None:
    print(export(config))
