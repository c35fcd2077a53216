"""A run's folder, complete and damaged in every way: one clear message per damage, and the rest is analyzed."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from miiii_search.analysis.findings import Findings, analyze
from miiii_search.analysis.numbers import findings_to_json
from miiii_search.analysis.report.page import render_html
from miiii_search.analysis.report.rendering import render_figures
from miiii_search.analysis.report.run_report import run_figures, run_page
from miiii_search.errors import MiiiiSearchError
from miiii_search.experiment.metrics import Metrics, hash_weights
from miiii_search.experiment.record import Record, WeightSnapshot, write_snapshot
from miiii_search.experiment.spec import Experiment, Hyperparameters
from miiii_search.runs.run_folder import read_run
from miiii_search.study.export import Configuration
from tests.analysis.figures.synthetic import make_record, make_weights
from tests.support import PER_TASK

EXPERIMENT = Experiment(p=7, epochs=960)
HYPERPARAMETERS = Hyperparameters(d_model=16, n_heads=4)
EVALUATIONS = 60  # at 16, 32, …, 960


def spectra(p: int) -> dict[int, Any]:
    rng = np.random.default_rng(0)
    return {epoch: rng.random((p, p // 2 + 1)).astype(np.float32) for epoch in (256, 512)}


def write_run(folder: Path, experiment: Experiment = EXPERIMENT) -> Path:
    """Return a folder like those that `train` writes, of a made-up run with snapshots at 256, 512 and the end."""
    folder.mkdir()
    weights = make_weights(experiment)
    per_task: dict[str, Any] = dict.fromkeys(PER_TASK, (0.5,) * len(experiment.task_moduli))
    metrics = Metrics(
        epochs_trained=960,
        validation_accuracy_mean=0.5,
        moduli=experiment.task_moduli,
        weights_sha256=hash_weights(weights),
        **per_task,
    )
    configuration = Configuration(experiment, HYPERPARAMETERS, metrics, {})
    (folder / "config.toml").write_text(configuration.to_toml())
    (folder / "record.npz").write_bytes(make_record(experiment, EVALUATIONS).to_npz(spectra(experiment.p)))
    save_file(weights, folder / "weights.safetensors")
    for epoch in (256, 512, 960):
        write_snapshot(folder / "snapshots", WeightSnapshot(epoch, spectra(experiment.p)[256], weights))
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_run(tmp_path / "best")


def analyzed(folder: Path) -> tuple[Findings, list[str]]:
    """Do what `analyze` does with a folder, except for rendering the figures, and return its messages."""
    run, problems = read_run(folder)
    found = analyze(run)
    json.dumps(findings_to_json(found), allow_nan=False)
    render_html(run_page(found, problems, "made here"), [])
    lines = [*problems, *found.missing]
    assert all(line and "\n" not in line for line in lines)
    return found, lines


def test_a_whole_run(folder: Path) -> None:
    found, lines = analyzed(folder)
    assert lines == []
    run = found.run
    assert run.name == "best" and run.folder == folder and run.last_epoch == 960
    assert run.record is not None and len(run.record) == EVALUATIONS and list(run.spectra) == [256, 512]
    assert run.weights is not None and run.metrics is not None
    assert [at.epoch for at in found.ablations] == [256, 512, 960]


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(
        MiiiiSearchError, match=r"there is no folder .*nowhere; make one, for example with miiii-search train .* --out"
    ):
        read_run(tmp_path / "nowhere")
    (tmp_path / "file").write_text("")
    with pytest.raises(MiiiiSearchError, match="there is no folder"):
        read_run(tmp_path / "file")


def test_a_folder_of_something_else(tmp_path: Path) -> None:
    with pytest.raises(MiiiiSearchError, match=r"is not a run's folder: it has no config.toml"):
        read_run(tmp_path)


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("format = 1", "format = 2", "has format 2, but miiii-search .* reads format 1"),
        ('kind = "miiii-search configuration"', 'kind = "recipe"', "is not a configuration of miiii-search"),
        ("p = 7", "p = 8", "prime"),
        ("p = 7", "p = ", "is not TOML"),
        ("d_model = 16", "d_modell = 16", "did you mean `d_model`"),
    ],
)
def test_a_configuration_that_cannot_be_used(folder: Path, before: str, after: str, message: str) -> None:
    text = (folder / "config.toml").read_text()
    assert before in text
    (folder / "config.toml").write_text(text.replace(before, after, 1))
    with pytest.raises(MiiiiSearchError, match=message):
        read_run(folder)


def cut(path: Path, keep: float) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: int(keep * len(data))])


def rewrite(path: Path, **changed: Any) -> None:
    """Rewrite an archive with changed arrays; None removes one."""
    with np.load(path) as arrays:
        kept = dict(arrays) | changed
    np.savez(path, allow_pickle=False, **{name: array for name, array in kept.items() if array is not None})


def into_a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def into_a_dangling_link(path: Path) -> None:
    path.unlink()
    path.symlink_to("nowhere")


def without_metrics(folder: Path) -> None:
    text = (folder / "config.toml").read_text()
    (folder / "config.toml").write_text(text[: text.index("[metrics]")])


def npy(array: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


TASKS = len(EXPERIMENT.task_moduli)
OF_RECORD: dict[str, Callable[[Path], object]] = {
    "is a folder": into_a_folder,
    "empty": lambda path: path.write_bytes(b""),
    "cut short": lambda path: cut(path, 0.6),
    "text": lambda path: path.write_text("not an archive"),
    "one array": lambda path: path.write_bytes(npy(np.ones(3))),
    "pickled": lambda path: path.write_bytes(npy(np.array([{}], dtype=object))),
    "of another p": lambda path: path.write_bytes(make_record(Experiment(p=11)).to_npz(spectra(11))),
    "no epochs": lambda path: rewrite(path, epoch=None),
    "no evaluation": lambda path: path.write_bytes(make_record(EXPERIMENT).rows(slice(0, 0)).to_npz()),
    "words": lambda path: rewrite(path, train_loss=np.full((EVALUATIONS, TASKS), "nan")),
    "of another network": lambda path: rewrite(path, gradient_norm=np.ones((EVALUATIONS, 4), np.float32)),
    "backwards": lambda path: rewrite(path, epoch=np.arange(EVALUATIONS, 0, -1, dtype=np.int32)),
    "one number": lambda path: rewrite(path, epoch=np.int32(3)),
}


@pytest.mark.parametrize("damage", OF_RECORD)
def test_a_record_that_cannot_be_used(folder: Path, damage: str) -> None:
    OF_RECORD[damage](folder / "record.npz")
    found, lines = analyzed(folder)
    if damage == "is a folder":
        assert lines[0].startswith("no record of training")
    else:
        assert lines[0].startswith("record.npz of best cannot be used: ") and lines[1].startswith("no record")
    assert found.run.record is None and found.milestones is None and found.activity is None
    assert len(found.ablations) == 3 and found.network is not None


def test_a_record_with_a_bit_that_turned(folder: Path) -> None:
    """Wherever the damage is, it either has no effect or causes one message."""
    path, rng, said = folder / "record.npz", np.random.default_rng(0), 0
    whole = path.read_bytes()
    for at in rng.integers(len(whole), size=300):
        turned = bytearray(whole)
        turned[at] ^= 1 << rng.integers(8)
        path.write_bytes(turned)
        _, problems = read_run(folder)
        assert len(problems) <= 1
        said += len(problems)
    assert said > 200


def test_spectra_of_another_p(folder: Path) -> None:
    """The record in the same file is used."""
    rewrite(folder / "record.npz", spectrum=np.ones((2, 11, 6), np.float32))
    found, lines = analyzed(folder)
    assert lines[0].startswith("the spectra in record.npz of best cannot be used: its spectrum at epoch 256 is float32")
    assert found.activity is None and found.milestones is not None
    rewrite(folder / "record.npz", spectrum=np.full((2, 7, 4), np.nan, np.float32))
    assert "not finite" in analyzed(folder)[1][0]
    rewrite(folder / "record.npz", spectrum_epoch=None)
    assert analyzed(folder)[1][0].startswith("the spectra in record.npz")


def change_weights(path: Path, **changed: Any) -> None:
    kept = load_file(path) | changed
    save_file({name: array for name, array in kept.items() if array is not None}, path)


OF_WEIGHTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "empty": (lambda path: path.write_bytes(b""), "header"),
    "cut short": (lambda path: cut(path, 0.6), ""),
    "text": (lambda path: path.write_text("weights" * 10), ""),
    "of another p": (lambda path: save_file(make_weights(Experiment(p=11)), path), "`token_embedding` must be"),
    "of another width": (lambda path: save_file(make_weights(EXPERIMENT, 32), path), "keep the files of one run"),
    "one is missing": (lambda path: change_weights(path, query=None), "but is absent"),
    "one too many": (lambda path: change_weights(path, bias=np.ones(3, np.float32)), "`bias` must be absent"),
    "double": (lambda path: change_weights(path, query=np.ones((16, 4, 4))), "but is float64"),
    "not finite": (lambda path: change_weights(path, query=np.full((16, 4, 4), np.nan, np.float32)), "not finite"),
}


@pytest.mark.parametrize("damage", OF_WEIGHTS)
def test_weights_that_cannot_be_used(folder: Path, damage: str) -> None:
    spoil, words = OF_WEIGHTS[damage]
    spoil(folder / "weights.safetensors")
    found, lines = analyzed(folder)
    assert lines[0].startswith("weights.safetensors of best cannot be used: ") and words in lines[0]
    assert len(lines) == 2 and lines[1].startswith("no weights")
    assert found.network is None and found.milestones is not None and found.activity is not None


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("record.npz", "no record of training"),
        ("weights.safetensors", "no weights"),
        ("snapshots", "no snapshots of the weights"),
    ],
)
def test_a_file_that_is_not_there(folder: Path, file: str, line: str) -> None:
    (folder / file).rename(folder / "elsewhere")
    found, lines = analyzed(folder)
    assert lines[0].startswith(line)
    assert (found.run.record is None, found.run.weights is None, not found.run.snapshots) == tuple(
        file == name for name in ("record.npz", "weights.safetensors", "snapshots")
    )


def test_weights_that_were_not_measured(folder: Path) -> None:
    """They are analyzed, with a message."""
    change_weights(folder / "weights.safetensors", position_embedding=np.ones((3, 16), np.float32))
    _, problems = read_run(folder)
    assert problems == ["weights.safetensors of best does not contain the weights for which its metrics were measured"]
    found, lines = analyzed(folder)
    assert found.network is not None
    assert lines[1:] == [
        "the snapshot at epoch 960, the end of the run, has other weights: the snapshots are of another run"
    ]
    without_metrics(folder)
    assert read_run(folder)[1] == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("moduli = [\n    2,\n    3,\n    5,\n]", "moduli = [\n    2,\n    3,\n]"), "which are not the 3 trained"),
        (("test_loss = [\n    0.5,\n", "test_loss = [\n"), "`test_loss` has 2 values, not 3"),
    ],
)
def test_metrics_of_another_run(folder: Path, change: tuple[str, str], words: str) -> None:
    text = (folder / "config.toml").read_text()
    assert change[0] in text
    (folder / "config.toml").write_text(text.replace(*change))
    found, lines = analyzed(folder)
    assert len(lines) == 1 and lines[0].startswith("the metrics in the configuration of best cannot be used: ")
    assert words in lines[0]
    assert found.run.metrics is None and found.run.last_epoch == 960


OF_SNAPSHOT: dict[str, tuple[Callable[[Path], object], str]] = {
    "empty": (lambda path: path.write_bytes(b""), ""),
    "cut short": (lambda path: cut(path, 0.6), ""),
    "a folder": (into_a_folder, "directory"),
    "a dangling link": (into_a_dangling_link, "No such file"),
    "of another p": (lambda path: rewrite(path, **make_weights(Experiment(p=11))), "`token_embedding` must be"),
    "of something else": (lambda path: np.savez(path, x=np.ones(3)), "absent"),
    "one array": (lambda path: path.write_bytes(npy(np.ones(3))), ""),
    "not finite": (lambda path: rewrite(path, key=np.full((16, 4, 4), np.inf, np.float32)), "not finite"),
}


@pytest.mark.parametrize("damage", OF_SNAPSHOT)
def test_a_snapshot_that_cannot_be_used(folder: Path, damage: str) -> None:
    """The other snapshots are used."""
    spoil, words = OF_SNAPSHOT[damage]
    spoil(folder / "snapshots" / "epoch-256.npz")
    found, lines = analyzed(folder)
    assert len(lines) == 1 and lines[0].startswith("the snapshot at epoch 256 cannot be used: ") and words in lines[0]
    assert [at.epoch for at in found.ablations] == [512, 960]


def test_a_damaged_snapshot_at_the_end(folder: Path) -> None:
    """It is not needed, since the final weights are there."""
    cut(folder / "snapshots" / "epoch-960.npz", 0.6)
    found, lines = analyzed(folder)
    assert lines == [] and [at.epoch for at in found.ablations] == [256, 512, 960]


def test_snapshots_of_a_longer_run(folder: Path) -> None:
    (folder / "snapshots" / "epoch-960.npz").rename(folder / "snapshots" / "epoch-1024.npz")
    found, lines = analyzed(folder)
    assert lines == ["the snapshots go up to epoch 1,024, but the run up to 960: they are of another run"]
    assert [at.epoch for at in found.ablations] == [960]


def test_other_files_beside_the_snapshots(folder: Path) -> None:
    for name in ("epoch-final.npz", "epoch-.npz", "epoch-256.npz.tmp", "epoch--4.npz", "notes.txt"):
        (folder / "snapshots" / name).write_text("mine")
    found, lines = analyzed(folder)
    assert lines == [] and list(found.run.snapshots) == [256, 512, 960]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read(folder: Path) -> None:
    (folder / "record.npz").chmod(0)
    assert analyzed(folder)[1][0] == "record.npz of best cannot be used: Permission denied"


@pytest.mark.slow
def test_what_can_be_drawn_is_drawn(folder: Path) -> None:
    """This holds for a run whose losses were not finite at the end, too."""
    record = Record.from_npz((folder / "record.npz").read_bytes())
    last = {field.name: getattr(record, field.name).copy() for field in fields(Record)}
    for name in ("train_loss", "validation_loss", "gradient_norm"):
        last[name][-1] = np.nan
    (folder / "record.npz").write_bytes(replace(record, **last).to_npz(spectra(7)))
    cut(folder / "snapshots" / "epoch-256.npz", 0.6)
    every = [one.spec.name for one in render_figures(run_figures(analyzed(folder)[0]))]
    absent = {picture.name for picture in run_figures(analyzed(folder)[0])} - set(every)
    assert absent == {"progress-measures"}  # of the task nanda alone
    (folder / "weights.safetensors").unlink()
    of_training = {"accuracy", "loss", "task-order", "frequencies-through-training", "gradient-norms"}
    of_task = {"label-grids", "input-grid", "number-spirals", "dft-matrix"}
    assert {one.spec.name for one in render_figures(run_figures(analyzed(folder)[0]))} == of_training | of_task
    (folder / "record.npz").unlink()
    assert {one.spec.name for one in render_figures(run_figures(analyzed(folder)[0]))} == of_task
