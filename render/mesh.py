"""Meshes as coarse as 84 pixels can show, on a copy of the model that is only ever drawn."""

import copy

import mujoco
import numpy as np

from pixeltraj.errors import PixeltrajError

LEAST_FACES = 2000
"""Smaller meshes stay whole: tables, sinks and lids are thin sheets that clusters would close or tear."""
_FLATNESS = 0.02  # pull of a cluster's mean against its planes, relative: settles points that lie in one plane


def simplified(model: mujoco.MjModel, cell: float) -> mujoco.MjModel:
    """A copy of the model for drawing only: vertices of big meshes that share a cell become one.

    cell: edge of the cubic cells, metres. Faces that survive keep their normals and texture coordinates, so shading
    stays as fine as it was. The arrays are overwritten in place, so sizes and addresses stay, and collision data no
    longer fits: never step this copy. Raises PixeltrajError on a mesh with NaN or infinite vertices.

    Vertex clustering (Rossignac and Borrel 1993) with the cluster's point where the squared distances to the planes
    of its faces are least (Garland and Heckbert 1997), which keeps edges that the cluster's mean would round off.
    """
    copied = copy.deepcopy(model)
    for mesh in range(model.nmesh):
        start, count = int(model.mesh_vertadr[mesh]), int(model.mesh_vertnum[mesh])
        vertices = model.mesh_vert[start : start + count].astype(np.float64)
        if not np.isfinite(vertices).all():
            name = model.mesh(mesh).name or mesh
            raise PixeltrajError(f"mesh {name!r} of the model has NaN or infinite vertices; mend the mesh's file")
        first, faces = int(model.mesh_faceadr[mesh]), int(model.mesh_facenum[mesh])
        if faces < LEAST_FACES:
            continue
        corners = model.mesh_face[first : first + faces]
        kept, points, survivors, coarse = cluster(vertices, corners, cell)
        copied.mesh_vert[start + kept] = points
        copied.mesh_face[first : first + len(coarse)] = coarse
        for name in ("mesh_facenormal", "mesh_facetexcoord"):
            indices = getattr(copied, name)
            indices[first : first + len(coarse)] = indices[first + survivors]
        copied.mesh_facenum[mesh] = len(coarse)
    return copied


def cluster(
    vertices: np.ndarray, faces: np.ndarray, cell: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """One vertex a cell. vertices (V, 3) metres, faces (F, 3) indices of them.

    Returns (P,) the vertices that stand for their cells, (P, 3) where they go, (G,) the faces that still have an
    area, each once, and (G, 3) those faces' new corners.
    """
    cells = np.floor((vertices - vertices.min(axis=0)) / cell).astype(np.int64)
    _, kept, member = np.unique(cells, axis=0, return_index=True, return_inverse=True)
    member = member.ravel()  # (V,) which cell
    means = np.stack([np.bincount(member, vertices[:, i]) for i in range(3)], axis=1) / np.bincount(member)[:, None]
    points = means + _least_squares(vertices[faces], member[faces], means, cell)
    corners = kept[member[faces]]
    a, b, c = corners.T
    solid = np.flatnonzero((a != b) & (b != c) & (a != c))
    turned = corners[solid]  # the same face from the same side: smallest corner first, then in order
    turned = np.take_along_axis(turned, (turned.argmin(axis=1)[:, None] + np.arange(3)) % 3, axis=1)
    survivors = solid[np.sort(np.unique(turned, axis=0, return_index=True)[1])]
    return kept, points, survivors, corners[survivors]


def _least_squares(triangles: np.ndarray, cells: np.ndarray, means: np.ndarray, cell: float) -> np.ndarray:
    """(P, 3) steps from the means to where the faces' planes meet best, at most a cell along each axis.

    triangles (F, 3 corners, 3) metres, cells (F, 3 corners), means (P, 3).
    """
    normals = np.cross(triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0])
    areas = np.linalg.norm(normals, axis=1)
    normals /= np.maximum(areas, 1e-12)[:, None]
    matrix, target = np.zeros((len(means), 3, 3)), np.zeros((len(means), 3))
    for corner in range(3):
        where = cells[:, corner]
        distance = np.sum((triangles[:, 0] - means[where]) * normals, axis=1)
        for i in range(3):
            target[:, i] += np.bincount(where, areas * distance * normals[:, i], len(means))
            for j in range(3):
                matrix[:, i, j] += np.bincount(where, areas * normals[:, i] * normals[:, j], len(means))
    pull = _FLATNESS * np.trace(matrix, axis1=1, axis2=2) + 1e-15
    steps = np.linalg.solve(matrix + pull[:, None, None] * np.eye(3), target[:, :, None])[:, :, 0]
    return np.clip(steps, -cell, cell)
