"""Viewer: what the page of `pixeltraj view` asks for, without the web around it."""

import base64
import io
import threading
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from PIL import Image

from pixeltraj.cli.imagine import continuation
from pixeltraj.decode.decoder import Decoder
from pixeltraj.errors import PixeltrajError
from pixeltraj.imaginer import Imaginer, Start
from pixeltraj.picture import COLOURS
from pixeltraj.store import Store
from pixeltraj.task import Task
from pixeltraj.trajectory import Trajectory

LONGEST_PROMPT = 1000
"""Characters. The text encoder takes far fewer; this only keeps its complaint readable."""


class Viewer:
    """A store and an imaginer. One trajectory is imagined at a time; frames can be looked at meanwhile.

    Every method raises PixeltrajError, in one line, on what cannot be done.
    """

    def __init__(self, store: Store, imaginer: Imaginer) -> None:
        store.require_frames()
        self.store, self.imaginer = store, imaginer
        readable = imaginer.decoder.lengths if isinstance(imaginer.decoder, Decoder) else imaginer.generator.lengths
        self.lengths = sorted(set(imaginer.generator.lengths) & set(readable))
        self._imagining, self._reading = threading.Lock(), threading.Lock()

    def about(self) -> dict[str, Any]:
        """All that the page has to know before anything is imagined."""
        store, task = self.store, self.store.task
        states = self._read("states", 0, store.frame_count)
        return {
            "task": task.name,
            "prompt": task.prompt,
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
        """One imagined trajectory and what really followed.

        asked: episode, step, seed; k, or None for what the length estimator proposes; prompt, or None for the
        task's own words in that state.
        """
        episode, step, seed = (whole(asked, name) for name in ("episode", "step", "seed"))
        prompt = asked.get("prompt")
        if not isinstance(prompt, str | None):
            raise PixeltrajError(f"the prompt must be a text, not {prompt!r}")
        if prompt is not None and len(prompt) > LONGEST_PROMPT:
            raise PixeltrajError(f"the prompt has {len(prompt)} characters, at most {LONGEST_PROMPT} are taken")
        if prompt is not None and any("\ud800" <= letter <= "\udfff" for letter in prompt):
            raise PixeltrajError("the prompt holds half a character (a lone surrogate); type it again")
        if not 0 <= seed < 2**32:
            raise PixeltrajError(f"the seed must be from 0 to {2**32 - 1}, not {seed}")
        row = self._row(episode, step)
        if step >= self.store.episodes[episode]["transitions"]:
            raise PixeltrajError(
                f"step {step} is the last of episode {episode}: nothing follows; choose an earlier one"
            )
        start = Start(self._read("states", row, row + 1)[0], self._read("frames", row, row + 1)[0])
        k = self._k(asked, start)
        began = time.perf_counter()
        with self._imagining:
            imaginer = Imaginer(self.imaginer.generator.at(k), self.imaginer.decoder, self.imaginer.num_inference_steps)
            rng = torch.Generator().manual_seed(seed)
            prompts = None if prompt is None else [prompt]
            (imagined,) = imaginer.imagine([start], rng, frames=True, prompts=prompts)
        seconds = time.perf_counter() - began
        imagined.origin = {"episode": episode, "step": step}
        with self._reading:
            real = continuation(self.store, imagined, k)
        task = self.store.task
        return {
            "episode": episode,
            "step": step,
            "seed": seed,
            "k": k,
            "prompt": task.prompt_of(start.state) if prompt is None else prompt,
            "seconds": round(seconds, 2),
            "imagined": shown(imagined, task),
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
