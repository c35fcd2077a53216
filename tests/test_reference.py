"""The generated pages of docs/reference/ say what the code says."""

from __future__ import annotations

import re

import pytest

from miiii_search.cli.environment_variables import known_settings
from miiii_search.config.error_messages import field_names
from miiii_search.config.study_spec import StudySpec
from website.reference.pages import FOLDER, PAGES


@pytest.mark.parametrize("name", PAGES)
def test_a_generated_page_is_current(name: str) -> None:
    """`make reference` writes the pages again."""
    assert (FOLDER / name).read_text(encoding="utf-8") == PAGES[name]()


def test_every_field_is_in_the_configuration() -> None:
    page = (FOLDER / "configuration.md").read_text(encoding="utf-8")
    names = [name for name in field_names(StudySpec) if not name.startswith(("space.", "experiment.annealing."))]
    assert len(names) > 30
    assert [name for name in names if f"| `{name}` |" not in page] == []


def test_every_setting_is_an_environment_variable() -> None:
    page = (FOLDER / "environment.md").read_text(encoding="utf-8")
    assert [name for name in sorted(known_settings()) if f"| `{name}` |" not in page] == []


def test_no_option_lacks_a_text() -> None:
    page = (FOLDER / "command-line.md").read_text(encoding="utf-8")
    assert page.count("| `--") > 100
    assert re.findall(r"^\| `--[^`]*` \| \|.*", page, re.MULTILINE) == []
