"""Question: does the simulator predict what the service does?

    python bench/replayed.py --trials 12

The service trains the first trials of the recorded set `nanda-31` with two lanes and the default pruner. The simulator
replays the same trials on the recorded curves.

The output has one row per trial, and says whether it ended in the same way: at the same epoch, or pruned at the same
rung for the same reason. The script ends with an error if one did not.
"""

from __future__ import annotations

import sys
import tempfile
import threading

from measuring import make_parser, parse_arguments, print_table, write_json
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
    """Return the specification of the set's study with the default pruner, and runs that stop once they are solved."""
    recorded = sets()[SET].spec
    solved = {"solved_evaluations": Experiment().solved_evaluations}
    changes = {"experiment": recorded.experiment.model_copy(update=solved), "pruning": FORECAST.pruning}
    return recorded.model_copy(update={**changes, "budget": Budget(trials=n)})


def replay_recorded(spec: StudySpec) -> list[ReplayedRun]:
    """Replay the same trials on the recorded curves."""
    [recorded] = [curves for curves in read_curves(BANK) if curves.name == SET]
    curves = {(point_key(curve.point), curve.replicate): curve for curve in recorded.curves}
    queue = [curves[point_key(point), replicate] for point, replicate in spec.queue()]
    return replay(queue, FORECAST.simulated_study(spec, queue), LANES, FORECAST.floor(spec))


def main() -> None:
    options = make_parser(__doc__, "train 4 trials")
    options.add_argument("--trials", type=int, default=12, help="number of trials (default %(default)s)")
    arguments = parse_arguments(options)
    spec = spec_of(4 if arguments.quick else arguments.trials)
    with tempfile.TemporaryDirectory() as folder:
        storage = f"sqlite:///{folder}/study.db"
        database = open_database(storage, create=True)
        study = create_study(database, "trained", spec)
        run_study(study, storage, lanes=LANES, stop=threading.Event(), on_poll=lambda: None)
        trials = study.trials()
        database.close()
    table, same = list[tuple[object, ...]](), 0
    for trial, run in zip(trials, replay_recorded(spec), strict=True):
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
    write_json(arguments.json, {"trials": len(trials), "same": same})
    sys.exit(same < len(trials))


if __name__ == "__main__":
    main()
