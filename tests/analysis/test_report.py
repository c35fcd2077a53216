"""The report on a run: strict JSON, a self-contained page, files for each figure."""

from __future__ import annotations

import base64
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure

from miiii_search.analysis.comparison import compare_runs
from miiii_search.analysis.figures.style import new_figure
from miiii_search.analysis.findings import Findings, analyze
from miiii_search.analysis.numbers import findings_to_json
from miiii_search.analysis.report.comparison_report import comparison_figures, comparison_page
from miiii_search.analysis.report.files import write_report_files
from miiii_search.analysis.report.page import Page, render_html
from miiii_search.analysis.report.rendering import FigureSpec, RenderedFigure, render_figures
from miiii_search.analysis.report.run_report import run_figures, run_page
from miiii_search.analysis.trained_run import TrainedRun
from miiii_search.experiment.metrics import Metrics
from miiii_search.experiment.spec import Experiment, Hyperparameters
from tests.analysis.test_findings import make_run
from tests.support import PER_TASK

P7 = Experiment(p=7, task="nanda")
HOSTILE = '<b>&"$x_{'


def with_metrics(run: TrainedRun) -> TrainedRun:
    per_task: dict[str, Any] = {
        name: tuple(k / 8 + q / 1024 for q in run.experiment.task_moduli) for k, name in enumerate(PER_TASK)
    }
    metrics = Metrics(
        epochs_trained=600,
        epochs_to_solve=480,
        validation_accuracy_mean=0.25,
        moduli=run.experiment.task_moduli,
        weights_sha256="0" * 64,
        **per_task,
    )
    return replace(run, metrics=metrics)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Findings:
    """Return complete findings of a run whose name needs escaping."""
    run = with_metrics(make_run(P7, tmp_path_factory.mktemp("snapshots")))
    return analyze(replace(run, name=HOSTILE))


@pytest.fixture(scope="module")
def drawn(whole: Findings) -> list[RenderedFigure]:
    steps: list[str] = []
    drawn = render_figures(run_figures(whole), steps.append)
    assert steps == [picture.title for picture in run_figures(whole)]
    return drawn


def strict(tree: object) -> Any:
    """Return the tree as another program would read it."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    return json.loads(json.dumps(tree, allow_nan=False), parse_constant=refuse)


def test_numbers_of_a_whole_run(whole: Findings) -> None:
    read, run = strict(findings_to_json(whole)), whole.run
    assert read["kind"] == "miiii-search analysis" and read["format"] == 1 and read["run"] == HOSTILE
    assert read["experiment"]["p"] == 7 and read["hyperparameters"]["d_model"] == 16
    assert (read["epochs_trained"], read["epochs_to_solve"], read["missing"]) == (600, 480, [])
    assert read["accuracy"] == {"7": {"training": 7 / 1024, "validation": 2 / 8 + 7 / 1024, "test": 4 / 8 + 7 / 1024}}
    assert whole.network is not None and whole.activity is not None and whole.milestones is not None
    assert read["milestones"]["order"] == [7]
    assert read["milestones"]["memorised"]["7"] == whole.milestones.memorised[7]
    assert run.record is not None and run.weights is not None
    assert read["gradient_norm_at_end"] == dict.fromkeys(sorted(run.weights), 1.0)
    embeddings, neurons = whole.network.embeddings, whole.network.neurons
    expected = np.linalg.svd(run.weights["token_embedding"][:7].astype(float), compute_uv=False)
    np.testing.assert_allclose(read["embeddings"]["singular_values"], expected, rtol=1e-5)
    assert read["embeddings"]["active_frequencies"] == embeddings.frequencies.active.tolist()
    assert read["neurons"]["alive"] == neurons.alive.sum() and len(read["neurons"]["explained"]) == 64
    np.testing.assert_allclose(read["neurons"]["variance"], neurons.variance, rtol=1e-5)
    assert read["activity"]["epochs"] == [256] and np.shape(read["activity"]["activation"])[0] == 1
    assert [at["epoch"] for at in read["circuits"]] == [256, 512, 600]
    np.testing.assert_allclose(read["circuits"][-1]["without_head"], whole.ablations[-1].heads, rtol=1e-5, atol=1e-12)
    assert [at["epoch"] for at in read["progress_measures"]] == [256, 512, 600]
    assert read["progress_measures"][0]["excluded"] == pytest.approx(whole.progress[0].excluded, rel=1e-5)
    assert read["key_frequencies"] == list(whole.key_frequencies)


PARTS: dict[str, dict[str, Any]] = {
    "nothing": {"record": None, "spectra": {}, "weights": None, "snapshots": {}},
    "record alone": {"spectra": {}, "weights": None, "snapshots": {}},
    "weights alone": {"record": None, "spectra": {}, "snapshots": {}},
    "spectra alone": {"record": None, "weights": None, "snapshots": {}},
}


@pytest.mark.parametrize("task", ["nanda", "miiii"])
@pytest.mark.parametrize("parts", PARTS)
def test_numbers_of_a_run_that_lacks_things(parts: str, task: Any, tmp_path: Path) -> None:
    found = analyze(make_run(Experiment(p=5, task=task), tmp_path, **PARTS[parts]))
    read = strict(findings_to_json(found))
    assert read["missing"] == found.missing != []
    assert ("milestones" in read) == ("gradient_norm_at_end" in read) == (parts == "record alone")
    assert ("embeddings" in read) == ("circuits" in read) == (parts == "weights alone")
    assert ("activity" in read) == (parts == "spectra alone")
    assert "accuracy" not in read
    render_html(run_page(found, ["a remark"], ""), [])


@pytest.mark.slow
def test_numbers_that_json_does_not_have(tmp_path: Path) -> None:
    """A dead network, and gradients that overflowed."""
    run = make_run(P7, tmp_path)
    assert run.record is not None and run.weights is not None
    record = replace(run.record, gradient_norm=np.full((60, 9), np.inf, np.float32))
    still = {256: np.zeros((7, 4), np.float32)}
    zeros = {name: np.zeros_like(array) for name, array in run.weights.items()}
    found = analyze(replace(run, record=record, weights=zeros, snapshots={}, spectra=still))
    read = strict(findings_to_json(found))
    assert set(read["gradient_norm_at_end"].values()) == {None} and read["neurons"]["alive"] == 0
    assert read["embeddings"]["position_correlation"] == 0
    assert render_figures(run_figures(found))


class Parts(HTMLParser):
    """Tags, attributes and text of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.mark.slow
def test_the_page_needs_nothing_else(whole: Findings, drawn: list[RenderedFigure]) -> None:
    page = render_html(run_page(whole, [], "Made by a test."), drawn)
    read = Parts(page)
    assert not re.search(r"https?:|//[a-z]|url\(|@import|javascript:", re.sub(r"base64,[^\"]*", "", page))
    assert {tag for tag, _ in read.tags}.isdisjoint({"script", "link", "iframe", "object", "embed", "form", "base"})
    assert not any(name.startswith("on") for _, attributes in read.tags for name in attributes)
    [policy] = [str(meta["content"]) for meta in read.all("meta") if "http-equiv" in meta]
    assert policy == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    links = [str(link["href"]) for link in read.all("a")]
    assert links == [f"#{heading['id']}" for heading in read.all("h2")] != []
    # Every figure is embedded, with its caption and an alternative text.
    images = read.all("img")
    assert [str(image["src"]) for image in images] == [
        f"data:image/png;base64,{base64.b64encode(one.png).decode()}" for one in drawn
    ]
    assert [image["alt"] for image in images] == [one.spec.title for one in drawn]
    assert all(one.spec.caption in read.text and one.spec.source in read.text for one in drawn)
    assert len({attributes["id"] for _, attributes in read.tags if "id" in attributes}) == len(links) + len(drawn)


def test_every_figure_of_a_whole_run_is_drawn(whole: Findings, drawn: list[RenderedFigure]) -> None:
    assert [one.spec.name for one in drawn] == [picture.name for picture in run_figures(whole)]
    assert len({one.spec.name for one in drawn}) == len(drawn)
    for one in drawn:
        assert one.png.startswith(b"\x89PNG") and one.svg.lstrip().startswith(b"<?xml")
        assert max(len(one.png), len(one.svg)) < 500_000


def test_text_is_text(whole: Findings, drawn: list[RenderedFigure]) -> None:
    """Names of folders, studies and files are escaped."""
    picture = replace(drawn[0].spec, title=HOSTILE, caption=HOSTILE, source=HOSTILE, section=HOSTILE)
    page = Page(HOSTILE, HOSTILE, [(HOSTILE, HOSTILE)], [HOSTILE], HOSTILE, [[HOSTILE], [HOSTILE]])
    html = render_html(page, [replace(drawn[0], spec=picture)])
    read = Parts(html)
    assert read.all("b") == [] and HOSTILE not in html
    # Title twice, summary, link; two in the table and two in the grid, remark; section; title, source and caption of
    # the figure; made by.
    assert read.text.count(HOSTILE) == 14
    assert read.all("img")[0]["alt"] == HOSTILE
    assert render_html(run_page(whole, [], ""), []).count("&lt;b&gt;") == 2


def test_names_in_figures_are_no_mathematics(whole: Findings) -> None:
    """Names may contain text that matplotlib would read as mathematics."""
    named = replace(whole, run=replace(whole.run, name=r"$\frac$"))
    assert len(render_figures(comparison_figures([whole, named]))) == len(comparison_figures([whole, named]))
    table = compare_runs([whole, named])
    assert HOSTILE not in render_html(comparison_page(table, [], ""), [])
    strict(table.to_json())


def picture_of(name: str, figure: Figure | None) -> FigureSpec:
    return FigureSpec(name, "Section", name, "", "", lambda: figure)


def test_the_files(whole: Findings, tmp_path: Path) -> None:
    """Files of an earlier report are removed, and the user's files are kept."""
    out = tmp_path / "new" / "analysis"
    both = [picture_of("one", new_figure(1, 1)), picture_of("two", new_figure(1, 1))]
    numbers = {"value": 1.5}
    paths = write_report_files(out, run_page(whole, [], ""), both, render_figures(both), numbers)
    names = {"one.png", "one.svg", "two.png", "two.svg", "numbers.json", "report.html"}
    assert {path.name for path in paths} == names == {path.name for path in out.iterdir()}
    assert json.loads((out / "numbers.json").read_text()) == numbers
    (out / "mine.png").touch()
    less = [both[0], picture_of("two", None)]
    write_report_files(out, run_page(whole, [], ""), less, render_figures(less), numbers)
    assert {path.name for path in out.iterdir()} == names - {"two.png", "two.svg"} | {"mine.png"}
    with pytest.raises(ValueError, match="JSON"):
        write_report_files(out, run_page(whole, [], ""), [], [], {"value": float("nan")})


def test_hyperparameters_stand_on_the_page(whole: Findings) -> None:
    page = run_page(whole, ["a remark"], "Made by a test.")
    assert page.summary == (
        "Task nanda at p = 7, d = 16, 2 heads, trained for 600 epochs: solved at epoch 480, mean validation "
        "accuracy 0.250."
    )
    assert page.remarks == ["a remark"]
    chosen = dict(page.table)["configuration"]
    assert f"weight_decay {Hyperparameters().weight_decay:.4g}" in chosen and "seed 0" in chosen


def test_what_was_not_reached_is_in_no_unit(tmp_path: Path) -> None:
    run = make_run(P7, tmp_path, weights=None, snapshots={}, spectra={})
    assert run.record is not None
    record = replace(run.record, validation_accuracy=np.zeros((60, 1), np.float32))
    table = dict(run_page(analyze(replace(run, record=record)), [], "").table)
    assert table["all scored tasks generalised"].startswith("not reached (Fig.")
    assert " epoch (Fig." in table["all scored tasks memorised"]
