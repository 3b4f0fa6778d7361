"""Heads: features -> keypoints in pixels and depth; states and features -> hidden state, actions, outcomes.

Shapes: B batch, K frames, N keypoints, C channels, L = 12 latents a tile, S state, A action.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from pixeltraj.camera import FRAME_SIZE
from pixeltraj.grid import LATENT, MARGIN, TILE
from pixeltraj.task import Pair

CELLS = 2 * LATENT
"""Heat maps are 24x24: a cell is 4 pixels wide."""
RESIDUAL = 3.0
"""Pixels by which the trained residual may move a soft-argmax."""
CONTEXT = (-2, -1, 0, 1, 2, 3)
"""Frames, counted from a transition's own, that its heads see; the arm lags behind its command."""
CLIP = 5.0
"""Normalised states are clipped here, so that a misread frame cannot drive a head far out."""
NEAR = 0.02
"""Metres."""


@dataclass(frozen=True)
class HeadsConfig:
    channels: int
    """Of the features."""
    keypoints: int
    """Points to locate."""
    state: int
    """Size of the state."""
    hidden: tuple[int, ...]
    """Indices of the state that keypoints do not tell."""
    actions: int
    """Size of the action."""
    sparse: bool
    """Whether the reward is 1 on success, which ends the episode; else it is a number."""
    width: int = 64
    """Channels of the keypoint head."""
    mlp: int = 256
    """Hidden units of the other heads."""


class KeypointHead(nn.Module):
    """Features of a tile -> one heat map and one depth map a keypoint -> soft-argmax and depth under it."""

    mean: Tensor
    std: Tensor
    depth_mean: Tensor
    depth_std: Tensor
    column: Tensor
    row: Tensor
    place: Tensor

    def __init__(self, config: HeadsConfig) -> None:
        super().__init__()
        width, points = config.width, config.keypoints
        self.points = points
        self.register_buffer("mean", torch.zeros(config.channels))
        self.register_buffer("std", torch.ones(config.channels))
        self.register_buffer("depth_mean", torch.ones(points))
        self.register_buffer("depth_std", torch.ones(points))
        self.stem = nn.Sequential(nn.Conv2d(config.channels + 2, width, 1), nn.SiLU())
        for _ in range(3):
            self.stem.extend([nn.Conv2d(width, width, 3, padding=1), nn.GroupNorm(8, width), nn.SiLU()])
        self.fine = nn.Sequential(nn.Conv2d(width, width // 2, 3, padding=1), nn.SiLU())
        self.maps = nn.Conv2d(width // 2, 4 * points, 1)  # heat, depth, residual column and row
        centre = (torch.arange(CELLS) + 0.5) * TILE / CELLS - MARGIN
        self.register_buffer("column", centre.expand(CELLS, CELLS).flatten(), persistent=False)
        self.register_buffer("row", centre[:, None].expand(CELLS, CELLS).flatten(), persistent=False)
        place = torch.linspace(-1, 1, LATENT)
        grid = torch.stack([place.expand(LATENT, LATENT), place[:, None].expand(LATENT, LATENT)])
        self.register_buffer("place", grid, persistent=False)

    def normalise(self, features: Tensor) -> Tensor:
        """(B, C, L, L): each channel with mean 0 and deviation 1 over the training frames."""
        return (features.float() - self.mean[:, None, None]) / self.std[:, None, None]

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C, L, L) -> pixels (B, N, 3): column, row in pixels and depth in metres; heat (B, N, 24 24) logits."""
        tiles = self.normalise(features)
        tiles = torch.cat([tiles, self.place.expand(len(tiles), -1, -1, -1)], dim=1)
        stem = functional.interpolate(self.stem(tiles), scale_factor=2, mode="bilinear", align_corners=False)
        maps = self.maps(self.fine(stem)).reshape(len(tiles), 4, self.points, CELLS * CELLS)
        heat = maps[:, 0]
        weight = heat.softmax(dim=-1)
        depth, right, down = (weight[:, None] * maps[:, 1:]).sum(dim=-1).unbind(dim=1)
        column = (weight * self.column).sum(dim=-1) + RESIDUAL * torch.tanh(right)
        row = (weight * self.row).sum(dim=-1) + RESIDUAL * torch.tanh(down)
        return torch.stack([column, row, self.depth_mean + self.depth_std * depth], dim=-1), heat


def keypoint_loss(pixels: Tensor, heat: Tensor, target: Tensor, focal: float, deep: Tensor | None = None) -> Tensor:
    """Huber error in centimetres across and along the view, and cross-entropy of the heat maps with a
    Gaussian of one cell around the truth. target (B, N, 3) column, row, depth; deep (B,): 0 for tiles that
    were moved, where depth means nothing.
    """
    depth = target[..., 2:]
    across = (pixels[..., :2] - target[..., :2]) * depth / focal
    along = pixels[..., 2:] - depth
    if deep is not None:
        along = along * deep[:, None, None]
    error = 100 * torch.cat([across, along], dim=-1)
    cell = (target[..., :2].clamp(0, FRAME_SIZE) + MARGIN) * CELLS / TILE - 0.5
    index = torch.arange(CELLS)
    near_column = torch.exp(-0.5 * (index - cell[..., :1]) ** 2)  # (B, N, 24)
    near_row = torch.exp(-0.5 * (index - cell[..., 1:2]) ** 2)
    near = (near_row[..., :, None] * near_column[..., None, :]).flatten(-2)
    near = near / near.sum(dim=-1, keepdim=True)
    entropy = -(near * heat.log_softmax(dim=-1)).sum(dim=-1).mean()
    return functional.huber_loss(error, torch.zeros_like(error), delta=1.0) + 0.02 * entropy


class WindowHead(nn.Module):
    """An MLP for one transition of a window, the same for each of them: it sees the frames around it."""

    def __init__(self, config: HeadsConfig, values: int, outputs: int) -> None:
        """values: how many there are of each frame."""
        super().__init__()
        seen = 16
        self.look = nn.Linear(config.channels, seen)
        # of each frame in context: its values, the change to the next, its features, whether it is in the window
        inputs = len(CONTEXT) * (2 * values + seen + 1)
        self.mlp = nn.Sequential(nn.Linear(inputs, config.mlp), nn.SiLU(), nn.Linear(config.mlp, config.mlp), nn.SiLU())
        self.out = nn.Linear(config.mlp, outputs)

    def forward(self, values: Tensor, changes: Tensor, pooled: Tensor) -> Tensor:
        """values, changes (B, K, V) normalised, pooled (B, K, C) -> (B, K-1, outputs)."""
        frames = torch.cat([values, changes, functional.silu(self.look(pooled))], dim=-1)
        k = frames.shape[1]
        place = torch.arange(k - 1, device=frames.device)[:, None] + torch.tensor(CONTEXT, device=frames.device)
        inside = ((place >= 0) & (place < k)).to(frames)[None, ..., None].expand(len(frames), -1, -1, -1)
        context = frames[:, place.clamp(0, k - 1)] * inside  # (B, K-1, context, ...)
        return self.out(self.mlp(torch.cat([context, inside], dim=-1).flatten(-2)))


class Heads(nn.Module):
    """All trained parts of a decoder, with the statistics that normalise their inputs."""

    state_mean: Tensor
    state_std: Tensor
    change_mean: Tensor
    change_std: Tensor
    keypoint_mean: Tensor
    keypoint_std: Tensor
    misread: Tensor
    """(N, 3) metres by which the keypoint head misses: what corrections are measured in."""
    reward_mean: Tensor
    reward_std: Tensor
    threshold: Tensor
    """Logit above which a transition counts as success (sparse) or as termination (dense)."""
    doubt: Tensor
    """What stated uncertainties are multiplied by, so that they are as large as what is misread in new episodes."""
    motion: Tensor
    """(S+1, S) and (S, S): how states go on, and how far that is off (`pixeltraj.decode.motion.Motion`)."""
    motion_error: Tensor

    def __init__(self, config: HeadsConfig, pairs: tuple[Pair, ...] = ()) -> None:
        """pairs: those of the task."""
        super().__init__()
        self.config, self.pairs = config, pairs
        self.keypoint = KeypointHead(config)
        self.refine = WindowHead(config, 3 * config.keypoints, 4 * config.keypoints)
        nn.init.zeros_(self.refine.out.weight)
        nn.init.zeros_(self.refine.out.bias)
        self.action = WindowHead(config, config.state, config.actions)
        self.outcome = WindowHead(config, config.state + len(pairs), 1 if config.sparse else 2)
        self.hidden = WindowHead(config, config.state, len(config.hidden)) if config.hidden else None
        points = (config.keypoints, 3)
        for kind, shape in (("state", (config.state,)), ("change", (config.state,)), ("keypoint", points)):
            self.register_buffer(f"{kind}_mean", torch.zeros(shape))
            self.register_buffer(f"{kind}_std", torch.ones(shape))
        self.register_buffer("misread", torch.ones(points))
        self.register_buffer("reward_mean", torch.zeros(()))
        self.register_buffer("reward_std", torch.ones(()))
        self.register_buffer("threshold", torch.zeros(()))
        self.register_buffer("doubt", torch.ones(()))
        self.register_buffer("motion", torch.zeros(config.state + 1, config.state, dtype=torch.float64))
        self.register_buffer("motion_error", torch.eye(config.state, dtype=torch.float64))

    def locate(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """(B, K, C, L, L) -> pixels (B, K, N, 3): column, row, depth; pooled features (B, K, C)."""
        tiles = features.flatten(0, 1)
        with torch.autocast(tiles.device.type, torch.bfloat16):  # as it was trained
            pixels, _ = self.keypoint(tiles)
        pooled = self.keypoint.normalise(tiles.mean(dim=(-2, -1), keepdim=True))[..., 0, 0]
        return pixels.float().unflatten(0, features.shape[:2]), pooled.unflatten(0, features.shape[:2])

    def refined(self, keypoints: Tensor, pooled: Tensor) -> tuple[Tensor, Tensor]:
        """keypoints (B, K, N, 3) as each frame alone says, in metres -> what the whole window says: the same for
        frame 0, which is known, and corrected after it; and their uncertainty (B, K, N), metres: the deviation that
        is expected along each axis, 0 for frame 0.

        A single view tells depth least; what lies on the table, how long a limb is, and that things move smoothly is
        learned here.
        """
        flat = ((keypoints - self.keypoint_mean) / self.keypoint_std).clamp(-CLIP, CLIP).flatten(-2)
        moved = torch.diff(keypoints, dim=1, append=keypoints[:, -1:]) / self.misread
        told = self.refine(flat, moved.clamp(-2 * CLIP, 2 * CLIP).flatten(-2), pooled)
        told = told.unflatten(-1, (self.config.keypoints, 4))
        corrected = keypoints[:, 1:] + self.misread * told[..., :3].clamp(-CLIP, CLIP)
        unit = self.misread.square().mean(dim=-1).sqrt()
        spread = unit * told[..., 3].clamp(-CLIP, CLIP).exp()
        known = torch.zeros_like(spread[:, :1])
        return torch.cat([keypoints[:, :1], corrected], dim=1), torch.cat([known, spread], dim=1)

    def normalise(self, states: Tensor) -> tuple[Tensor, Tensor]:
        """(B, K, S) -> the same and its change to the next frame, normalised and clipped."""
        change = torch.diff(states, dim=1, append=states[:, -1:])
        scaled = ((states - self.state_mean) / self.state_std).clamp(-CLIP, CLIP)
        return scaled, ((change - self.change_mean) / self.change_std).clamp(-CLIP, CLIP)

    def fill(self, states: Tensor, pooled: Tensor) -> Tensor:
        """(B, K, S) with hidden dimensions of frames 1.. unknown -> with the hidden head's reading of them."""
        if self.hidden is None:
            return states
        index = list(self.config.hidden)
        known = states.clone()
        known[:, 1:, index] = self.state_mean[index]
        scaled, change = self.normalise(known)
        change[..., index] = 0
        read = self.hidden(scaled, change, pooled)
        known[:, 1:, index] = self.state_mean[index] + self.state_std[index] * read.clamp(-2 * CLIP, 2 * CLIP)
        return known

    def act(self, states: Tensor, pooled: Tensor) -> tuple[Tensor, Tensor]:
        """(B, K, S), (B, K, C) -> actions (B, K-1, A) in [-1, 1]; outcomes (B, K-1, 1 or 2): of dense rewards the
        reward first; last the logit of an end."""
        scaled, change = self.normalise(states)
        apart = self.apart(states)
        closing = torch.diff(apart, dim=1, append=apart[:, -1:])
        outcome = self.outcome(torch.cat([scaled, apart], -1), torch.cat([change, closing], -1), pooled)
        return torch.tanh(self.action(scaled, change, pooled)), outcome

    def apart(self, states: Tensor) -> Tensor:
        """(B, K, S) -> (B, K, P): how far the points of each pair are apart, in units of NEAR, far ones clipped.

        Success is nearly always that two things are near each other, which some dozens of successes do not teach.
        """
        ways = [(states[..., one] - states[..., other]).norm(dim=-1) / NEAR for one, other in self.pairs]
        return torch.stack(ways, dim=-1).clamp(max=2 * CLIP) if ways else states[..., :0]
