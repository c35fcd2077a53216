"""Question: how much database work does a trial cost, compared with the plain Optuna loop?

    python bench/storage.py --quick --json storage.json

Both sides run the same trials on a real PostgreSQL. The study has N trials, of which K are running and K are waiting;
the others have ended with all their reports.

The two sides take turns for several rounds, so that both see the same load of the machine. Each round starts from the
same rows, and the first one does not count. The times are medians over the rounds. The ratio is the median of the
rounds' ratios; the smallest and the largest follow in parentheses.

Ours does what a worker does by default. It sorts the queue once and claims trials for all lanes once. At each rung it
writes the reports of all lanes in one transaction; the pruner `forecast` reads nothing. At a trial's end it writes the
results and the artifacts in one transaction. Leases are renewed in between. Checkpoints have a table of their own.

Optuna's side is `ask`, six `suggest_` calls, `report` and `should_prune` at each rung, and `tell`, lane by lane. With
many lanes only a sample of them is measured, while all others are running.

The output has the SQL statements and milliseconds per trial of both sides, their ratio, and our share of the training
time. Below are the seconds of CPU that a worker's start costs, and the sizes of checkpoints.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
import warnings
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy as sa
from checkpoint_cost import measure_checkpoints
from optuna.trial import TrialState
from storage_studies import EPOCHS, copy_study, delete_trials, insert_reports, make_study, open_copy, requeue_ended

from miiii_search.config.presets import TABLE_1
from miiii_search.config.study_spec import rungs
from miiii_search.experiment.spec import Experiment, Hyperparameters
from miiii_search.samplers.grid_ei import GridEISampler
from miiii_search.storage.artifacts import Artifact
from miiii_search.storage.database import Database, open_database
from miiii_search.study.study import Study
from miiii_search.testing.postgres import PostgresServer
from miiii_search.training.device import use_compilation_cache
from miiii_search.training.lanes import Lanes
from miiii_search.training.program import ProgramKey
from miiii_search.trial_queue.leases import Heartbeat
from miiii_search.trial_queue.results import TrialResult
from miiii_search.worker.heartbeat import RENEW_SECONDS

ROUNDS = 5
"""Number of rounds that count."""

MEASURED_RUNGS = 2
"""Number of rungs, the last ones, at which reports are measured."""

TRIAL_SECONDS = 64.0
"""Seconds for which a trial trains, by which the renewals of its lease are counted.

It is the time of `EPOCHS` epochs of d = 128 at p = 113 on two idle cores. The time that a busy machine needs would
change the number of statements from run to run.
"""

SAMPLE = 8
"""Maximum number of lanes that are measured on Optuna's side."""

ARTIFACTS = [Artifact("learning-curves.png", bytes(40_000)), Artifact("record.npz", bytes(60_000))]
LEASE_SECONDS = 60.0
START_TRIALS = 1000
"""Size of the study on which a worker's start is measured."""


@dataclass
class Cost:
    """Database work per trial."""

    statements: float = 0.0
    milliseconds: float = 0.0

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.statements + other.statements, self.milliseconds + other.milliseconds)

    def __mul__(self, factor: float) -> Cost:
        return Cost(self.statements * factor, self.milliseconds * factor)


class Counter:
    """Counts the statements of all engines of this process, and measures time."""

    def __init__(self) -> None:
        self._statements = 0
        sa.event.listen(sa.engine.Engine, "before_cursor_execute", self._count)

    def _count(self, *_: object) -> None:
        self._statements += 1

    @contextmanager
    def cost_per_trial(self, trials: int) -> Iterator[Cost]:
        """Measure what is done inside the context for a number of trials. Its cost per trial is set at the end."""
        cost, statements, began = Cost(), self._statements, time.perf_counter()
        yield cost
        cost.milliseconds = 1e3 * (time.perf_counter() - began) / trials
        cost.statements = (self._statements - statements) / trials


def main() -> None:
    options = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    options.add_argument("--quick", action="store_true", help="measure 100 and 1,000 trials with 1 and 32 lanes")
    options.add_argument("--json", type=Path, metavar="FILE", help="write the figures to this file")
    arguments = options.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    sizes, widths = ((100, 1000), (1, 32)) if arguments.quick else ((100, 1000, 5000), (1, 8, 32, 128))
    epoch_ms = measure_epoch()
    print(f"an epoch of d = 128 at p = 113 takes {epoch_ms:.1f} ms here; a trial here has {EPOCHS:,}")
    print(f"{'trials':>7}{'lanes':>6} | {'ours':>22} | {'Optuna':>22} | {'ratio':>14} | of training")
    print(f"{'':>13} | {'statements':>11}{'ms':>11} | {'statements':>11}{'ms':>11} | {'':>14} |")
    rows: list[dict[str, Any]] = []
    counter = Counter()
    with PostgresServer() as server:
        for size in sizes:
            for width in (w for w in widths if w <= size):
                rows.append(measure(server, counter, size, width, epoch_ms))
                print(line(rows[-1]), flush=True)
        start = measure_start(server)
    at_32 = min(row["speedup"] for row in rows if row["lanes"] == 32)
    worst = min(min(row["speedups"]) for row in rows if row["lanes"] == 32)
    print(
        f"at 32 lanes ours costs at most 1/{at_32:.0f} of Optuna's, and 1/{worst:.0f} in the worst of {ROUNDS} rounds"
    )
    print(f"a worker's start on a study of {START_TRIALS:,} trials: {start:.2f} s of CPU for the storage")
    checkpoints = [measure_checkpoints(d_model, lanes) for d_model in (128, 256) for lanes in (1, 32)]
    print("\ncheckpoints, MB per trial-hour, with the defaults of `miiii-search work`:")
    heads = {"d": 4, "lanes": 7, "one": 8, "written": 10, "shared": 9, "stored": 9, "ms to disk": 16, "to database": 17}
    print("".join(f"{head:>{width}}" for head, width in heads.items()))
    for row in checkpoints:
        print(
            f"{row['d_model']:>4}{row['lanes']:>7}{row['megabytes']:>8.1f}{row['written']:>10.0f}{row['shared']:>9.0f}"
            f"{row['stored']:>9.0f}{row['disk_ms']:>16.0f}{row['database_ms']:>17.0f}"
        )
    if arguments.json:
        figures = {
            "rows": rows,
            "speedup_at_32": at_32,
            "start_cpu_seconds": start,
            "epoch_ms": epoch_ms,
            "checkpoints": checkpoints,
        }
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n")


def line(row: dict[str, Any]) -> str:
    ours, plain = row["ours"], row["optuna"]
    ratio = f"{row['speedup']:.0f} ({min(row['speedups']):.0f}–{max(row['speedups']):.0f})"
    return (
        f"{row['trials']:>7,}{row['lanes']:>6} | {ours['statements']:>11.1f}{ours['ms']:>11.1f} | "
        f"{plain['statements']:>11.1f}{plain['ms']:>11,.0f} | {ratio:>14} | {row['of_training']:.3%}"
    )


def measure(server: PostgresServer, counter: Counter, size: int, width: int, epoch_ms: float) -> dict[str, Any]:
    """Measure both sides of one row of the table, in turns."""
    url = server.create_database()
    database = open_database(url, create=True)
    study = make_study(database, size, width)
    copy_study(database, study, width)
    for _ in range(width - min(width, SAMPLE)):
        ask(open_copy(database))
    ours, plain = list[Cost](), list[Cost]()
    for k in range(ROUNDS + 1):
        costs = cost_of_ours(counter, study, width), cost_of_optuna(counter, database, width)
        if k:
            ours.append(costs[0])
            plain.append(costs[1])
    database.close()
    server.drop_database(url)
    speedups = [b.milliseconds / a.milliseconds for a, b in zip(ours, plain, strict=True)]
    mine, theirs = median_cost(ours), median_cost(plain)
    return {
        "trials": size,
        "lanes": width,
        "ours": {"statements": mine.statements, "ms": mine.milliseconds},
        "optuna": {"statements": theirs.statements, "ms": theirs.milliseconds},
        "speedup": statistics.median(speedups),
        "speedups": speedups,
        "of_training": mine.milliseconds / (EPOCHS * epoch_ms),
    }


def median_cost(costs: Sequence[Cost]) -> Cost:
    """Return the median number of statements and the median time."""
    return Cost(statistics.median(c.statements for c in costs), statistics.median(c.milliseconds for c in costs))


def cost_of_ours(counter: Counter, study: Study, width: int) -> Cost:
    """Measure what a worker with `width` lanes does per trial, if a trial trains for `TRIAL_SECONDS`.

    Afterwards, the database is as it was before.
    """
    database, experiment = study.database, study.spec.experiment
    order = GridEISampler(study)
    order.next_trials(width)  # includes what a worker reads only once, at its start
    with counter.cost_per_trial(width) as claiming:
        first = order.next_trials(width)
        claimed = study.queue.claim("worker", LEASE_SECONDS, n=width, first_ids=first)
        ids = [lease.trial_id for lease in claimed]
        study.read_trials(ids)
        study.queue.checkpoint_epochs(ids)
    assert len(claimed) == width
    known, measured = rungs(experiment)[:-MEASURED_RUNGS], rungs(experiment)[-MEASURED_RUNGS:]
    with database.transaction() as connection:
        insert_reports(connection, ids, known)
    beats = [Heartbeat(lease, 1, 1.0) for lease in claimed]
    with counter.cost_per_trial(width * MEASURED_RUNGS) as reporting:
        for epoch in measured:
            study.queue.report(beats, {lease: {epoch: 0.5} for lease in claimed}, LEASE_SECONDS)
    with counter.cost_per_trial(width) as renewing:
        study.queue.renew(beats, LEASE_SECONDS)
    attributes = {"epochs_to_solve": None, "metrics": {"validation_accuracy": [0.5] * 29}, "worker": "worker"}
    with counter.cost_per_trial(width) as ending:
        for beat in beats:
            outcome = TrialResult(TrialState.COMPLETE, 0.5, "ended.", attributes, ARTIFACTS)
            study.queue.finish(beat, outcome)
    requeue_ended(database, study.study_id, ids)
    return claiming + reporting * len(rungs(experiment)) + ending + renewing * (TRIAL_SECONDS / RENEW_SECONDS)


def cost_of_optuna(counter: Counter, database: Database, width: int) -> Cost:
    """Measure the plain loop per trial, in a process that has read the study before.

    All other lanes are running. Afterwards, the database is as it was before.
    """
    study = open_copy(database)
    study.get_trials(deepcopy=False)
    experiment = Experiment(epochs=EPOCHS)
    known, measured = rungs(experiment)[:-MEASURED_RUNGS], rungs(experiment)[-MEASURED_RUNGS:]
    sample = min(width, SAMPLE)
    with counter.cost_per_trial(sample) as asking:
        trials = [ask(study) for _ in range(sample)]
    with database.transaction() as connection:
        insert_reports(connection, [trial._trial_id for trial in trials], known)
    with counter.cost_per_trial(sample * MEASURED_RUNGS) as reporting:
        for epoch in measured:
            for trial in trials:
                trial.report(0.5, epoch)
                trial.should_prune()
    with counter.cost_per_trial(sample) as ending:
        for trial in trials:
            study.tell(trial.number, 0.5)
    delete_trials(database, [trial._trial_id for trial in trials])
    return asking + reporting * len(rungs(experiment)) + ending


def ask(study: optuna.Study) -> optuna.Trial:
    trial = study.ask()
    for name, values in TABLE_1.items():
        trial.suggest_categorical(name, values)
    return trial


START = """
import sys, time
from miiii_search.samplers.grid_ei import GridEISampler
from miiii_search.storage.database import open_database
from miiii_search.study.open import open_study
began = time.process_time()
database = open_database(sys.argv[1])
study = open_study(database, "ours")
first = GridEISampler(study).next_trials(32)
claimed = study.queue.claim("worker", 60.0, n=32, first_ids=first)
ids = [lease.trial_id for lease in claimed]
study.read_trials(ids)
study.queue.checkpoint_epochs(ids)
assert len(claimed) == 32 and first
print(time.process_time() - began)
"""


def measure_start(server: PostgresServer) -> float:
    """Return the CPU seconds that a new worker process spends on the storage until its 32 lanes train."""
    url = server.create_database()
    database = open_database(url, create=True)
    make_study(database, START_TRIALS, 32)
    database.close()
    done = subprocess.run([sys.executable, "-c", START, url], capture_output=True, text=True, check=True)
    return float(done.stdout)


def measure_epoch() -> float:
    """Return the milliseconds of an epoch of one lane with the paper's smaller network, the shortest of `ROUNDS`."""
    use_compilation_cache()
    experiment, hyperparameters = Experiment(epochs=EPOCHS), Hyperparameters(d_model=128)
    lanes = Lanes(ProgramKey.of(experiment, hyperparameters), batched=False)
    lane = lanes.admit(experiment, hyperparameters)
    lanes.train(1)
    times = []
    for _ in range(ROUNDS):
        epoch, began = lanes.progress(lane).epoch, time.perf_counter()
        lanes.train(1)
        times.append(1e3 * (time.perf_counter() - began) / (lanes.progress(lane).epoch - epoch))
    return min(times)


if __name__ == "__main__":
    main()
