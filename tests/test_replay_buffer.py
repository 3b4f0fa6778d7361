"""Algorithm 1 against its definition."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pixeltraj.errors import PixeltrajError
from pixeltraj.replay_buffer import Batch, ReplayBuffer, ReplayBufferConfig, joined_weights
from pixeltraj.trajectory import Trajectory

S, A = 3, 2


class Dream:
    """Imagines `length` transitions from each state, with rewards of 1, and remembers what it was asked."""

    def __init__(self, length: int = 4, failing: bool = False) -> None:
        self.length, self.failing = length, failing
        self.asked: list[np.ndarray] = []
        self.seeds: list[int] = []

    def __call__(self, states: np.ndarray, snapshots: np.ndarray, seed: int) -> list[Trajectory]:
        self.asked.append(states)
        self.seeds.append(seed)
        return [] if self.failing else [self.one(state) for state in states]

    def one(self, state: np.ndarray) -> Trajectory:
        flags = np.zeros(self.length, bool)
        states = state + np.arange(self.length + 1, dtype=np.float32)[:, None]
        rewards = np.ones(self.length, np.float32)
        return Trajectory(states, np.zeros((self.length, A), np.float32), rewards, flags, flags, np.zeros((0, 1, 3)))


def fill(buffer: ReplayBuffer, count: int, terminal_every: int = 0, first: int = 0) -> None:
    """Transition i leads from state i to state i + 1; a reward of 0 tells it from an imagined one."""
    for i in range(first, first + count):
        terminated = bool(terminal_every) and i % terminal_every == terminal_every - 1
        state = np.full(S, i, np.float32)
        buffer.store(state, np.zeros(A, np.float32), 0.0, state + 1, terminated, np.array([float(i)]))


def make(imagine: Dream | None, seed: int = 0, **config: float) -> ReplayBuffer:
    return ReplayBuffer(ReplayBufferConfig(**config), S, A, np.random.default_rng(seed), imagine)


@settings(max_examples=30, deadline=None)
@given(
    rho=st.floats(0.02, 0.9),
    length=st.integers(1, 25),
    terminal_every=st.sampled_from([0, 2, 30]),
    seed=st.integers(0, 99),
)
def test_ratio_is_rho_to_one_minus_rho(rho: float, length: int, terminal_every: int, seed: int) -> None:
    stored, batch = 1500, 16
    buffer = make(Dream(length), seed, rho=rho, expected_length=float(length), imagine_batch=batch)
    fill(buffer, stored, terminal_every)
    p = rho / ((1 - rho) * length)
    deviation = np.sqrt(stored * 0.25)  # of a sum of independent roundings: at most 1/4 of variance each
    assert abs(buffer.requested - stored * p) <= 5 * deviation + 2 * (1 + p)
    assert 0 <= buffer.requested - buffer.received < batch
    assert buffer.imagined.appended == buffer.received * length


def test_requests_are_binomial_with_p() -> None:
    """A 5-sigma bound on both sides of p, where the rounding of p is a plain coin."""
    config = ReplayBufferConfig(rho=0.3, expected_length=4.0)
    assert config.probability == pytest.approx(0.3 / (0.7 * 4))
    buffer, n, p = make(Dream(), rho=0.3), 20_000, config.probability
    fill(buffer, n)
    assert abs(buffer.requested - n * p) < 5 * np.sqrt(n * p * (1 - p))
    assert len(buffer.imagined) / len(buffer.own) == pytest.approx(0.3 / 0.7, rel=0.1)


@settings(max_examples=25, deadline=None)
@given(rho=st.floats(0.05, 0.9), seed=st.integers(0, 99))
def test_sampling_probability_is_rho(rho: float, seed: int) -> None:
    buffer = make(Dream(), seed, rho=rho, imagine_batch=1)
    fill(buffer, 300)
    n = 20_000
    batch = buffer.sample(n)
    assert np.array_equal(batch.imagined, batch.rewards == 1.0)
    assert abs(batch.imagined.sum() - n * rho) < 5 * np.sqrt(n * rho * (1 - rho))


def test_sampling_is_uniform_within_each_part_and_keeps_rows_together() -> None:
    buffer = make(Dream(), rho=0.5, imagine_batch=1)
    fill(buffer, 50)
    batch = buffer.sample(50_000)
    np.testing.assert_array_equal(batch.next_states, batch.states + 1)
    counts = np.bincount(batch.states[~batch.imagined][:, 0].astype(int), minlength=50)
    expected = (~batch.imagined).sum() / 50
    assert np.abs(counts - expected).max() < 5 * np.sqrt(expected)


def test_own_data_alone_while_nothing_is_imagined() -> None:
    buffer = make(Dream(failing=True), rho=0.5, imagine_batch=1)
    fill(buffer, 100)
    assert buffer.requested > 0 and buffer.received == 0
    assert not buffer.sample(500).imagined.any()


def test_never_from_a_terminal_state() -> None:
    dream = Dream()
    buffer = make(dream, rho=0.8, imagine_batch=1)
    fill(buffer, 400, terminal_every=4)
    asked = np.concatenate(dream.asked)[:, 0]
    assert len(asked) > 200 and not (asked % 4 == 0).any()


def test_requests_come_in_batches_from_the_next_states() -> None:
    dream = Dream()
    buffer = make(dream, rho=0.5, imagine_batch=8)
    fill(buffer, 400)
    assert {len(states) for states in dream.asked} == {8}
    buffer.flush()
    assert buffer.requested == buffer.received
    assert np.concatenate(dream.asked)[:, 0].min() >= 1
    assert len(set(dream.seeds)) == len(dream.seeds)


def test_rings_keep_the_newest_in_proportion() -> None:
    buffer = make(Dream(), rho=0.75, capacity=100, imagine_batch=1)
    fill(buffer, 500)
    assert (len(buffer.own), len(buffer.imagined)) == (100, 300)
    assert buffer.own.columns["states"][:, 0].min() == 400


def test_resumes_exactly() -> None:
    whole, dream = make(Dream(), rho=0.4), Dream()
    fill(whole, 300)
    first = make(Dream(), rho=0.4)
    fill(first, 123)
    resumed = make(dream, seed=1, rho=0.4)
    resumed.load_state_dict({key: value.copy() for key, value in first.state_dict().items()})
    fill(resumed, 177, first=123)
    assert dream.seeds
    for a, b in zip(whole.sample(64), resumed.sample(64)):
        np.testing.assert_array_equal(a, b)
    assert (whole.requested, whole.received) == (resumed.requested, resumed.received)


@pytest.mark.parametrize(
    "bad",
    [
        {"rho": 1.0},
        {"rho": -0.1},
        {"rho": float("nan")},
        {"expected_length": 0.0},
        {"expected_length": -2.0},
        {"capacity": 0},
        {"imagined_capacity": 0},
        {"max_age": 0},
        {"alpha": -0.1},
        {"beta": 1.5},
    ],
)
def test_undefined_settings_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(PixeltrajError, match=next(iter(bad))):
        make(Dream(), **bad)


def test_empty_and_broken_data_are_refused() -> None:
    buffer = make(Dream(), rho=0.5, imagine_batch=1)
    with pytest.raises(PixeltrajError, match="empty"):
        buffer.sample(1)
    with pytest.raises(PixeltrajError, match="NaN"):
        buffer.store(np.full(S, np.nan), np.zeros(A), 0.0, np.zeros(S), False)
    with pytest.raises(PixeltrajError, match="actions"):
        buffer.store(np.zeros(S), np.zeros(A + 1), 0.0, np.zeros(S), False)
    assert len(buffer.own) == 0


class Weighing(Dream):
    """Trajectories whose transitions weigh 1, 2, ..., and the reward tells the weight."""

    def one(self, state: np.ndarray) -> Trajectory:
        made = super().one(state)
        made.weights = np.arange(1, self.length + 1, dtype=np.float32)
        made.rewards = made.weights.copy()
        return made


def test_imagined_transitions_are_drawn_in_proportion_to_their_weights() -> None:
    buffer = make(Weighing(), rho=0.5, imagine_batch=1)
    fill(buffer, 200)
    drawn = buffer.sample(40_000)
    counts = np.bincount(drawn.rewards[drawn.imagined].astype(int), minlength=5)[1:]
    expected = drawn.imagined.sum() * np.arange(1, 5) / 10
    assert (np.abs(counts - expected) < 5 * np.sqrt(expected)).all()
    assert abs(drawn.imagined.sum() - 20_000) < 5 * np.sqrt(10_000), "rho is what it was"
    imagined = drawn.states[drawn.imagined]
    np.testing.assert_array_equal(drawn.next_states[drawn.imagined], imagined + 1)


def test_weights_of_one_draw_what_no_weights_draw() -> None:
    plain, weighed = make(Dream(), rho=0.5), make(Dream(), rho=0.5)
    weighed.imagined.weights = np.ones(weighed.imagined.capacity, np.float32)
    for buffer in (plain, weighed):
        fill(buffer, 300)
    for a, b in zip(plain.sample(256), weighed.sample(256)):
        np.testing.assert_array_equal(a, b)


def test_weights_go_with_the_ring_and_come_back_from_a_checkpoint() -> None:
    first = make(Weighing(), rho=0.5, capacity=50, imagine_batch=1)
    fill(first, 300)
    weights = first.imagined.weights
    assert weights is not None
    np.testing.assert_array_equal(weights, first.imagined.columns["rewards"])
    resumed = make(Weighing(), seed=3, rho=0.5, capacity=50, imagine_batch=1)
    resumed.load_state_dict({key: value.copy() for key, value in first.state_dict().items()})
    for buffer in (first, resumed):
        fill(buffer, 20, first=300)
    for a, b in zip(first.sample(64), resumed.sample(64)):
        np.testing.assert_array_equal(a, b)
    saved = make(Dream(), rho=0.5).state_dict()
    assert "imagined.weights" not in saved
    resumed.load_state_dict(saved)
    assert resumed.imagined.weights is None


def test_those_without_weights_weigh_one() -> None:
    dream = Dream()
    buffer = make(dream, rho=0.5, imagine_batch=1)
    buffer.imagined.append(*Batch.of([dream.one(np.zeros(S, np.float32))])[:5])
    heavy = Weighing().one(np.zeros(S, np.float32))
    buffer.imagined.append(*Batch.of([heavy])[:5], weights=joined_weights([heavy]))
    assert buffer.imagined.weights is not None
    assert buffer.imagined.weights[:8].tolist() == [1, 1, 1, 1, 1, 2, 3, 4]
    assert joined_weights([dream.one(np.zeros(S, np.float32)), heavy]).tolist() == [1, 1, 1, 1, 1, 2, 3, 4]  # type: ignore
    for bad in (np.zeros(4, np.float32), np.ones(3, np.float32), np.full(4, np.nan, np.float32)):
        with pytest.raises(PixeltrajError, match="weights"):
            buffer.imagined.append(*Batch.of([heavy])[:5], weights=bad)
    assert buffer.imagined.appended == 8


def test_capacity_of_what_is_imagined_can_be_given_by_itself() -> None:
    buffer = make(Dream(), rho=0.5, capacity=100, imagined_capacity=40, imagine_batch=1)
    fill(buffer, 500)
    assert (len(buffer.own), len(buffer.imagined)) == (100, 40)


def test_what_was_imagined_long_ago_is_drawn_no_more() -> None:
    """Dreams begin in the states 1, 2, ..., where the agent is: they tell when they were dreamt."""
    buffer = make(Dream(length=1), rho=0.5, expected_length=1.0, imagine_batch=1, max_age=30)
    buffer.dream(Batch.of([Dream(length=1).one(np.full(S, -5, np.float32))]))
    fill(buffer, 30)
    drawn = buffer.sample(20_000)
    assert set(drawn.states[drawn.imagined, 0].astype(int)) == {-5, *range(1, 31)}
    fill(buffer, 70, first=30)
    drawn = buffer.sample(20_000)
    assert set(drawn.states[drawn.imagined, 0].astype(int)) == set(range(70, 101))


def test_aged_transitions_make_room_for_no_others() -> None:
    dream = Dream(length=2)
    buffer = make(dream, rho=0.5, expected_length=2.0, imagine_batch=1, max_age=1)
    fill(buffer, 50)
    dream.failing = True
    fill(buffer, 5, first=50)
    assert not len(buffer.imagined) and not buffer.sample(100).imagined.any()
    dream.failing = False
    fill(buffer, 20, first=55)
    assert buffer.sample(100).imagined.any()


def test_the_length_that_comes_is_told() -> None:
    buffer = make(Dream(length=3), rho=0.5, expected_length=4.0, imagine_batch=1)
    assert buffer.length is None
    fill(buffer, 100)
    assert buffer.length == 3.0


class Grading(Dream):
    """Of rewards 1, 2, ...: they tell transitions of a trajectory apart."""

    def one(self, state: np.ndarray) -> Trajectory:
        made = super().one(state)
        made.rewards = np.arange(1, self.length + 1, dtype=np.float32)
        return made


def prioritised(alpha: float, beta: float = 1.0) -> ReplayBuffer:
    """Own transitions from the states 0 to 9, TD errors as large as those; imagined ones' as large as their rewards."""
    buffer = make(Grading(), rho=0.5, expected_length=4.0, imagine_batch=1, alpha=alpha, beta=beta)
    fill(buffer, 10)
    for _ in range(30):
        batch = buffer.sample(100)
        buffer.prioritise(batch, np.where(batch.imagined, batch.rewards, batch.states[:, 0]))
    return buffer


def test_transitions_are_drawn_by_their_errors_inside_each_part() -> None:
    alpha = 0.5
    drawn = prioritised(alpha).sample(40_000)
    assert abs(drawn.imagined.sum() - 20_000) < 5 * np.sqrt(10_000), "rho is what it was"
    for values, errors in (
        (drawn.states[~drawn.imagined, 0], np.arange(10)),
        (drawn.rewards[drawn.imagined], np.arange(1, 5)),
    ):
        counts = np.bincount(values.astype(int), minlength=10)[errors]
        expected = len(values) * errors**alpha / (errors**alpha).sum()
        assert (np.abs(counts - expected) <= 5 * np.sqrt(expected) + 0.01 * len(values)).all()


def test_their_weights_make_up_for_it() -> None:
    """Wholly, at a beta of 1: weighted, each state is met as often as any other."""
    drawn = prioritised(alpha=0.5).sample(40_000)
    assert drawn.weights is not None and drawn.weights.dtype == np.float32 and drawn.weights.max() == 1.0
    own = ~drawn.imagined & (drawn.states[:, 0] > 0)
    sums = np.bincount(drawn.states[own, 0].astype(int), weights=drawn.weights[own])[1:]
    np.testing.assert_allclose(sums, sums.mean(), rtol=0.15)
    assert (prioritised(alpha=0.5, beta=0.0).sample(100).weights == 1.0).all()


def test_new_transitions_are_drawn_like_the_most_wanted() -> None:
    buffer = prioritised(alpha=1.0)
    fill(buffer, 1, first=10)
    states = buffer.sample(20_000)
    own = np.bincount(states.states[~states.imagined, 0].astype(int), minlength=11)
    assert abs(own[10] - own[9]) < 5 * np.sqrt(own[9] + own[10])


def test_priorities_come_back_from_a_checkpoint() -> None:
    first, resumed = prioritised(alpha=0.7), make(Grading(), seed=4, rho=0.5, imagine_batch=1, alpha=0.7, beta=1.0)
    resumed.load_state_dict({key: value.copy() for key, value in first.state_dict().items()})
    for buffer in (first, resumed):
        fill(buffer, 5, first=10)
    for a, b in zip(first.sample(64), resumed.sample(64)):
        np.testing.assert_array_equal(a, b)
    assert first.length == resumed.length


def test_errors_that_are_none_are_refused() -> None:
    buffer = prioritised(alpha=1.0)
    batch = buffer.sample(8)
    for errors in (np.zeros(7), np.full(8, np.nan)):
        with pytest.raises(PixeltrajError, match="finite TD error for each of 8"):
            buffer.prioritise(batch, errors)
    plain = make(Grading(), rho=0.5)
    fill(plain, 3)
    with pytest.raises(PixeltrajError, match="alpha above 0"):
        plain.prioritise(plain.sample(2), np.ones(2))
