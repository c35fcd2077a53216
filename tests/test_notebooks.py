"""The notebooks in examples/: executed at small size, and committed without outputs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"
SMALL: dict[str, dict[str, Any]] = {
    "study_with_plots.ipynb": {
        "STORAGE": "sqlite:///small.db",
        "EPOCHS": 32,
        "SPACE": {"weight_decay": (0.5, 1.0), "dropout": (0.1,)},
    },
    "inside_a_network.ipynb": {"P": 11, "EPOCHS": 64},
}


def read(name: str) -> dict[str, Any]:
    notebook: dict[str, Any] = json.loads((EXAMPLES / name).read_text(encoding="utf-8"))
    return notebook


def test_every_notebook_is_run() -> None:
    assert {path.name for path in EXAMPLES.glob("*.ipynb")} == set(SMALL)


@pytest.mark.parametrize("name", SMALL)
def test_notebooks_are_committed_without_outputs(name: str) -> None:
    """Outputs would make every change of a notebook a change of pictures, and would go out of date unseen."""
    cells = [cell for cell in read(name)["cells"] if cell["cell_type"] == "code"]
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in cells)


@pytest.mark.process
@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_a_notebook_runs(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nbformat = pytest.importorskip("nbformat", reason="installed by make docs")
    nbclient = pytest.importorskip("nbclient", reason="installed by make docs")
    monkeypatch.delenv("MPLBACKEND", raising=False)  # which the command line sets, if another test has called it
    monkeypatch.setenv("JUPYTER_PLATFORM_DIRS", "1")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    notebook = nbformat.read(EXAMPLES / name, as_version=4)
    [parameters] = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    assert all(f"{key} = " in parameters.source for key in SMALL[name])
    parameters.source = "\n".join(f"{key} = {value!r}" for key, value in SMALL[name].items())
    nbclient.NotebookClient(notebook, timeout=240, resources={"metadata": {"path": str(tmp_path)}}).execute()
    pictures = sum(
        "image/png" in output.get("data", {}) for cell in notebook.cells for output in cell.get("outputs", [])
    )
    assert pictures >= 2
