"""Audit of a store, transition by transition, against the simulator and against real data.

OUT/  audit.json               what was found; `meaning` in it says what each part is
      transitions.safetensors  a row for each audited transition of the store:
          episode (n,) int64         in the store            step (n,) int64      t: from s_t to s_{t+1}
          error (n, S) float32       simulator minus claimed s_{t+1}
          error_pct (n,) float32     mean of |error| in % of the ranges, over dimensions that change in an episode
          action_residual (n, A) float32   the action that was needed minus the one claimed; NaN where it is not told
          violation, reward_wrong, termination_wrong, diverged, refused  (n,) bool
      Of diverged and refused transitions all floats are NaN.
"""

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro
from safetensors.numpy import save_file

from pixeltraj.decode.coherence import static_keypoints
from pixeltraj.decode.coverage import Windows, coverage, padded
from pixeltraj.decode.examination import Examination, examine
from pixeltraj.decode.findings import arrays, findings, sound_trajectories
from pixeltraj.decode.subject import Subject, open_real, open_synthetic, real_subject, synthetic_subject
from pixeltraj.decode.yardstick import Yardstick, measure, ranges
from pixeltraj.errors import PixeltrajError
from pixeltraj.files import provenance, write_json, write_whole
from pixeltraj.store import Store
from pixeltraj.windows import store_windows

SCHEMA = 1
_FEWEST_HELDOUT = 100
"""Held-out windows that coverage is asked of, where there are as many; more where more is audited."""
_MOST_TRAINING = 50_000
"""Training windows to which distances are measured; more are drawn from."""
MEANING = {
    "one_step": "simulator(s_t, a_t) - s_{t+1}, mean |.|: in units, and in % of the range in the training episodes; "
    "nothing_moves: s_t - s_{t+1}; set_state: how far from s_t the simulator was when it set out",
    "action_residual": "the action that the simulator would have needed minus the one claimed (damped least squares "
    "on its response to the action), mean |.|; null where one decision's action does too little to tell",
    "violations": "transitions with an end beyond the bounds: joints past their limits, contacts deeper than real ones",
    "reward": "of the transitions on which the simulator could be asked: how often it disagrees",
    "static_drift": "how far what never moves in real data is from where it was in frame 0",
    "coherence": "second differences of the keypoints, mm",
    "open_loop": "the simulator starts in the real state and is driven by the claimed actions alone: state error "
    "after 1, 2, ... steps; null where trajectories have no real start",
    "coverage": "density and coverage (Naeem et al. 2020) of held-out windows; nearest_training: median distance to "
    "the nearest training window, % of range; copied: share nearer than 95 % of held-out windows; diversity: mean "
    "distance between two of them over that of real ones; null where held-out windows are too few",
    "refused": "transitions with NaN, with states more than ten ranges away from anything real, or from states "
    "that the simulator cannot be set to; in no average, nor are their trajectories in open_loop and coverage",
    "diverged": "transitions on which MuJoCo warned of a bad state, or the simulator itself left for more than ten "
    "ranges; in no average, as above",
}


@dataclass(frozen=True, kw_only=True)
class AuditConfig:
    store: Annotated[Path, tyro.conf.Positional]
    """Imagined trajectories, or others that no simulator made."""
    real: Path
    """The collected store they were imagined from: its held-out episodes are the yardstick, its training episodes
    what may have been copied."""
    out: Path
    """Folder for audit.json and transitions.safetensors."""
    synther: Path | None = None
    """SynthER's transitions of the same task, as another yardstick."""
    n: int = 256
    """Trajectories to audit at most."""
    seed: int = 0
    """Of which ones."""


def audit_store(config: AuditConfig) -> dict[str, Any]:
    """Audit, write both files -> what audit.json holds.

    Raises PixeltrajError before anything is simulated where stores cannot be audited against each other.
    """
    if config.n < 1:
        raise PixeltrajError(f"--n must be at least 1, not {config.n}")
    if config.out.exists() and not config.out.is_dir():
        raise PixeltrajError(f"{config.out} is a file; give another --out")
    began = time.perf_counter()
    store = open_synthetic(config.store)
    real = open_real(config.real, store)
    low, high = ranges(real)
    subjects = {"imagined": synthetic_subject(store, real, config.n, high - low, _rng(config))}
    stores = {"imagined": store}
    if config.synther is not None:
        other = stores["synther"] = open_synthetic(config.synther)
        if other.task.name != store.task.name:
            raise PixeltrajError(f"{config.synther} holds {other.task.name}, not {store.task.name}")
        subjects["synther"] = synthetic_subject(other, real, config.n, high - low, _rng(config))
    config.out.mkdir(parents=True, exist_ok=True)
    return _Audit(config, real, stores, subjects, low, high).write(began)


def _rng(config: AuditConfig) -> np.random.Generator:
    return np.random.default_rng(config.seed)


class _Audit:
    def __init__(
        self,
        config: AuditConfig,
        real: Store,
        stores: dict[str, Store],
        subjects: dict[str, Subject],
        low: np.ndarray,
        high: np.ndarray,
    ) -> None:
        self.config, self.real, self.stores, self.subjects = config, real, stores, subjects
        self.task, self.simulator = real.task, real.task.make()
        self.frames = {name: typical_frames(store) for name, store in stores.items()}
        main = subjects["imagined"]
        count = len(main.trajectories)
        subjects["real"] = real_subject(real, self.frames["imagined"], count, main.exact, high - low, _rng(config))
        began = time.process_time()
        self.examined = {
            name: examine(self.simulator, subject.trajectories, subject.near, f"audit, {name}")
            for name, subject in subjects.items()
        }
        self.cpu_seconds = time.process_time() - began
        self.yardstick: Yardstick = measure(real, self.examined["real"], low, high)
        for examined in self.examined.values():
            self.yardstick.judge(examined)

    def write(self, began: float) -> dict[str, Any]:
        still = static_keypoints(self.real, self.real.split()[0])
        found = {
            name: findings(self.simulator, subject, self.examined[name], self.yardstick, still, _rng(self.config))
            for name, subject in self.subjects.items()
        }
        for name, frames in self.frames.items():
            found[name]["coverage"] = self._coverage(self.subjects[name], self.examined[name], frames)
        transitions = sum(len(e.step) for e in self.examined.values())
        result = {
            "schema": SCHEMA,
            "task": self.task.name,
            "store": str(self.config.store),
            "real_store": str(self.config.real),
            "synther_store": str(self.config.synther) if self.config.synther else None,
            "n": self.config.n,
            "seed": self.config.seed,
            "summary": summarised(found),
            "imagined": found["imagined"],
            "real": found["real"],
            "synther": found.get("synther"),
            "bounds": self.yardstick.as_json(),
            "meaning": MEANING,
            "transitions_per_cpu_second": transitions / max(self.cpu_seconds, 1e-9),
            "provenance": provenance(),
            "seconds": time.perf_counter() - began,
        }
        self._write_rows(self.examined["imagined"])
        write_json(self.config.out / "audit.json", result)
        return result

    def _coverage(self, subject: Subject, examined: Examination, frames: int) -> dict[str, Any] | None:
        rng, sound = _rng(self.config), sound_trajectories(examined)
        if not sound:
            return None
        origins = [subject.trajectories[i].origin.get("episode", -1) if subject.exact else -1 for i in sound]
        imagined = Windows(padded([subject.trajectories[i] for i in sound], frames), np.array(origins, dtype=np.int64))
        training, heldout = self.real.split()
        return coverage(
            imagined,
            self._windows(frames, heldout, max(len(sound), _FEWEST_HELDOUT), rng),
            self._windows(frames, training, _MOST_TRAINING, rng),
            self.yardstick.span,
            rng,
        )

    def _windows(self, frames: int, episodes: list[int], most: int, rng: np.random.Generator) -> Windows:
        rows = store_windows(self.real, frames, episodes)
        rows = rows[np.sort(rng.permutation(len(rows))[:most])]
        owners = np.searchsorted(self.real.offsets, rows[:, 0], side="right") - 1
        return Windows(self.real.windows("states", rows), owners)

    def _write_rows(self, examined: Examination) -> None:
        rows = {
            k: np.ascontiguousarray(v) for k, v in arrays(self.subjects["imagined"], examined, self.yardstick).items()
        }
        about = {"schema": str(SCHEMA), "task": self.task.name, "provenance": json.dumps(provenance())}
        write_whole(self.config.out / "transitions.safetensors", lambda beside: save_file(rows, beside, about))


def typical_frames(store: Store) -> int:
    """The number of frames that most trajectories of a store have."""
    return int(np.bincount([episode["frames"] for episode in store.episodes]).argmax())


def summarised(found: dict[str, Any]) -> dict[str, float | None]:
    """One-step errors, % of range: imagined, real, SynthER's, and those of a predictor for which nothing moves."""

    def percent(name: str, which: str) -> float | None:
        part = (found.get(name) or {}).get("one_step")
        return part[which]["percent_of_range"] if part else None

    return {
        "one_step": percent("imagined", "error"),
        "one_step_real": percent("real", "error"),
        "one_step_static": percent("imagined", "nothing_moves"),
        "one_step_static_real": percent("real", "nothing_moves"),
        "one_step_synther": percent("synther", "error"),
    }
