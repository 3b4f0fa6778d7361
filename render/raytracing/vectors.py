"""Vectors, F of them as (3, F): numpy works along rows, and is slow where a row is three numbers long.

Sums are written out: a matrix product may round a column differently beside other columns, and then a frame would
depend on what was drawn with it.
"""

import numpy as np


def dot(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """(F,) for (3, F) or (3, 1) each."""
    product = one * other
    return product[0] + product[1] + product[2]


def unit(vector: np.ndarray) -> np.ndarray:
    """(3, F) at length 1."""
    return vector / np.sqrt(np.maximum(dot(vector, vector), 1e-20))


def turn(rotation: np.ndarray, vector: np.ndarray) -> np.ndarray:
    """(3, F), turned by matrices (3, 3, F) or one (3, 3, 1)."""
    return rotation[:, 0] * vector[0] + rotation[:, 1] * vector[1] + rotation[:, 2] * vector[2]
