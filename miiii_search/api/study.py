"""The class `Study`: an open study that can be read, trained and exported."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from optuna.trial import FrozenTrial

from miiii_search.api.progress_bar import progress_bar
from miiii_search.config.study_spec import StudySpec
from miiii_search.files import write_file
from miiii_search.storage.database import Database
from miiii_search.study import pause as pausing
from miiii_search.study import study as studies
from miiii_search.study.export import Configuration, export_best
from miiii_search.study.objective import OBJECTIVE_NAME
from miiii_search.study.tables import read_table, to_data_frame
from miiii_search.study.trials import counts_by_name


class Study:
    """An open study. Several processes may open the same study; each sees the changes of the others.

    `create_study` and `load_study` return it. Close it with `close()`, or use it as a context manager.
    """

    def __init__(self, study: studies.Study) -> None:
        self._study = study
        self._close = weakref.finalize(self, Database.close, study.database)

    def close(self) -> None:
        """Close the connections to the database. The study is kept."""
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
        """The current specification. `miiii-search extend` may have changed it since the study was opened."""
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
        """Whether no trial is running, and either the budget is spent or none is waiting and none will be added."""
        return self._study.is_done()

    def run(self, lanes: int | Literal["auto"] = "auto", *, progress: bool = False) -> bool:
        """Train the study on this machine until it is done, with a worker in a process of its own.

        Workers on other machines may train the same study at the same time. After Ctrl-C (`KeyboardInterrupt`) the
        running trials return to the queue, and the next call continues them.

        Args:
            lanes: Number of runs that one compiled program trains at a time; "auto" measures which number is fastest.
            progress: Whether to show a progress bar.

        Returns:
            Whether the study is done.

        Raises:
            WorkerDiedError: The worker ended while there was work left.
            StudyNotFoundError: The study was deleted.

        Example:
            >>> import miiii_search as ms
            >>> with ms.load_study("sqlite:///search.db") as study:
            ...     study.run(lanes=1)
            True
        """
        from miiii_search.coordinator.local import run_study

        storage = self._study.database.url.render_as_string(hide_password=False)
        with progress_bar("trials", self.spec.n_trials, shown=progress) as advance:

            def show_progress() -> None:
                counts = self._study.counts()
                advance(sum(n for state, n in counts.items() if state.is_finished()))

            done = run_study(
                self._study,
                storage,
                lanes=None if lanes == "auto" else lanes,
                stop=threading.Event(),
                on_poll=show_progress,
            )
            show_progress()
        return done

    def pause(self) -> None:
        """Make all workers return their trials to the queue and wait. No effect if the study is paused.

        Raises:
            MiiiiSearchError: The study is done.

        Example:
            >>> import miiii_search as ms
            >>> with ms.create_study("sqlite:///new.db", ms.presets["demo"], name="demo") as study:
            ...     study.pause()
            ...     study.resume()
        """
        pausing.pause(self._study)

    def resume(self) -> None:
        """Let the workers of a paused study continue. No effect if the study is not paused."""
        pausing.resume(self._study)

    def trials_dataframe(self, attrs: Sequence[str] | None = None) -> Any:
        """Return the trials as a pandas data frame, one row per trial. Needs pandas.

        Args:
            attrs: Fields of `optuna.trial.FrozenTrial`, for Optuna's own columns. By default the columns are those of
                `table("trials")`.

        Returns:
            The data frame. Hyperparameters are the columns `params_NAME`.

        Raises:
            ImportError: pandas is not installed.

        Example:
            >>> import miiii_search as ms
            >>> with ms.load_study("sqlite:///search.db") as study:
            ...     table = study.trials_dataframe()
            >>> table["params_weight_decay"].tolist()
            [0.5, 1.0]
        """
        if attrs is None:
            return self.table("trials")
        table = self._study.as_optuna().trials_dataframe(attrs=tuple(attrs))
        # Optuna names this column for the objective, as the dashboard shows it.
        return table.rename(columns={f"value_{OBJECTIVE_NAME}": "value", f"values_{OBJECTIVE_NAME}": "value"})

    def table(self, kind: Literal["trials", "tasks", "curves"]) -> Any:
        """Return a table of the study as a pandas data frame, like `miiii-search export`. Needs pandas.

        Args:
            kind: `trials` has one row per trial, `tasks` one per ended trial and task, `curves` one per report. The
                columns and their units are in docs/reference/files-and-tables.md.

        Returns:
            The data frame. Times are in UTC.

        Raises:
            ImportError: pandas is not installed.

        Example:
            >>> import miiii_search as ms
            >>> with ms.load_study("sqlite:///search.db") as study:
            ...     tasks = study.table("tasks")
            >>> sorted(set(tasks["number"]))
            [0, 1]
        """
        return to_data_frame(read_table(self._study, kind))

    def export_best(self, file: str | Path, *, by: Literal["trial", "median", "worst"] = "trial") -> Configuration:
        """Write the best configuration as a TOML file for `miiii-search train` and `load_configuration`.

        Args:
            file: The file. An existing one is replaced.
            by: "trial" exports the best trial. "median" and "worst" rank configurations by that result over their
                seeds. Of the best configuration, they export the trial with that result.

        Returns:
            The configuration that was written.

        Raises:
            MiiiiSearchError: No trial is complete.
            OSError: The file cannot be written.

        Example:
            >>> import miiii_search as ms
            >>> with ms.load_study("sqlite:///search.db") as study:
            ...     best = study.export_best("best.toml")
            >>> best.metrics.epochs_trained
            32
        """
        best = export_best(self._study, by)
        write_file(Path(file), best.to_toml(Path(file)))
        return best
