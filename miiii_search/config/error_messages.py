"""Error messages for invalid specifications, in one line each."""

from __future__ import annotations

import difflib
import json
import types
from collections.abc import Iterator, Sequence
from typing import Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from miiii_search.config.search_space import LIST_TAG, RANGE_TAG, SEARCHED_FIELDS, Range
from miiii_search.experiment.spec import Hyperparameters

UNION_MEMBERS = (RANGE_TAG, LIST_TAG, "float", "int", "str", "bool")
"""Names that pydantic adds to the location of a mistake in a value of several possible types."""


def explain(model: type[BaseModel], error: ValidationError) -> str:
    """Return the first mistake in one line.

    Unknown keys come before other mistakes, since a misspelled key also makes a required one missing.

    Args:
        model: The model whose validation failed.
        error: The error that the validation raised.
    """
    mistake = min(error.errors(include_url=False), key=lambda mistake: mistake["type"] != "extra_forbidden")
    names = [str(part) for part in mistake["loc"]]
    if mistake["type"] == "extra_forbidden":
        # The last name is the unknown key itself, so it is shown as it is.
        parents, name = _field_path(names[:-1]), names[-1]
        return f"unknown key `{'.'.join([*parents, name])}`{_similar_field(model, parents, name)}"
    key = ".".join(_field_path(names))
    if mistake["type"] == "missing":
        return f"`{key}` is missing"
    if mistake["type"] == "tuple_type" and key.startswith("space."):
        return f"{key} must be a list of values or {{low = ..., high = ...}}, but is {json.dumps(mistake['input'])}"
    message = (
        mistake["msg"].removeprefix("Value error, ").replace("Input should", "must").replace("Tuple should", "must")
    )
    if mistake["type"] == "value_error":  # names its field, but not the table that the field is in
        return f"{key}: {message}" if "." in key else message
    return f"{key} {message}, but is {json.dumps(mistake['input'], default=str)}"


def field_names(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Yield the dotted names of all fields of a model and of the models in it.

    Args:
        model: The model.
        prefix: What all names begin with, including its final dot.
    """
    for name, field in model.model_fields.items():
        yield f"{prefix}{name}"
        annotation = field.annotation
        inner = get_args(annotation) if get_origin(annotation) in (Union, types.UnionType) else (annotation,)
        for type_ in inner:
            if isinstance(type_, type) and issubclass(type_, BaseModel):
                yield from field_names(type_, f"{prefix}{name}.")
        if name == "space":
            for key in (*Hyperparameters.model_fields, *SEARCHED_FIELDS):
                yield f"{prefix}space.{key}"
                yield from (f"{prefix}space.{key}.{bound}" for bound in Range.model_fields)


def _field_path(names: Sequence[str]) -> list[str]:
    """Return the fields in the location of a mistake, without the names that pydantic adds."""
    return [name for name in names if not name.startswith("function-") and name not in UNION_MEMBERS]


def _similar_field(model: type[BaseModel], parents: Sequence[str], name: str) -> str:
    """Return a suggestion for an unknown key: from the same table, or from any other if none there is similar."""
    keys = list(field_names(model))
    siblings = [key for key in keys if key.split(".")[:-1] == list(parents)]
    for group in (siblings, keys):
        leaves = {key.split(".")[-1]: key for key in reversed(group)}
        if close := difflib.get_close_matches(name, leaves, n=1):
            return f"; did you mean `{leaves[close[0]]}`?"
    return f"; one of {', '.join(key.split('.')[-1] for key in siblings)}" if siblings else ""
