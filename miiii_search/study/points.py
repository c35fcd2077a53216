"""Points of the search space that no trial of a study has yet."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from miiii_search.config.search_space import Point, point_key


def exclude_existing(
    wanted: Iterable[tuple[Point, int]], existing: Mapping[int, tuple[Point, int]]
) -> list[tuple[Point, int]]:
    """Return the points and replicates that no trial has yet.

    Args:
        wanted: Points with their replicates. Their order is kept.
        existing: Point and replicate of each trial, as `StudyStore.read_points` returns them.
    """
    taken = {(point_key(point), replicate) for point, replicate in existing.values()}
    return [(point, replicate) for point, replicate in wanted if (point_key(point), replicate) not in taken]
