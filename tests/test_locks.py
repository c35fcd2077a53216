"""The lock files agree with pyproject.toml and with each other, carry hashes, and name no host."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
RUNTIME = PYPROJECT["project"]["dependencies"]
EXTRAS = PYPROJECT["project"]["optional-dependencies"]
GROUPS = PYPROJECT["dependency-groups"]

TEST = RUNTIME + EXTRAS["test"]
REQUIREMENTS = {
    "run": RUNTIME + EXTRAS["s3"],
    "test": TEST,
    "dev": TEST + [line for line in EXTRAS["dev"] if line != "miiii-search[test]"],
    "cuda": RUNTIME + EXTRAS["s3"] + EXTRAS["cuda"],
    "coordinator": GROUPS["coordinator"],
    "docs": GROUPS["docs"],
    "build": GROUPS["build"],
}


def read_lock(name: str) -> str:
    """The text of a lock file."""
    return (ROOT / "requirements" / f"{name}.lock").read_text()


def read_pins(name: str) -> dict[str, set[str]]:
    """The versions that a lock file pins, by package; a version may carry a marker, such as one for a platform."""
    pins: dict[str, set[str]] = {}
    for package, version in re.findall(r"^([A-Za-z0-9._-]+)(?:\[\S+\])?==(\S+(?: ; [^\\\n]+)?)", read_lock(name), re.M):
        pins.setdefault(canonicalize_name(package), set()).add(version.strip())
    return pins


def read_versions(name: str) -> dict[str, set[str]]:
    """The versions that a lock file pins, by package, on whichever platform."""
    return {package: {pin.partition(" ; ")[0] for pin in pins} for package, pins in read_pins(name).items()}


def test_every_lock_file_is_known() -> None:
    assert {path.stem for path in (ROOT / "requirements").glob("*.lock")} == set(REQUIREMENTS)


@pytest.mark.parametrize("name", REQUIREMENTS)
def test_a_lock_names_no_host(name: str) -> None:
    assert not re.findall(r"^.*(?:://|--[a-z-]*(?:index|links|host)).*$", read_lock(name), re.M)


@pytest.mark.parametrize("name", REQUIREMENTS)
def test_each_pin_has_a_hash(name: str) -> None:
    entries = re.split(r"\n(?=\S)", re.sub(r"^#.*\n", "", read_lock(name), flags=re.M))
    assert entries
    assert [entry for entry in entries if "--hash=sha256:" not in entry] == []


@pytest.mark.parametrize("name", REQUIREMENTS)
def test_a_lock_meets_what_pyproject_requires(name: str) -> None:
    pins = read_pins(name)
    for requirement in map(Requirement, REQUIREMENTS[name]):
        versions = [version.partition(" ; ")[0] for version in pins.get(canonicalize_name(requirement.name), ())]
        assert versions, f"{name}.lock has no {requirement}: run make lock"
        assert all(map(requirement.specifier.contains, versions)), f"{name}.lock has {versions} for {requirement}"


@pytest.mark.parametrize("name", [name for name in REQUIREMENTS if name != "run"])
def test_locks_pin_a_package_that_they_share_at_the_same_version(name: str) -> None:
    """The locks are installed one over the other: a second version would replace what was tested with the first."""
    run, other = read_versions("run"), read_versions(name)
    assert {package: other[package] for package in run.keys() & other} == {
        package: run[package] for package in run.keys() & other
    }


def test_the_coordinator_needs_nothing_that_the_package_does_not_list() -> None:
    assert set(GROUPS["coordinator"]) <= {*RUNTIME, *EXTRAS["s3"]}
