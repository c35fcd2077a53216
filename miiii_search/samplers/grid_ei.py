"""The sampler `grid_ei`: every configuration of the grid once, those with the highest expected improvement first.

The trials wait in the queue from the beginning, as with the sampler `grid`. A Gaussian process fitted to the results
only chooses their order, so that the best configuration is found sooner. docs/research/pruning.md says by how much.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from dataclasses import replace

from miiii_search.config.search_space import Point
from miiii_search.samplers.gaussian_process import rank_by_expected_improvement, to_coordinates
from miiii_search.storage.records import KnownTrials
from miiii_search.storage.retry import driver_message
from miiii_search.study.study import Study

logger = logging.getLogger(__name__)

MAX_FINISHED = 128
"""Maximum number of results that the process is fitted to: the best half, and the latest of the others. With the three
maxima, sorting takes 0.1 to 0.2 seconds, and half of that in a study of 384 trials."""

MAX_RUNNING = 64
"""Maximum number of running trials that the process takes into account, those that started last."""

MAX_WAITING = 512
"""Maximum number of waiting trials to choose from, the first of the shuffled queue."""

COMPILED_SHAPE_FACTOR = 1.5
"""Factor for the expected improvement of trials whose shape the worker has compiled already. Another shape has to be
compiled, and its program shares the device. `bench/samplers.py --shapes` shows what the factor costs and saves."""

N_SPARE = 16
"""Number of trials returned beyond the requested ones, because other workers may claim some of them first."""


class GridEISampler:
    """Chooses the trials that one worker should claim next. Not thread-safe.

    If the Gaussian process fails, this is logged once, and the trials are claimed in the order of the queue.

    Args:
        study: The study.
    """

    def __init__(self, study: Study) -> None:
        self._study = study
        self._points: dict[int, Point] = {}
        """Points by trial id. They never change."""
        self._logged: set[str] = set()

    def next_trials(
        self,
        n: int,
        own_results: Mapping[int, float | None] | None = None,
        compiled_shapes: Collection[str] = (),
        excluded_shapes: Collection[str] = (),
    ) -> list[int]:
        """Return the ids of trials to claim before all others.

        Trials that were started before come first, since only the rest of their epochs is left. If the worker has
        compiled shapes, this holds for trials of these shapes only. Next come the points of the specification's
        `first`, then the trials with the highest expected improvement. A replicate of the grid is completed before the
        next one begins.

        Args:
            n: Number of trials that the worker will claim.
            own_results: Values by trial id of the worker's own finished trials, which may not be in the database yet.
            compiled_shapes: Shapes for which the worker has a program. Their trials are preferred.
            excluded_shapes: Shapes that the worker cannot train. Their trials are left out.

        Returns:
            At most `n` + `N_SPARE` ids. An empty list to keep the order of the queue.

        Raises:
            Exception: The database is unavailable; see `storage.retry.is_outage`.
        """
        with self._study.store.reading() as reader:
            known = _limit(reader.read_known_trials(MAX_WAITING, excluded_shapes))
            if len(known.waiting) <= n:
                return []
            needed = {*known.finished, *known.running, *(trial.trial_id for trial in known.waiting)}
            self._points |= reader.read_points_by_id(needed - self._points.keys())
        for trial_id, value in (own_results or {}).items():
            if trial_id in known.running:
                known.running.remove(trial_id)
                known.finished[trial_id] = value
        try:
            return self._sort(known, n, compiled_shapes)[: n + N_SPARE]
        except Exception as error:
            self._log_once(
                logging.WARNING,
                f"the Gaussian process of the results failed ({type(error).__name__}: {driver_message(error)}): "
                "trials are claimed in the order of the queue",
            )
            return []

    def _sort(self, known: KnownTrials, n: int, compiled_shapes: Collection[str]) -> list[int]:
        started = [
            trial.trial_id
            for trial in known.waiting
            if trial.was_started and (not compiled_shapes or trial.shape in compiled_shapes)
        ]
        others = [trial for trial in known.waiting if trial.trial_id not in started]
        replicate = min((trial.replicate for trial in others), default=0)
        others = [trial for trial in others if trial.replicate == replicate]
        requested = [trial.trial_id for trial in others if self._points.get(trial.trial_id) in self._study.spec.first]
        lead = started + requested
        if len(lead) >= n:
            return lead
        candidates = [trial for trial in others if trial.trial_id not in requested]
        if not candidates or not known.finished:
            return lead
        ids = [*known.finished, *known.running, *(trial.trial_id for trial in candidates)]
        n_finished, n_running = len(known.finished), len(known.running)
        n_known = n_finished + n_running
        ranked = rank_by_expected_improvement(
            to_coordinates([self._points.get(trial_id, {}) for trial_id in ids]),
            dict(enumerate(known.finished.values())),
            range(n_finished, n_known),
            range(n_known, len(ids)),
            n - len(lead),
            {
                n_known + k: COMPILED_SHAPE_FACTOR
                for k, trial in enumerate(candidates)
                if trial.shape in compiled_shapes
            },
        )
        if ranked:
            self._log_once(logging.INFO, "from now on, trials with the highest expected improvement are trained first")
        return [*lead, *(ids[k] for k in ranked)]

    def _log_once(self, level: int, message: str) -> None:
        if message not in self._logged:
            self._logged.add(message)
            logger.log(level, message, extra={"study": self._study.name})


def _limit(known: KnownTrials) -> KnownTrials:
    """Return the trials that the process takes into account."""
    return replace(known, finished=_best_and_latest(known.finished), running=known.running[-MAX_RUNNING:])


def _best_and_latest(finished: dict[int, float | None]) -> dict[int, float | None]:
    """Return at most `MAX_FINISHED` of the results, which are sorted by time: the best half, and the latest others."""
    if len(finished) <= MAX_FINISHED:
        return finished
    with_values = {trial_id: value for trial_id, value in finished.items() if value is not None}
    kept = set(sorted(with_values, key=lambda trial_id: -with_values[trial_id])[: MAX_FINISHED // 2])
    latest = [trial_id for trial_id in finished if trial_id not in kept]
    kept |= set(latest[-(MAX_FINISHED - len(kept)) :])
    return {trial_id: value for trial_id, value in finished.items() if trial_id in kept}
