"""Fine-tunings of a few steps are measured on few windows."""

import pytest


@pytest.fixture(scope="module", autouse=True)
def always(few_windows: None) -> None:
    pass
