"""The documented commands, settings, fields and links exist, and every command is documented."""

from __future__ import annotations

import itertools
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from miiii_search.cli import app
from website.hooks import OUTSIDE

ROOT = Path(__file__).parent.parent
GUIDES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "workers" / "README.md"]
PAGES = [*GUIDES, *sorted((ROOT / "docs").rglob("*.md"))]
COMMANDS = typer.main.get_command(app)


def command_lines() -> list[tuple[str, str]]:
    """Return (page, command line) for every call of miiii-search in a code block or code span."""
    lines = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        name = str(page.relative_to(ROOT))
        lines += [
            (name, line) for line in re.findall(r"^ {4}(?:\.venv/bin/)?(miiii-search [^\n]*)", text, re.MULTILINE)
        ]
        lines += [(name, line) for line in re.findall(r"`(miiii-search [a-z]+[^`]*)`", text)]
    return list(dict.fromkeys(lines))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_are_shown_as_code(page: Path) -> None:
    """A command that has lost its indentation is read as a paragraph."""
    prose = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    assert re.findall(r"^(?:miiii-search|docker compose|make) .* --?[a-z].*$", prose, re.MULTILINE) == []


@pytest.mark.parametrize(("page", "line"), command_lines())
def test_documented_command_lines_parse(page: str, line: str) -> None:
    words = shlex.split(line.replace("THIS_FILE", "best.toml").replace(" FILE", " best.toml"), comments=True)
    if words[1:] == ["--version"]:
        return
    command = COMMANDS.commands.get(words[1])  # type: ignore[attr-defined]
    assert command is not None, f"{page} tells to type {words[1]}, which is no command"
    with command.make_context(words[1], words[2:]):
        pass


@pytest.mark.parametrize(("page", "line"), command_lines())
def test_documented_settings_are_fields(page: str, line: str) -> None:
    """Each --set of a study's command gives a valid spec with the preset of the same command."""
    words = shlex.split(line, comments=True)
    settings = [value for option, value in itertools.pairwise(words) if option == "--set"]
    if not settings or words[1] == "train":
        return
    from miiii_search.cli.study_request import read_spec

    preset = words[words.index("--preset") + 1] if "--preset" in words else None
    trials = int(words[words.index("--trials") + 1]) if "--trials" in words else None
    assert read_spec(preset, None, settings, trials)


def test_every_command_is_in_the_reference() -> None:
    reference = (ROOT / "docs" / "reference" / "command-line.md").read_text(encoding="utf-8")
    commands = COMMANDS.commands  # type: ignore[attr-defined]
    shown = [name for name, command in commands.items() if not command.hidden]
    assert not [name for name in shown if f"miiii-search {name}" not in reference]


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 120


def test_guides_fit_a_screen_or_little_more() -> None:
    pages = [page for page in (ROOT / "docs" / "how-to").glob("*.md") if page.name != "index.md"]
    assert [page.name for page in pages if len(page.read_text(encoding="utf-8").splitlines()) > 55] == []


def test_every_field_of_the_paper_s_choices_exists() -> None:
    """Every field that the table in docs/explanation/science.md names exists."""
    from miiii_search.config.error_messages import field_names
    from miiii_search.config.study_spec import StudySpec

    fields = set(field_names(StudySpec))
    text = (ROOT / "docs" / "explanation" / "science.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`((?:experiment|hyperparameters|pruning|budget)\.[a-z_]+)`", text))
    assert named
    assert named <= fields


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


class Loader(yaml.SafeLoader):
    """Reads mkdocs.yml, in which Python functions are named."""


Loader.add_multi_constructor("tag:yaml.org,2002:python/name:", lambda loader, suffix, node: suffix)


def menu(entries: Any) -> list[str]:
    """Return the pages of a menu, in its order."""
    if isinstance(entries, str):
        return [entries]
    parts = entries.values() if isinstance(entries, dict) else entries
    return [page for part in parts for page in menu(part)]


def test_the_menu_lists_every_page_once() -> None:
    """A page that is added to docs/ is listed in mkdocs.yml, at `nav`."""
    listed = menu(yaml.load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"), Loader)["nav"])
    pages = {path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")}
    outside = {path for source, path in OUTSIDE.items() if (ROOT / source).exists()}
    assert sorted(listed) == sorted(pages | outside)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_named_modules_exist(page: Path) -> None:
    """Files of the repository that a page names are there, and so is a name that it finds in one of them."""
    text = page.read_text(encoding="utf-8")
    if page.name == "CONTRIBUTING.md":  # its checklists name files to be written
        return
    for name in re.findall(r"`((?:miiii_search|tests|bench|examples|workers|compose)/[\w./-]+\.py)`", text):
        assert (ROOT / name).exists(), f"{page.name} names {name}"
    for found, name in re.findall(r"`(\w+)` in `(miiii_search/[\w./-]+\.py)`", text):
        assert found in (ROOT / name).read_text(encoding="utf-8"), f"{page.name} says that {found} is in {name}"
