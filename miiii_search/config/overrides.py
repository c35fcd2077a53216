"""Specs as plain data: written, read, edited by `key=value`, compared, and what is wrong with them said in a line."""

from __future__ import annotations

import difflib
import json
import shlex
import tomllib
import types
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from miiii_search.config.study_spec import SEARCHED_FIELDS, Range, StudySpec
from miiii_search.errors import MiiiiSearchError
from miiii_search.experiment.spec import Hyperparameters

SpecT = TypeVar("SpecT", bound=BaseModel)

MEMBERS = ("Range", "tuple[union[float,int,str], ...]", "int", "float")
"""Pydantic's names of a union's members."""


def flatten(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted key, value) of every leaf."""
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def to_tree(spec: BaseModel) -> dict[str, Any]:
    """The spec as plain data, as TOML and JSON hold it: without unset fields, and what a study searches over."""
    tree: dict[str, Any] = json.loads(spec.model_dump_json(exclude_none=True))
    if isinstance(spec, StudySpec):
        for group in ("experiment", "hyperparameters"):
            tree[group] = {name: value for name, value in tree[group].items() if name not in spec.space}
    return tree


def describe_differences(stored: StudySpec, wanted: StudySpec) -> list[str]:
    """One phrase for every field in which two specs differ."""
    old, new = (dict(flatten(_in_full(to_tree(spec)))) for spec in (stored, wanted))
    return [
        f"{key} is {json.dumps(old.get(key, 'unset'))}, not {json.dumps(new.get(key, 'unset'))}"
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key) and key != "preset"
    ]


def validate(model: type[SpecT], tree: Mapping[str, Any], source: str) -> SpecT:
    """The tree as a spec.

    Raises `MiiiiSearchError` naming the first mistake, the value and, for an unknown key, the nearest right one.
    """
    if model is StudySpec:
        tree = _with_bases(tree)
    try:
        # Through JSON, since strict Python validation refuses a list where a tuple is meant.
        return model.model_validate_json(json.dumps(tree))
    except ValidationError as error:
        raise MiiiiSearchError(f"{source}: {_explain(model, error)}") from None
    except (TypeError, ValueError) as error:
        raise MiiiiSearchError(f"{source}: {error}") from None


def _with_bases(tree: Mapping[str, Any]) -> Mapping[str, Any]:
    """A study's tree with the first value of what it searches over as the base.

    The base of what is searched over is in no run, yet it must be valid beside what is not.
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
    """The tree with each `key=value` applied, validated once all are.

    Keys are dotted; values are TOML, and what is not TOML is taken as a string. Raises `MiiiiSearchError`.
    """
    edited: dict[str, Any] = json.loads(json.dumps(tree))
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals:
            raise MiiiiSearchError(
                f"--set needs key=value, but got `{setting}`; for example --set experiment.epochs=256"
            )
        *parents, leaf = names = key.strip().split(".")
        value = _parse_value(text.strip())
        if model is StudySpec:
            _check_settable(setting, names, value, edited.get("space", {}))
        node = edited = _in_full(edited)
        for name in parents:
            child = node.setdefault(name, {})
            if not isinstance(child, dict):
                child = node[name] = {}
            node = child
        node[leaf] = value
    source = "--set" if settings else "the spec"
    return validate(model, edited, source)


FIXED = {
    "preset": "it records which preset a study was made from: choose one with --preset",
    "format": "it is the format of the spec, which the version of miiii-search decides",
}
"""Keys of a study's spec that are no settings, and why."""


def _check_settable(setting: str, names: Sequence[str], value: Any, space: Mapping[str, Any]) -> None:
    """Raises `MiiiiSearchError` for a setting of a study that would have no effect, or not the one that it names."""
    if (why := FIXED.get(names[0])) is not None:
        raise MiiiiSearchError(f"--set {setting}: `{names[0]}` cannot be set; {why}")
    if names[0] not in ("hyperparameters", "experiment"):
        return
    given = {names[1]: value} if len(names) == 2 else value if len(names) == 1 and isinstance(value, dict) else {}
    for name in given:
        if name in space:
            better = shlex.quote(f"space.{name}=[{json.dumps(given[name])}]")
            raise MiiiiSearchError(f"--set {setting}: the study searches over {name}; use --set {better}")


def _in_full(tree: dict[str, Any]) -> dict[str, Any]:
    """A tree whose replicates are a table, so that one key of them can be set without the other."""
    replicates = tree.get("replicates")
    return tree if replicates is None or isinstance(replicates, dict) else {**tree, "replicates": {"count": replicates}}


def read_config_file(path: Path) -> dict[str, Any]:
    """A TOML or JSON file as plain data. Raises `MiiiiSearchError` if it is not there or not readable as such."""
    try:
        text = path.read_text(encoding="utf-8")
        tree: Any = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except OSError as error:
        raise MiiiiSearchError(f"cannot read {path}: {error.strerror}; give the path of a TOML or JSON file") from None
    except (tomllib.TOMLDecodeError, json.JSONDecodeError, UnicodeDecodeError) as error:
        kind = "JSON" if path.suffix == ".json" else "TOML"
        raise MiiiiSearchError(f"{path} is not {kind}: {str(error).splitlines()[0]}") from None
    if not isinstance(tree, dict):
        raise MiiiiSearchError(f"{path} must hold a table of keys and values, but holds a {type(tree).__name__}")
    return tree


def _parse_value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _explain(model: type[BaseModel], error: ValidationError) -> str:
    """The first mistake in one line."""
    mistakes = error.errors(include_url=False)
    # A union reports a mistake for each member; the clearest of them is said.
    mistake = min(mistakes, key=_vagueness)
    names = [str(part) for part in mistake["loc"]]
    if mistake["type"] == "extra_forbidden":
        # The last is the user's own, whatever it looks like.
        parents, name = _fields(names[:-1]), names[-1]
        return f"unknown key `{'.'.join([*parents, name])}`{_nearest_field(model, parents, name)}"
    key = ".".join(_fields(names))
    if mistake["type"] == "missing":
        return f"`{key}` is missing"
    if mistake["type"] == "tuple_type" and key.startswith("space."):
        return f"{key} must be a list of values or {{low = ..., high = ...}}, but is {json.dumps(mistake['input'])}"
    message = (
        mistake["msg"].removeprefix("Value error, ").replace("Input should", "must").replace("Tuple should", "must")
    )
    if mistake["type"] == "value_error":  # it names the field, and a table within a table can be any of several
        return f"{key}: {message}" if "." in key else message
    return f"{key} {message}, but is {json.dumps(mistake['input'], default=str)}"


def _vagueness(mistake: ErrorDetails) -> int:
    """Where a mistake is placed among those of a union's members; the first is said."""
    if mistake["type"] in ("extra_forbidden", "value_error"):
        return ("extra_forbidden", "value_error").index(mistake["type"])
    is_a_table = mistake["type"] == "tuple_type" and isinstance(mistake["input"], dict)
    return 3 if is_a_table or mistake["loc"][-1:] == ("int",) else 2  # a Range, and a float, is what was meant


def _fields(names: Sequence[str]) -> list[str]:
    """The fields on the way to a mistake, without pydantic's names of validators and of a union's members."""
    return [name for name in names if not name.startswith("function-") and name not in MEMBERS]


def _nearest_field(model: type[BaseModel], parents: Sequence[str], name: str) -> str:
    """The right key for a wrong one: in the same table, or elsewhere if none is near there."""
    keys = list(_field_names(model))
    siblings = [key for key in keys if key.split(".")[:-1] == list(parents)]
    for group in (siblings, keys):
        leaves = {key.split(".")[-1]: key for key in reversed(group)}
        if close := difflib.get_close_matches(name, leaves, n=1):
            return f"; did you mean `{leaves[close[0]]}`?"
    return f"; one of {', '.join(key.split('.')[-1] for key in siblings)}" if siblings else ""


def _field_names(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        yield f"{prefix}{name}"
        annotation = field.annotation
        inner = get_args(annotation) if get_origin(annotation) in (Union, types.UnionType) else (annotation,)
        for type_ in inner:
            if isinstance(type_, type) and issubclass(type_, BaseModel):
                yield from _field_names(type_, f"{prefix}{name}.")
        if name == "space":
            for key in (*Hyperparameters.model_fields, *SEARCHED_FIELDS):
                yield f"{prefix}space.{key}"
                yield from (f"{prefix}space.{key}.{bound}" for bound in Range.model_fields)
