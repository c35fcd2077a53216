"""Which of the waiting trials a worker should claim: the sampler `model`.

The whole grid is tried, each configuration once, as with the sampler `queue`; a model of the results so far says in
which order, so that the best comes sooner (docs/pruning.md has how much).
"""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import sqlalchemy as sa
from optuna.trial import TrialState

from miiii_search.config.search_space import Point
from miiii_search.samplers.gaussian_process import coordinates, rank
from miiii_search.storage import schema
from miiii_search.storage.retry import driver_message
from miiii_search.study.points import points_of
from miiii_search.study.study import Study
from miiii_search.study.trials import REPLICATE_KEY
from miiii_search.trial_queue.leases import SHAPE_KEY

logger = logging.getLogger(__name__)

MOST_ENDED = 128
"""Results that the model is fitted to: of more, the best half and the latest. With these three numbers an order takes
a tenth of a second or two, and half of that in a study of 384 trials."""

MOST_RUNNING = 64
"""Trials under way that it knows of, those that began last."""

MOST_WAITING = 512
"""Trials that it chooses among, the first of the queue, which was shuffled."""

COMPILED = 1.5
"""So many times what it is counts the improvement of a shape that the worker has a program for: another one is to be
compiled, and shares the device with it. `bench/samplers.py --shapes` shows what that costs and saves."""

SPARE = 16
"""Trials named beyond those that are to be claimed, since other workers may be faster."""


@dataclass
class Known:
    """What is read of a study for an order."""

    ended: dict[int, float | None] = field(default_factory=dict)
    """Trial ids and values, as they ended; None for one that failed."""
    running: list[int] = field(default_factory=list)
    """As they began."""
    waiting: list[Waiting] = field(default_factory=list)
    """By number, the first ones."""


@dataclass(frozen=True)
class Waiting:
    """A trial of the queue."""

    trial_id: int
    replicate: int
    shape: str
    was_begun: bool


class GridEISampler:
    """Orders the queue of one study for one worker, as results arrive. For the worker's main thread.

    If the model fails, that is logged once, and the order is the queue's.
    """

    def __init__(self, study: Study) -> None:
        self._study = study
        self._points: dict[int, Point] = {}
        """Of trials, which do not change."""
        self._logged: set[str] = set()

    def next_trials(
        self,
        n: int,
        own: Mapping[int, float | None] | None = None,
        compiled: Collection[str] = (),
        unfit: Collection[str] = (),
    ) -> list[int]:
        """The ids of trials to claim before all others, if `n` are to be claimed; none where the queue's order is to be
        kept. `own` are the values of the worker's trials that have ended, which may not be written yet.

        First come trials that were begun already, which need but the rest of their epochs, though of `compiled` shapes
        only, if there are any; then those of the spec's `first`; then what may improve most on the best result so far,
        by preference of the compiled shapes. One replicate of the grid is done before the next begins, and trials of an
        `unfit` shape are left out. Raises what a database that is away raises.
        """
        with self._study.database.engine.connect() as connection:
            known = _read(connection, self._study.study_id, unfit)
            if len(known.waiting) <= n:
                return []
            wanted = {*known.ended, *known.running, *(trial.trial_id for trial in known.waiting)}
            self._points |= points_of(connection, wanted - self._points.keys())
        for trial_id, value in (own or {}).items():
            if trial_id in known.running:
                known.running.remove(trial_id)
                known.ended[trial_id] = value
        try:
            return self._order(known, n, compiled)[: n + SPARE]
        except Exception as error:
            self._log_once(
                logging.WARNING,
                f"the model of the results failed ({type(error).__name__}: {driver_message(error)}): "
                "trials are taken in the order of the queue",
            )
            return []

    def _order(self, known: Known, n: int, compiled: Collection[str]) -> list[int]:
        begun = [t.trial_id for t in known.waiting if t.was_begun and (not compiled or t.shape in compiled)]
        others = [t for t in known.waiting if t.trial_id not in begun]
        replicate = min((t.replicate for t in others), default=0)
        others = [t for t in others if t.replicate == replicate]
        given = [t.trial_id for t in others if self._points.get(t.trial_id) in self._study.spec.first]
        lead = begun + given
        if len(lead) >= n:
            return lead
        ranked = [t for t in others if t.trial_id not in given]
        ids = [*known.ended, *known.running, *(t.trial_id for t in ranked)]
        if not ranked or not known.ended:
            return lead
        ends, runs = len(known.ended), len(known.running)
        places = rank(
            coordinates([self._points.get(trial_id, {}) for trial_id in ids]),
            dict(enumerate(known.ended.values())),
            range(ends, ends + runs),
            range(ends + runs, len(ids)),
            n - len(lead),
            {ends + runs + k: COMPILED for k, trial in enumerate(ranked) if trial.shape in compiled},
        )
        if places:
            self._log_once(
                logging.INFO, "from here on, what may improve most on the best result so far is trained first"
            )
        return [*lead, *(ids[k] for k in places)]

    def _log_once(self, level: int, message: str) -> None:
        if message not in self._logged:
            self._logged.add(message)
            logger.log(level, message, extra={"study": self._study.name})


def _read(connection: sa.Connection, study_id: int, unfit: Collection[str]) -> Known:
    """Only of trials with a shape: one that Optuna's own enqueue_trial made has no point either."""
    trials, values, known = schema.trials, schema.trial_values, schema.trial_system_attributes
    shape, replicate = known.alias("shape"), known.alias("replicate")
    has_shape = sa.and_(shape.c.trial_id == trials.c.trial_id, shape.c.key == SHAPE_KEY)
    begun = (
        sa.select(trials.c.trial_id, trials.c.state, values.c.value, values.c.value_type)
        .join(shape, has_shape)
        .outerjoin(values, values.c.trial_id == trials.c.trial_id)
        .where(trials.c.study_id == study_id, trials.c.state != TrialState.WAITING)
        .order_by(sa.func.coalesce(trials.c.datetime_complete, trials.c.datetime_start), trials.c.number)
    )
    found = Known()
    for row in connection.execute(begun):
        if row.state == TrialState.RUNNING:
            found.running.append(row.trial_id)
        else:
            failed = row.state == TrialState.FAIL or row.value_type is None
            value = None if failed else schema.from_stored_value(row.value, row.value_type)
            found.ended[row.trial_id] = value
    found.running = found.running[-MOST_RUNNING:]
    found.ended = _most_telling(found.ended)
    refused = [json.dumps(one) for one in unfit]
    waiting = (
        sa.select(
            trials.c.trial_id,
            trials.c.datetime_start,
            shape.c.value_json.label("shape"),
            replicate.c.value_json.label("replicate"),
        )
        .join(shape, has_shape)
        .outerjoin(replicate, sa.and_(replicate.c.trial_id == trials.c.trial_id, replicate.c.key == REPLICATE_KEY))
        .where(trials.c.study_id == study_id, trials.c.state == TrialState.WAITING)
        .where(shape.c.value_json.not_in(refused))
        .order_by(trials.c.number)
        .limit(MOST_WAITING)
    )
    found.waiting = [
        Waiting(row.trial_id, int(row.replicate or 0), json.loads(row.shape), row.datetime_start is not None)
        for row in connection.execute(waiting)
    ]
    return found


def _most_telling(ended: dict[int, float | None]) -> dict[int, float | None]:
    """The best and the latest of more results than the model is to be fitted to; `ended` are in the order of time."""
    if len(ended) <= MOST_ENDED:
        return ended
    with_values = {trial_id: value for trial_id, value in ended.items() if value is not None}
    kept = set(sorted(with_values, key=lambda trial_id: -with_values[trial_id])[: MOST_ENDED // 2])
    latest = [trial_id for trial_id in ended if trial_id not in kept]
    kept |= set(latest[-(MOST_ENDED - len(kept)) :])
    return {trial_id: value for trial_id, value in ended.items() if trial_id in kept}
