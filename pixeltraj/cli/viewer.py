"""Viewer: what the page of `pixeltraj view` asks for, without the web around it."""

import base64
import io
import threading
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from PIL import Image

from pixeltraj.cli.imagine import continuation
from pixeltraj.decode.decoder import Decoder
from pixeltraj.errors import PixeltrajError
from pixeltraj.guidance import Guidance
from pixeltraj.imaginer import Imaginer, Start
from pixeltraj.picture import COLOURS
from pixeltraj.store import Store
from pixeltraj.task import Task
from pixeltraj.trajectory import Trajectory

LONGEST_PROMPT = 1000
"""Characters. The text encoder takes far fewer; this only keeps its complaint readable."""
MOST_SAMPLES = 4
"""Futures of one state that stand side by side."""
STRONGEST_GUIDANCE = 20
"""Far past anything that still looks like the task."""


class Viewer:
    """A store and an imaginer. One thing is imagined at a time; frames can be looked at meanwhile.

    Every method raises PixeltrajError, in one line, on what cannot be done.
    """

    def __init__(self, store: Store, imaginer: Imaginer, busy: threading.Lock) -> None:
        """busy: held while something is imagined."""
        store.require_frames()
        self.store, self.imaginer = store, imaginer
        readable = imaginer.decoder.lengths if isinstance(imaginer.decoder, Decoder) else imaginer.generator.lengths
        self.lengths = sorted(set(imaginer.generator.lengths) & set(readable))
        self._busy, self._reading = busy, threading.Lock()

    def about(self) -> dict[str, Any]:
        """All that the page has to know before anything is imagined."""
        store, task = self.store, self.store.task
        states = self._read("states", 0, store.frame_count)
        return {
            "task": task.name,
            "prompt": task.prompt,
            "prompt_kind": self.imaginer.generator.prompt,
            "guidance": self.imaginer.guidance.prompt,
            "samples": MOST_SAMPLES,
            "sparse": task.reward == "sparse",
            "action_size": task.action_size,
            "lengths": self.lengths,
            "length": self.imaginer.generator.k,
            "proposes_length": self.imaginer.length is not None,
            "episodes": [episode["transitions"] for episode in store.episodes],
            "heldout": store.split()[1] if len(store) >= 5 else [],
            "keypoints": [
                {"name": point.name, "colour": COLOURS[i % len(COLOURS)]} for i, point in enumerate(task.keypoints)
            ],
            "state": [
                {"name": d.name, "unit": d.unit, "range": float(spread)}
                for d, spread in zip(task.state, np.ptp(states, axis=0))
            ],
        }

    def frame(self, episode: int, step: int) -> bytes:
        """A PNG of one frame of the store."""
        row = self._row(episode, step)
        return png(self._read("frames", row, row + 1)[0])

    def imagine(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """Imagined trajectories and what really followed.

        asked: episode, step, seed; samples, how many futures are drawn from that seed, 1 if not given; k, or None for
        what the length estimator proposes; prompt, or None for the task's own words in that state; guidance, how
        strongly the prompt steers, or None for the imaginer's.
        """
        episode, step, seed = (whole(asked, name) for name in ("episode", "step", "seed"))
        samples = whole(asked, "samples") if "samples" in asked else 1
        if not 1 <= samples <= MOST_SAMPLES:
            raise PixeltrajError(f"1 to {MOST_SAMPLES} samples can be shown, not {samples}")
        if not 0 <= seed < 2**32:
            raise PixeltrajError(f"the seed must be from 0 to {2**32 - 1}, not {seed}")
        guidance = self._guidance(asked)
        prompt = asked.get("prompt")
        if not isinstance(prompt, str | None):
            raise PixeltrajError(f"the prompt must be a text, not {prompt!r}")
        if prompt is not None and len(prompt) > LONGEST_PROMPT:
            raise PixeltrajError(f"the prompt has {len(prompt)} characters, at most {LONGEST_PROMPT} are taken")
        if prompt is not None and any("\ud800" <= letter <= "\udfff" for letter in prompt):
            raise PixeltrajError("the prompt holds half a character (a lone surrogate); type it again")
        row = self._row(episode, step)
        if step >= self.store.episodes[episode]["transitions"]:
            raise PixeltrajError(
                f"step {step} is the last of episode {episode}: nothing follows; choose an earlier one"
            )
        state, frame = (self._read(name, row, row + 1)[0] for name in ("states", "frames"))
        start = Start(state, frame, self.store.prompts(np.array([row]))[0])
        k = self._k(asked, start)
        with self._busy:
            began = time.perf_counter()
            parts = self.imaginer
            imaginer = Imaginer(parts.generator.at(k), parts.decoder, parts.num_inference_steps, guidance=guidance)
            prompts, rng = None if prompt is None else [prompt] * samples, torch.Generator().manual_seed(seed)
            imagined = imaginer.imagine([start] * samples, rng, frames=True, prompts=prompts)
            seconds = time.perf_counter() - began
        imagined[0].origin = {"episode": episode, "step": step}
        with self._reading:
            real = continuation(self.store, imagined[0], k)
        task = self.store.task
        return {
            "episode": episode,
            "step": step,
            "seed": seed,
            "k": k,
            "guidance": guidance.prompt,
            "prompt": start.prompt if prompt is None else prompt,
            "seconds": round(seconds, 2),
            "imagined": [shown(trajectory, task) for trajectory in imagined],
            "real": shown(real, task),
        }

    def _k(self, asked: Mapping[str, Any], start: Start) -> int:
        if asked.get("k") is None:
            length = self.imaginer.length
            return int(length(start.state[None])[0]) if length else self.imaginer.generator.k
        k = whole(asked, "k")
        if k not in self.lengths:
            trained = ", ".join(map(str, self.lengths))
            raise PixeltrajError(f"this generator was trained for k={trained}, not k={k}: choose one of these")
        return k

    def _guidance(self, asked: Mapping[str, Any]) -> Guidance:
        scale = asked.get("guidance")
        if scale is None:
            return self.imaginer.guidance
        if isinstance(scale, bool) or not isinstance(scale, int | float) or not 0 <= scale <= STRONGEST_GUIDANCE:
            raise PixeltrajError(f"guidance must be a number from 0 to {STRONGEST_GUIDANCE}, not {scale!r}")
        return replace(self.imaginer.guidance, prompt=float(scale))

    def _row(self, episode: int, step: int) -> int:
        if not 0 <= episode < len(self.store):
            raise PixeltrajError(f"there are episodes 0 to {len(self.store) - 1}, not {episode}")
        last = self.store.episodes[episode]["frames"] - 1
        if not 0 <= step <= last:
            raise PixeltrajError(f"episode {episode} has steps 0 to {last}, not {step}")
        return int(self.store.offsets[episode]) + step

    def _read(self, name: str, start: int, stop: int) -> np.ndarray:
        with self._reading:
            return self.store.read(name, start, stop)


def whole(asked: Mapping[str, Any], name: str) -> int:
    """A whole number of a request."""
    value = asked.get(name)
    if not isinstance(value, int) or isinstance(value, bool):
        raise PixeltrajError(f"{name} must be a whole number, not {value!r}" if name in asked else f"{name} is missing")
    return value


def shown(trajectory: Trajectory, task: Task) -> dict[str, Any]:
    """A trajectory with frames as JSON: keypoints in pixels (T+1, N, 2), frames as data URLs, the rest as it is."""
    assert trajectory.frames is not None
    return {
        "frames": [f"data:image/png;base64,{base64.b64encode(png(frame)).decode()}" for frame in trajectory.frames],
        "keypoints": numbers(task.camera.project(trajectory.keypoints)[..., :2], digits=2),
        "states": numbers(trajectory.states),
        "actions": numbers(trajectory.actions),
        "rewards": numbers(trajectory.rewards),
        "terminations": trajectory.terminations.tolist(),
        "truncations": trajectory.truncations.tolist(),
    }


def numbers(values: np.ndarray, digits: int = 6) -> list[Any]:
    return values.astype(np.float64).round(digits).tolist()


def png(frame: np.ndarray) -> bytes:
    """(H, W, 3) uint8 -> a PNG file."""
    file = io.BytesIO()
    Image.fromarray(frame).save(file, "PNG", compress_level=1)
    return file.getvalue()
