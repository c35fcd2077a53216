"""The library: runs and studies from Python. `import miiii_search as ms` offers all of its names.

Progress goes to the logger `miiii_search`; nothing is printed unless `progress=True` asks for a progress bar.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import weakref
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from optuna.trial import FrozenTrial

from miiii_search.analysis.trained_run import TrainedRun
from miiii_search.config.presets import PRESETS
from miiii_search.config.study_spec import StudySpec
from miiii_search.experiment.record import Floats, Record, WeightSnapshot
from miiii_search.experiment.spec import Experiment, Hyperparameters
from miiii_search.files import write_file
from miiii_search.storage.artifact_stores import parse_store_url, prepare_store
from miiii_search.storage.database import Database, open_database
from miiii_search.study import create, names
from miiii_search.study import delete as deleting
from miiii_search.study import open as opening
from miiii_search.study import pause as pausing
from miiii_search.study import study as studies
from miiii_search.study.export import Configuration, export_best, read_configuration
from miiii_search.study.objective import OBJECTIVE_NAME
from miiii_search.study.trials import counts_by_name

if TYPE_CHECKING:
    from miiii_search.analysis.findings import Findings
    from miiii_search.training.lane_state import RunProgress

logger = logging.getLogger("miiii_search")

presets: Mapping[str, StudySpec] = {name: preset.spec for name, preset in PRESETS.items()}
"""The study specifications that come with the package, by name."""


def train(
    experiment: Experiment,
    hyperparameters: Hyperparameters,
    *,
    name: str = "run",
    progress: bool = False,
) -> TrainedRun:
    """Trains one run in this process, on JAX's default device.

    Args:
        experiment: The task, its data and the length of the run.
        hyperparameters: Those of the network and its optimizer.
        name: What figures and tables call the run.
        progress: Shows a progress bar.

    Returns:
        The run: `metrics`, `record` (one row per evaluation), `weights` (arrays by name) and `spectra` by epoch.

    Raises:
        NonFiniteLossError: The loss stopped being finite.
        OutOfMemoryError: The run does not fit into the device's memory.

    Example:
        >>> import miiii_search as ms
        >>> experiment = ms.Experiment(p=7, epochs=32, evaluate_every=8, validation_samples=10)
        >>> run = ms.train(experiment, ms.Hyperparameters(d_model=16, n_heads=2))
        >>> run.record.validation_accuracy.shape  # evaluations, tasks
        (4, 3)
    """
    from miiii_search.training import run as training

    spectra: dict[int, Floats] = {}

    def keep(snapshot: WeightSnapshot) -> None:
        spectra[snapshot.epoch] = snapshot.spectrum

    with _progress_bar("training", experiment.epochs, progress) as advance:

        def show(done: RunProgress, new: Record) -> None:
            logger.debug("epoch %d of %d", done.epoch, experiment.epochs, extra={"epoch": done.epoch})
            advance(done.epoch)

        result = training.train(experiment, hyperparameters, on_progress=show, on_snapshot=keep)
    return TrainedRun(name, experiment, hyperparameters, result.metrics, result.record, spectra, result.weights)


def load_run(folder: str | Path) -> TrainedRun:
    """Reads a run that `miiii-search train` wrote. What cannot be read is logged as a warning and left out.

    Args:
        folder: The run's folder.

    Returns:
        The run, with its snapshots as files.

    Raises:
        MiiiiSearchError: The folder is not one of a run, or its configuration cannot be read.
    """
    from miiii_search.runs.run_folder import read_run

    run, problems = read_run(Path(folder))
    for problem in problems:
        logger.warning(problem)
    return run


def analyze(run: TrainedRun, out: str | Path | None = None) -> Findings:
    """Computes what a network learned: its circuits, its frequencies, and when they formed.

    Args:
        run: The run. What it lacks is left out of the findings.
        out: A folder for the figures, `numbers.json` and the page `report.html`. Nothing is written without it.

    Returns:
        The findings as arrays; see `miiii_search.analysis.findings.Findings`.

    Raises:
        MiiiiSearchError: The folder cannot be written.
    """
    from miiii_search.analysis import findings as finding

    found = finding.analyze(run)
    if out is not None:
        from miiii_search.runs.report_folder import write_report

        write_report(found, Path(out))
    return found


def create_study(
    storage: str,
    spec: StudySpec,
    *,
    name: str,
    artifacts: str | None = None,
) -> Study:
    """Creates a study with all of its trials in the queue; opens it if it exists with the same specification.

    Args:
        storage: `sqlite:///FILE` or `postgresql://USER:PASSWORD@HOST/DATABASE`. A missing SQLite file is created.
        spec: What is searched; `presets` holds some.
        name: The study's name.
        artifacts: A folder or `s3://BUCKET/PREFIX` for records, figures and weights. The database by default.

    Returns:
        The open study.

    Raises:
        DuplicateStudyError: A study of this name has another specification.
        MiiiiSearchError: The storage cannot be opened or written.

    Example:
        >>> import miiii_search as ms
        >>> study = ms.create_study("sqlite:///grok.db", ms.presets["demo"], name="demo")
        >>> study.spec.n_trials
        12
    """
    database = open_database(storage, create=True)
    try:
        store_url = parse_store_url(artifacts) if artifacts else None
        if store_url:
            prepare_store(store_url)
        return Study(create.create_study(database, name, spec, store_url))
    except BaseException:
        database.close()
        raise


def load_study(storage: str, name: str | None = None) -> Study:
    """Opens a study, also while workers train it.

    Args:
        storage: As for `create_study`.
        name: The study's name. Optional if the storage holds only one study.

    Returns:
        The open study.

    Raises:
        StudyNotFoundError: There is no such study.
        MiiiiSearchError: The storage cannot be opened.
    """
    database = open_database(storage)
    try:
        return Study(opening.open_study(database, name))
    except BaseException:
        database.close()
        raise


def list_studies(storage: str) -> list[str]:
    """Returns the names of a storage's studies, in alphabetical order.

    Raises:
        MiiiiSearchError: The storage cannot be opened.
    """
    database = open_database(storage)
    try:
        return sorted(names.study_names(database))
    finally:
        database.close()


def delete_study(storage: str, name: str, *, force: bool = False) -> None:
    """Deletes a study with all of its trials and artifacts.

    Args:
        storage: As for `create_study`.
        name: The study's name.
        force: Deletes the study even while workers train it.

    Raises:
        StudyNotFoundError: There is no such study.
        MiiiiSearchError: A worker trains it, or its artifacts cannot be reached.
    """
    with contextlib.closing(load_study(storage, name)) as study:
        deleting.delete(study._study, force=force)


def load_configuration(file: str | Path) -> Configuration:
    """Reads a file that `Study.export_best`, `miiii-search best` or `train` wrote.

    Returns:
        The configuration: `experiment`, `hyperparameters`, and the `metrics` that were recorded with it.

    Raises:
        MiiiiSearchError: The file cannot be read, or is no configuration.
    """
    return read_configuration(Path(file))


class Study:
    """An open study. Several processes may have the same study open; each sees what the others do.

    Close it with `close()`, or use it as a context manager.
    """

    def __init__(self, study: studies.Study) -> None:
        self._study = study
        self._close = weakref.finalize(self, Database.close, study.database)

    def close(self) -> None:
        """Closes the connections to the database. The study stays."""
        self._close()

    def __enter__(self) -> Study:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Study({self.name!r}, {str(self._study.database)!r})"

    @property
    def name(self) -> str:
        """The study's name."""
        return self._study.name

    @property
    def spec(self) -> StudySpec:
        """The study's specification, as it is now: `miiii-search extend` may have changed it."""
        self._study.refresh()
        return self._study.spec

    @property
    def trials(self) -> list[FrozenTrial]:
        """All trials by number, as Optuna's `FrozenTrial`."""
        return self._study.trials()

    @property
    def best_trial(self) -> FrozenTrial | None:
        """The completed trial with the highest objective; None if no trial is complete."""
        from miiii_search.study.best_trials import read_best

        return read_best(self._study)

    @property
    def counts(self) -> dict[str, int]:
        """The number of trials in each state: waiting, running, complete, pruned and fail."""
        return counts_by_name(self._study.counts())

    @property
    def done(self) -> bool:
        """Whether no trial is waiting or running and none will be added, or the budget is spent."""
        return self._study.is_done()

    def run(self, lanes: int | Literal["auto"] = "auto", *, progress: bool = False) -> bool:
        """Trains the study to its end on this machine, with a worker in a process of its own.

        Workers on other machines may train the same study meanwhile. Ctrl-C (`KeyboardInterrupt`) returns the trials
        that are running to the queue; the next call goes on with them.

        Args:
            lanes: Number of runs trained side by side in one compiled program; "auto" measures what is fastest.
            progress: Shows a progress bar.

        Returns:
            Whether the study is done.

        Raises:
            WorkerDiedError: The worker ended while there was work.
            StudyNotFoundError: Somebody deleted the study.
        """
        from miiii_search.coordinator.local import run_study

        stop = threading.Event()
        storage = self._study.database.url.render_as_string(hide_password=False)
        with _progress_bar("trials", self.spec.n_trials, progress) as advance:

            def look() -> None:
                counts = self._study.counts()
                advance(sum(n for state, n in counts.items() if state.is_finished()))

            done = run_study(
                self._study,
                storage,
                lanes=None if lanes == "auto" else lanes,
                stop=stop,
                on_poll=look,
            )
            look()
        return done

    def pause(self) -> None:
        """Makes all workers return their trials to the queue and wait. Called twice, it does no more."""
        pausing.pause(self._study)

    def resume(self) -> None:
        """Lets workers go on. Called twice, it does no more."""
        pausing.resume(self._study)

    def trials_dataframe(self, attrs: Sequence[str] = ("number", "value", "params", "state", "duration")) -> Any:
        """Returns the trials as a pandas data frame, one row per trial. Needs pandas.

        Args:
            attrs: Fields of `optuna.trial.FrozenTrial`; with "user_attrs" also metrics, worker and device.

        Raises:
            ImportError: pandas is not installed.
        """
        table = self._study.as_optuna().trials_dataframe(attrs=tuple(attrs))
        # Optuna names the column for the objective as the dashboard shows it.
        return table.rename(columns={f"value_{OBJECTIVE_NAME}": "value", f"values_{OBJECTIVE_NAME}": "value"})

    def export_best(self, file: str | Path, *, by: Literal["trial", "median", "worst"] = "trial") -> Configuration:
        """Writes the best configuration as a TOML file that `miiii-search train` and `load_configuration` read.

        Args:
            file: The file. One that exists is replaced.
            by: "trial" takes the best trial; "median" and "worst" rank configurations by that of their seeds.

        Returns:
            The configuration that was written.

        Raises:
            MiiiiSearchError: No trial is complete.
            OSError: The file cannot be written.
        """
        best = export_best(self._study, by)
        write_file(Path(file), best.to_toml(Path(file)))
        return best


@contextlib.contextmanager
def _progress_bar(what: str, total: int, shown: bool) -> Iterator[Any]:
    """A function that moves a progress bar to a number of steps; without `shown` it does nothing."""
    if not shown:
        yield lambda n: None
        return
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns) as bar:
        task = bar.add_task(what, total=total)
        yield lambda n: bar.update(task, completed=n)
