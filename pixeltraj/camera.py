"""Camera: a free pinhole camera, and the map between 3D points and pixels."""

from dataclasses import dataclass

import numpy as np

FRAME_SIZE = 84
"""Height and width of every frame, in pixels (the size RL has used since the Atari papers)."""


@dataclass(frozen=True)
class Camera:
    """MuJoCo's free camera. Equal cameras give frames that one generator can share.

    Points are given relative to the camera's anchor: the origin of the world, or, where the camera
    tracks a body, the point (x and y of that body, 0). The simulator's keypoints are relative to it too.
    """

    lookat: tuple[float, float, float]
    """The point in the middle of the frame, metres from the anchor."""
    distance: float
    """From the camera to `lookat`, metres."""
    azimuth: float
    """Degrees about the vertical axis; 90 looks along +y."""
    elevation: float
    """Degrees; negative looks down."""
    fovy: float = 45.0
    """Vertical field of view, degrees."""
    track: str | None = None
    """Body whose x and y the camera follows."""

    @property
    def rotation(self) -> np.ndarray:
        """(3, 3) rows: right, up, forward, in world coordinates."""
        azimuth, elevation = np.deg2rad(self.azimuth), np.deg2rad(self.elevation)
        ca, sa, ce, se = np.cos(azimuth), np.sin(azimuth), np.cos(elevation), np.sin(elevation)
        return np.array([[sa, -ca, 0.0], [-se * ca, -se * sa, ce], [ce * ca, ce * sa, se]])

    @property
    def position(self) -> np.ndarray:
        """(3,) metres from the anchor."""
        return np.asarray(self.lookat) - self.distance * self.rotation[2]

    @property
    def focal(self) -> float:
        """Focal length in pixels."""
        return FRAME_SIZE / 2 / np.tan(np.deg2rad(self.fovy) / 2)

    def project(self, points: np.ndarray) -> np.ndarray:
        """(..., 3) metres -> (..., 3): column and row in pixels (0 = left / top edge), depth in metres."""
        right, up, depth = np.moveaxis((points - self.position) @ self.rotation.T, -1, 0)
        half = FRAME_SIZE / 2
        return np.stack([half + self.focal * right / depth, half - self.focal * up / depth, depth], axis=-1)

    def unproject(self, pixels: np.ndarray) -> np.ndarray:
        """Inverse of `project`: (..., 3) column, row, depth -> (..., 3) metres."""
        column, row, depth = np.moveaxis(np.asarray(pixels, dtype=np.float64), -1, 0)
        half = FRAME_SIZE / 2
        local = np.stack([(column - half) * depth / self.focal, (half - row) * depth / self.focal, depth], axis=-1)
        return local @ self.rotation + self.position
