"""The simulator against training: what the service trains for real under its rule, and the replay of the recording.

    python bench/replayed.py --trials 12

Trains the first trials of the recorded set `nanda-31` with two lanes under the default rule, and says of each whether
it ended as in the replay of the recorded curves: at the same epoch, or given up at the same rung, in the same words.
"""

from __future__ import annotations

import sys
import tempfile
import threading

from measuring import parser, print_table, start, write
from pruning import BANK, FORECAST
from record_curves import sets

from miiii_search.config.search_space import point_key
from miiii_search.config.study_sections import Budget
from miiii_search.config.study_spec import StudySpec
from miiii_search.coordinator.local import run_study
from miiii_search.experiment.spec import Experiment
from miiii_search.simulation.curves import read_curves
from miiii_search.simulation.replay import ReplayedRun, replay
from miiii_search.storage.database import open_database
from miiii_search.study.create import create_study

SET = "nanda-31"
LANES = 2


def spec_of(n: int) -> StudySpec:
    """The set's study as a user would have it: with the default rule, and runs that stop once they are solved."""
    recorded = sets()[SET].spec
    solved = {"solved_evaluations": Experiment().solved_evaluations}
    changes = {"experiment": recorded.experiment.model_copy(update=solved), "pruning": FORECAST.pruning}
    return recorded.model_copy(update={**changes, "budget": Budget(trials=n)})


def replayed(spec: StudySpec) -> list[ReplayedRun]:
    """The same trials, on the recorded curves."""
    [recorded] = [curves for curves in read_curves(BANK) if curves.name == SET]
    curves = {(point_key(curve.point), curve.replicate): curve for curve in recorded.curves}
    queue = [curves[point_key(point), replicate] for point, replicate in spec.queue()]
    return replay(queue, FORECAST.simulated_study(spec, queue), LANES, FORECAST.floor(spec))


def main() -> None:
    options = parser(__doc__, "4 trials")
    options.add_argument("--trials", type=int, default=12, help="how many are trained (default %(default)s)")
    arguments = start(options)
    spec = spec_of(4 if arguments.quick else arguments.trials)
    with tempfile.TemporaryDirectory() as folder:
        storage = f"sqlite:///{folder}/study.db"
        database = open_database(storage, create=True)
        study = create_study(database, "trained", spec)
        run_study(study, storage, lanes=LANES, stop=threading.Event(), on_poll=lambda: None)
        trials = study.trials()
        database.close()
    table, same = list[tuple[object, ...]](), 0
    for trial, run in zip(trials, replayed(spec), strict=True):
        known = trial.user_attrs
        if run.outcome == "pruned":
            ends_alike = known.get("reason") == run.reason
        else:
            ends_alike = known["epochs_trained"] == run.epochs and "reason" not in known
        ends_alike &= known["epochs_to_solve"] == (run.curve.solved_epoch if run.outcome == "solved" else None)
        same += ends_alike
        verdict = "the same" if ends_alike else f"trained: {known.get('reason', trial.value)}"
        table.append((trial.number, run.outcome, run.epochs, known["epochs_trained"], verdict))
    print_table(f"{len(trials)} trials of {SET}", ("trial", "replayed", "epochs", "trained epochs", "ending"), table)
    print(f"{same} of {len(trials)} the same")
    write(arguments.json, {"trials": len(trials), "same": same})
    sys.exit(same < len(trials))


if __name__ == "__main__":
    main()
