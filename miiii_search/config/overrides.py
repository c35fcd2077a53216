"""Specifications as plain data: reading, writing, validating and comparing them, and overriding single keys."""

from __future__ import annotations

import json
import shlex
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from miiii_search.config.error_messages import explain
from miiii_search.config.search_space import SEARCHED_FIELDS
from miiii_search.config.study_spec import StudySpec
from miiii_search.errors import InvalidSpecError, MiiiiSearchError
from miiii_search.experiment.spec import Hyperparameters

SpecT = TypeVar("SpecT", bound=BaseModel)

FIXED_KEYS = {
    "preset": "it records which preset a study was made from: choose one with --preset",
    "format": "it is the format of the spec, which the version of miiii-search decides",
}
"""Keys of a study's specification that cannot be set, and the reason."""


def flatten(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the dotted key and the value of every leaf of a tree."""
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def to_tree(spec: BaseModel) -> dict[str, Any]:
    """Return a specification as plain data, as TOML and JSON files hold it.

    Fields that are None are left out. So are the base values of what a study searches over, since no run has them.
    """
    tree: dict[str, Any] = json.loads(spec.model_dump_json(exclude_none=True))
    if isinstance(spec, StudySpec):
        for group in ("experiment", "hyperparameters"):
            tree[group] = {name: value for name, value in tree[group].items() if name not in spec.space}
    return tree


def describe_differences(stored: StudySpec, wanted: StudySpec) -> list[str]:
    """Return one phrase for every field in which two specifications differ.

    Args:
        stored: The specification of the existing study.
        wanted: The other one.
    """
    old, new = (dict(flatten(_expand_replicates(to_tree(spec)))) for spec in (stored, wanted))
    return [
        f"{key} is {json.dumps(old.get(key, 'unset'))}, not {json.dumps(new.get(key, 'unset'))}"
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key) and key != "preset"
    ]


def validate(model: type[SpecT], tree: Mapping[str, Any], source: str) -> SpecT:
    """Validate plain data as a specification.

    Args:
        model: The class of the specification.
        tree: The data, such as the content of a TOML file.
        source: Where the data comes from, such as the file's name. The error message begins with it.

    Returns:
        The specification.

    Raises:
        InvalidSpecError: The data is invalid. The message names the first mistake and the value, and suggests a key
            in place of an unknown one.
    """
    if model is StudySpec:
        tree = _with_base_values(tree)
    try:
        # As JSON, since strict validation of Python objects rejects lists in the place of tuples.
        return model.model_validate_json(json.dumps(tree))
    except ValidationError as error:
        raise InvalidSpecError(f"{source}: {explain(model, error)}") from None
    except (TypeError, ValueError) as error:
        raise InvalidSpecError(f"{source}: {error}") from None


def _with_base_values(tree: Mapping[str, Any]) -> Mapping[str, Any]:
    """Use the first value of each dimension of a study as its base value.

    No run has the base value of a dimension. But it must be valid together with the hyperparameters that are fixed.
    """
    space = tree.get("space")
    if not isinstance(space, Mapping):
        return tree
    first = {name: values[0] for name, values in space.items() if isinstance(values, list | tuple) and values}
    filled = dict(tree)
    for group, names in (("hyperparameters", Hyperparameters.model_fields), ("experiment", SEARCHED_FIELDS)):
        base = tree.get(group, {})
        if isinstance(base, Mapping):
            filled[group] = {**base, **{name: value for name, value in first.items() if name in names}}
    return filled


def apply_settings(model: type[SpecT], tree: Mapping[str, Any], settings: Sequence[str]) -> SpecT:
    """Apply settings to plain data, then validate it as a specification.

    Args:
        model: The class of the specification.
        tree: The data. It is not changed.
        settings: Settings `key=value`, applied in order. Keys are dotted. Values are TOML; what is not valid TOML is a
            string.

    Returns:
        The specification.

    Raises:
        InvalidSpecError: A setting is not of this form, or cannot be set, or the result is invalid.
    """
    edited: dict[str, Any] = json.loads(json.dumps(tree))
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals:
            raise InvalidSpecError(
                f"--set needs key=value, but got `{setting}`; for example --set experiment.epochs=256"
            )
        *parents, leaf = names = key.strip().split(".")
        value = _parse_value(text.strip())
        if model is StudySpec:
            _check_settable(setting, names, value, edited.get("space", {}))
        node = edited = _expand_replicates(edited)
        for name in parents:
            child = node.setdefault(name, {})
            if not isinstance(child, dict):
                child = node[name] = {}
            node = child
        node[leaf] = value
    source = "--set" if settings else "the spec"
    return validate(model, edited, source)


def _check_settable(setting: str, names: Sequence[str], value: Any, space: Mapping[str, Any]) -> None:
    """Check that a setting of a study has an effect, and the one that its key suggests.

    Raises:
        InvalidSpecError: The key is fixed, or it is the base value of a dimension that the study searches over.
    """
    if (why := FIXED_KEYS.get(names[0])) is not None:
        raise InvalidSpecError(f"--set {setting}: `{names[0]}` cannot be set; {why}")
    if names[0] not in ("hyperparameters", "experiment"):
        return
    given = {names[1]: value} if len(names) == 2 else value if len(names) == 1 and isinstance(value, dict) else {}
    for name in given:
        if name in space:
            better = shlex.quote(f"space.{name}=[{json.dumps(given[name])}]")
            raise InvalidSpecError(f"--set {setting}: the study searches over {name}; use --set {better}")


def _expand_replicates(tree: dict[str, Any]) -> dict[str, Any]:
    """Return the tree with its replicates as a table, so that one of their keys can be set without the other."""
    replicates = tree.get("replicates")
    return tree if replicates is None or isinstance(replicates, dict) else {**tree, "replicates": {"count": replicates}}


def read_config_file(path: Path) -> dict[str, Any]:
    """Read a TOML file, or a JSON file if its name ends with `.json`.

    Raises:
        MiiiiSearchError: The file cannot be read.
        InvalidSpecError: The file is not TOML or JSON, or its content is not a table.
    """
    try:
        text = path.read_text(encoding="utf-8")
        tree: Any = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except OSError as error:
        raise MiiiiSearchError(f"cannot read {path}: {error.strerror}; give the path of a TOML or JSON file") from None
    except (tomllib.TOMLDecodeError, json.JSONDecodeError, UnicodeDecodeError) as error:
        kind = "JSON" if path.suffix == ".json" else "TOML"
        raise InvalidSpecError(f"{path} is not {kind}: {str(error).splitlines()[0]}") from None
    if not isinstance(tree, dict):
        raise InvalidSpecError(f"{path} must hold a table of keys and values, but holds a {type(tree).__name__}")
    return tree


def _parse_value(text: str) -> Any:
    """Return a TOML value, or the text itself if it is not valid TOML."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
