"""Where imagination sets out from: held-out states of a store, or resets of the environment."""

import numpy as np
import pytest

from pixeltraj.cli.starts import ResetStarts, StoreStarts
from pixeltraj.errors import PixeltrajError
from pixeltraj.render.backends import open_renderer
from pixeltraj.store import Store
from pixeltraj.tasks import get_task


def test_a_store_gives_held_out_states_each_once_before_any_twice(store: Store) -> None:
    starts, heldout = StoreStarts(store, seed=3), store.split()[1]
    there = sum(store.episodes[e]["transitions"] for e in heldout)
    begin, origins = starts(0, 2 * there)
    assert {origin["episode"] for origin in origins} == set(heldout)
    for half in (origins[:there], origins[there:]):
        assert len({(o["episode"], o["step"]) for o in half}) == there
    row = int(store.offsets[int(str(origins[5]["episode"]))]) + int(str(origins[5]["step"]))
    assert (begin[5].state == store.read("states", row, row + 1)[0]).all()
    assert (begin[5].frame == store.read("frames", row, row + 1)[0]).all()


def test_starts_are_the_same_however_they_are_asked_for(store: Store) -> None:
    whole, parts = StoreStarts(store, seed=1), StoreStarts(store, seed=1)
    assert whole(0, 12)[1] == [origin for i in range(0, 12, 4) for origin in parts(i, 4)[1]]
    assert StoreStarts(store, seed=2)(0, 12)[1] != whole(0, 12)[1]


def test_resets_begin_episodes_and_are_drawn_like_the_decoders_frames() -> None:
    task = get_task("Hopper-v5")
    with open_renderer(task.make()) as renderer:
        settings = renderer.settings
    starts = ResetStarts(task, 0, settings)
    begin, origins = starts(4, 3)
    simulator = task.make()
    state, _ = simulator.reset(seed=int(str(origins[0]["reset_seed"])))
    with open_renderer(simulator) as renderer:
        assert (begin[0].state == state).all() and (begin[0].frame == renderer.frame()).all()
    assert len({start.state.tobytes() for start in begin}) == 3
    np.testing.assert_array_equal(begin[2].state, starts(6, 1)[0][0].state)
    with pytest.raises(PixeltrajError, match="trained on"):
        ResetStarts(task, 0, settings | {"another": "light"})
