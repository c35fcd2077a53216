"""Records the learning curves on which pruners and samplers are compared: whole studies, trained without pruning.

    python bench/record_curves.py --folder DIR --minutes 60 [SET ...]
    python bench/record_curves.py --folder DIR --pack FILE
    python bench/record_curves.py --list

The first command trains, and continues where it stopped. The second writes what is recorded as one small file.

Every set is a study in DIR/bank.db, trained by the service's own coordinator and worker. No run is pruned, and none
stops when it has solved its tasks, so that the simulator can decide when each would have stopped. The set `table-1` is
the whole of Table 1 at p = 113, for a machine with a GPU. It is recorded only if it is named.

The output has the worker's messages. With --pack it has the number of recorded and solved runs of each set.
"""

from __future__ import annotations

import argparse
import logging
import signal
import sys
import threading
from dataclasses import dataclass, replace
from pathlib import Path

from miiii_search.config.presets import TABLE_1
from miiii_search.config.search_space import Dimension
from miiii_search.config.study_sections import Pruning, Replicates
from miiii_search.config.study_spec import StudySpec
from miiii_search.coordinator.local import run_study
from miiii_search.experiment.spec import Experiment, Hyperparameters
from miiii_search.simulation.curves import CurveSet, read_curves, write_curves
from miiii_search.simulation.from_study import curves_from_study
from miiii_search.storage.database import open_database
from miiii_search.study.create import create_study
from miiii_search.study.names import study_names
from miiii_search.study.open import open_study

NEVER = 10**6
"""Evaluations in a row at the target: more than a run has, so that no run stops when it is solved."""


@dataclass(frozen=True)
class RecordedSet:
    """A study to record."""

    about: str
    spec: StudySpec
    by_default: bool = True


def _spec(experiment: Experiment, space: dict[str, Dimension], width: int = 128, replicates: int = 1) -> StudySpec:
    return StudySpec(
        experiment=experiment.model_copy(update={"solved_evaluations": NEVER}),
        hyperparameters=Hyperparameters(d_model=width, n_heads=4, dropout=0.1),
        space=space,
        sampler="grid",
        replicates=Replicates(count=replicates),
        pruning=Pruning(rule="none"),
        keep_weights=0,
    )


def sets() -> dict[str, RecordedSet]:
    """Return all sets by name, in the order in which they are recorded."""
    space: dict[str, Dimension] = {
        "learning_rate": (3e-4, 1e-3),
        "grokfast_lambda": (0.0, 1 / 2, 2.0),
        "weight_decay": (0.0, 1 / 10, 1 / 2, 1.0),
    }
    return {
        "nanda-31": RecordedSet(
            "48 configurations, three seeds each",
            _spec(
                Experiment(p=31, task="nanda", train_fraction=0.5, validation_samples=200, epochs=8192),
                {
                    "learning_rate": (3e-4, 1e-3, 3e-3),
                    "grokfast_lambda": (0.0, 2.0),
                    "weight_decay": (0.0, 1 / 10, 1 / 2, 1.0),
                    "dropout": (0.0, 1 / 10),
                },
                replicates=3,
            ),
        ),
        "miiii-43": RecordedSet(
            "24 configurations; 13 tasks, of which the easy ones generalise in turn",
            _spec(Experiment(p=43, task="miiii", train_fraction=0.7, epochs=8192), space),
        ),
        "nanda-53": RecordedSet(
            "24 configurations",
            _spec(Experiment(p=53, task="nanda", train_fraction=0.4, epochs=8192), space),
        ),
        "nanda-113": RecordedSet(
            "8 configurations at the paper's size",
            _spec(
                Experiment(p=113, task="nanda", epochs=6144),
                {"learning_rate": (3e-4, 1e-3), "grokfast_lambda": (0.0, 2.0), "weight_decay": (0.1, 1.0)},
            ),
        ),
        "nanda-97": RecordedSet(
            "12 configurations; defined once nanda-113 had been looked at",
            _spec(
                Experiment(p=97, task="nanda", train_fraction=0.35, epochs=6144),
                {"learning_rate": (3e-4, 1e-3), "grokfast_lambda": (0.0, 1 / 2), "weight_decay": (0.0, 1 / 5, 1.0)},
            ),
        ),
        "table-1": RecordedSet(
            "the paper's 384 configurations of 65,536 epochs: for a GPU",
            _spec(Experiment(), TABLE_1),
            by_default=False,
        ),
    }


def record(folder: Path, names: list[str], minutes: float) -> None:
    """Train the sets one after the other until all are recorded or the time is over."""
    folder.mkdir(parents=True, exist_ok=True)
    storage = f"sqlite:///{(folder / 'bank.db').resolve()}"
    database, stop = open_database(storage, create=True), threading.Event()
    timer = threading.Timer(60 * minutes, stop.set)
    timer.daemon = True
    timer.start()
    for kind in (signal.SIGINT, signal.SIGTERM):
        signal.signal(kind, lambda *_: stop.set())
    try:
        for name in names:
            study = create_study(database, name, sets()[name].spec)
            print(f"{name}: {study.spec.n_trials} runs of {study.spec.experiment.epochs:,} epochs", flush=True)
            run_study(study, storage, lanes=None, stop=stop, on_poll=lambda: None)
            if stop.is_set():
                print("stopped; the same command continues", flush=True)
                return
    finally:
        timer.cancel()
        database.close()


def pack(folder: Path, path: Path) -> None:
    """Write what is recorded so far as one small file. Its runs end as the service would end them once they are solved.

    Sets in an existing file of which nothing is recorded in the folder are kept.
    """
    database, packed = open_database(f"sqlite:///{(folder / 'bank.db').resolve()}"), list[CurveSet]()
    there = study_names(database)
    for name in [name for name in sets() if name in there]:
        study = open_study(database, name)
        experiment = study.spec.experiment.model_copy(update={"solved_evaluations": Experiment().solved_evaluations})
        curves, problems = curves_from_study(
            replace(study, spec=study.spec.model_copy(update={"experiment": experiment}))
        )
        for problem in problems:
            print(f"{name}: {problem}", file=sys.stderr)
        solved = sum(curve.solved_epoch is not None for curve in curves.curves)
        print(f"{name}: {len(curves.curves)} of {study.spec.n_trials} runs, {solved} solved")
        if curves.curves:
            packed.append(curves)
    database.close()
    here = [curves.name for curves in packed]
    packed += [curves for curves in (read_curves(path) if path.exists() else []) if curves.name not in here]
    write_curves(path, sorted(packed, key=lambda curves: list(sets()).index(curves.name)))
    print(f"{path}: {path.stat().st_size / 2**20:.2f} MiB")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="SET", help="sets to record (default: all but table-1)")
    parser.add_argument("--minutes", type=float, default=60, help="minutes of recording (default %(default)s)")
    parser.add_argument("--folder", type=Path, default="bank", help="folder of the studies (default %(default)s)")
    parser.add_argument("--pack", type=Path, metavar="FILE", help="write what is recorded so far, and exit")
    parser.add_argument("--list", action="store_true", help="list the sets, and exit")
    arguments = parser.parse_args()
    known = sets()
    if arguments.list:
        for name, recorded in known.items():
            spec = recorded.spec
            print(f"{name:<12} {spec.n_trials:>4} runs of {spec.experiment.epochs:>6,} epochs: {recorded.about}")
        return 0
    if arguments.pack:
        pack(arguments.folder, arguments.pack)
        return 0
    if unknown := [name for name in arguments.names if name not in known]:
        parser.error(f"there is no set {', '.join(unknown)}; --list shows all")
    # The worker's messages, except those of trials that start.
    handler = logging.StreamHandler(sys.stdout)
    handler.addFilter(lambda line: " starts" not in line.getMessage())
    logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=[handler])
    record(arguments.folder, arguments.names or [n for n, s in known.items() if s.by_default], arguments.minutes)
    return 0


if __name__ == "__main__":
    sys.exit(main())
