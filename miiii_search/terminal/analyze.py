"""The analyses as commands show them: a progress line, files, what could not be done."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

from miiii_search.analysis.catalogue import page_of, pictures
from miiii_search.analysis.findings import Findings, analyze
from miiii_search.analysis.numbers import to_numbers
from miiii_search.analysis.report import PAGE, Drawn, draw, write
from miiii_search.analysis.run import TrainedRun
from miiii_search.errors import UserError
from miiii_search.search.run_folder import read_run
from miiii_search.terminal.display import console, duration


def analyze_folder(folder: Path, out: Path | None) -> None:
    """Analyzes what `train` wrote. Raises `UserError`."""
    run, problems = read_run(folder)
    analyze_run(run, problems, out or folder / "analysis")


def analyze_run(run: TrainedRun, problems: Sequence[str], out: Path) -> list[Drawn]:
    """Computes, draws and writes all that the run allows; returns what was drawn.

    Raises `UserError` if `out` cannot be written.
    """
    started = time.monotonic()
    with _steps() as step:
        findings = analyze(run, step)
        drawn = draw(pictures(findings), step)
    remarks = [*problems, *findings.missing]
    for line in remarks:
        console.print(f"note: {line}", soft_wrap=True, markup=False)
    page = page_of(findings, problems, f"miiii-search {version('miiii-search')} analyze")
    _write(lambda: write(out, page, drawn, to_numbers(findings)), out)
    seconds = duration(time.monotonic() - started)
    console.print(f"{len(drawn)} figures, numbers.json and the page {out / PAGE} in {seconds}", soft_wrap=True)
    return drawn


def findings_of(folders: Sequence[Path]) -> list[Findings]:
    """Several runs, computed one after the other. Raises `UserError`."""
    found = []
    with _steps() as step:
        for folder in folders:
            run, problems = read_run(folder)
            for line in problems:
                console.print(f"note: {line}", soft_wrap=True, markup=False)
            found.append(analyze(run, lambda what, name=run.name: step(f"{name}: {what}")))  # type: ignore[misc]
    return found


@contextmanager
def _steps() -> Iterator[Callable[[str], None]]:
    """A line that says what is being done, where somebody watches."""
    with console.status("reading") as status:
        yield lambda what: status.update(what)


def _write(write: Callable[[], object], out: Path) -> None:
    try:
        write()
    except OSError as error:
        raise UserError(f"cannot write to {out}: {error.strerror}; choose another --out") from None
