"""The figure of a run's learning curves."""

import io
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import matplotlib.image
import numpy as np
import pytest

from miiii_search.analysis.figures.curves import learning_curves
from miiii_search.experiment.record import Record
from miiii_search.experiment.spec import Experiment

MIIII = Experiment()
NANDA = Experiment(task="nanda")
SIZE = (374, 990, 4)  # 9 × 3.4 inches at 110 dots


def make_record(experiment: Experiment, evaluations: int = 50) -> Record:
    """Accuracies that rise and losses that fall, each task at its own pace."""
    tasks = len(experiment.task_moduli)
    epoch = np.arange(1, evaluations + 1, dtype=np.int32) * 16
    rise = np.clip(epoch[:, None] / epoch[-1] * np.linspace(2, 0.5, tasks), 0, 1).astype(np.float32)
    loss = (5 * (1 - 0.99 * rise)).astype(np.float32)
    norms = np.ones((evaluations, 9), np.float32)
    return Record(epoch, loss, rise, 1.5 * loss, 0.9 * rise, norms, norms)


def pixels(png: bytes) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    image: np.ndarray[tuple[int, ...], np.dtype[np.float32]] = matplotlib.image.imread(io.BytesIO(png), format="png")
    return image


@pytest.mark.parametrize("experiment", [NANDA, MIIII], ids=["1 task", "29 tasks"])
def test_a_png_with_something_on_it(experiment: Experiment) -> None:
    assert len(experiment.task_moduli) in (1, 29)
    image = pixels(learning_curves(experiment, make_record(experiment), "a title", solved_epoch=160))
    assert image.shape == SIZE
    # There is one curve per task, in colours from violet to green: the more tasks, the more colours.
    colours = len(np.unique((image[..., :3] * 15).astype(int).reshape(-1, 3), axis=0))
    assert colours > (20 if experiment is NANDA else 100)


def test_what_is_drawn_depends_on_the_record() -> None:
    record = make_record(NANDA)
    base = pixels(learning_curves(NANDA, record, "a title"))
    assert (pixels(learning_curves(NANDA, record, "a title")) == base).all()
    solved = pixels(learning_curves(NANDA, record, "a title", solved_epoch=160))
    other = pixels(learning_curves(NANDA, record.rows(slice(0, 20)), "a title"))
    for image in (solved, other):
        assert (image != base).any()


@pytest.mark.parametrize("evaluations", [0, 1])
def test_a_run_that_ended_early(evaluations: int) -> None:
    assert pixels(learning_curves(MIIII, make_record(MIIII, 1).rows(slice(0, evaluations)), "t")).shape == SIZE


def test_a_loss_of_zero_or_infinity() -> None:
    """Losses of exactly zero, infinity and NaN cannot be drawn on a logarithmic axis."""
    record = make_record(NANDA)
    record.train_loss[10:] = 0
    record.validation_loss[20:] = np.inf
    record.validation_loss[30:] = np.nan
    assert pixels(learning_curves(NANDA, record, "t")).shape == SIZE
    record.train_loss[:] = 0
    record.validation_loss[:] = np.nan
    assert pixels(learning_curves(NANDA, record, "t")).shape == SIZE


@pytest.mark.slow
def test_threads_do_not_disturb_one_another() -> None:
    jobs = [(experiment, f"run {k}") for k in range(2) for experiment in (NANDA, MIIII)]

    def draw(job: tuple[Experiment, str]) -> bytes:
        return learning_curves(job[0], make_record(job[0]), job[1])

    with ThreadPoolExecutor(4) as threads:
        beside = list(threads.map(draw, jobs))
    for png, job in zip(beside, jobs, strict=True):
        assert (pixels(png) == pixels(draw(job))).all()


@pytest.mark.process
def test_pyplot_stays_away() -> None:
    """The state of pyplot is global. Warnings would end up in a worker's log."""
    code = """
import sys
import numpy as np
from miiii_search.analysis.figures.curves import learning_curves
from miiii_search.experiment.spec import Experiment
from miiii_search.experiment.record import Record

ones = np.ones((3, 1), np.float32)
record = Record(np.arange(1, 4, dtype=np.int32), ones, ones, ones, ones, ones, ones)
assert learning_curves(Experiment(task="nanda"), record, "t")
sys.exit("matplotlib.pyplot" in sys.modules)
"""
    result = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (0, "")
