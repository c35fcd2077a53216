"""The page of a study's specification: every field with its type, default, range and reason."""

from __future__ import annotations

import types
import typing
from collections.abc import Iterator
from typing import Any

from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from miiii_search.config.search_space import Range
from miiii_search.config.study_sections import PRUNING_RULES, Budget, Pruning, Replicates
from miiii_search.config.study_spec import SAMPLERS, StudySpec
from miiii_search.experiment.spec import Annealing, Experiment, Hyperparameters, LinearDecay
from website.reference.markdown import class_docstrings, code, page, table, wrap

SECTIONS: dict[str, tuple[type[BaseModel], str]] = {
    "The study": (StudySpec, ""),
    "experiment": (Experiment, "experiment."),
    "hyperparameters": (Hyperparameters, "hyperparameters."),
    "replicates": (Replicates, "replicates."),
    "budget": (Budget, "budget."),
    "pruning": (Pruning, "pruning."),
    "experiment.annealing": (Annealing, "experiment.annealing."),
    "A schedule of the annealing": (LinearDecay, "experiment.annealing.NAME."),
    "A range in the space": (Range, "space.NAME."),
}

CHOICES = {"sampler": SAMPLERS, "pruning.rule": PRUNING_RULES}
"""Fields whose values are checked by the specification, not by their type."""

TYPES = {int: "integer", float: "number", str: "text", bool: "true or false"}
BOUNDS = {Ge: "≥", Gt: ">", Le: "≤", Lt: "<"}


def configuration() -> str:
    """Return the page."""
    parts = []
    for title, (model, prefix) in SECTIONS.items():
        heading = f"## {title}" if " " in title else f"## `{title}`"
        parts += [
            heading,
            wrap(model.__doc__ or ""),
            table(("field", "type", "default", "range", "meaning"), rows(model, prefix)),
        ]
    return page(
        "Configuration",
        "Which fields does the specification of a study have, and what do they mean?",
        "A specification comes from a preset (`--preset`) or from a TOML or JSON file (`--spec`).\n"
        "`--set` changes single fields: `--set experiment.p=53 --set 'space.dropout=[0.0, 0.1]'`.\n"
        "`miiii-search create --preset demo --dry-run` prints one as a file.",
        *parts,
    )


def rows(model: type[BaseModel], prefix: str) -> Iterator[tuple[str, ...]]:
    """Yield one row of the table per field of a model.

    Raises:
        ValueError: A field has no docstring.
    """
    texts = class_docstrings(model)
    for name, field in model.model_fields.items():
        if name not in texts:
            raise ValueError(f"{model.__name__}.{name} has no docstring")
        key = prefix + name
        kind, bounds = describe(field.annotation, field.metadata)
        if key in CHOICES:
            bounds = ", ".join(map(code, CHOICES[key]))
        yield code(key), kind, default_of(field), bounds, " ".join(texts[name].split())


def default_of(field: FieldInfo) -> str:
    """Return the default of a field. Sections have the defaults of their own fields."""
    if field.default is PydanticUndefined:
        return "required" if field.is_required() else "empty"
    if field.default is None:
        return "unset"
    if isinstance(field.default, BaseModel):
        return "see below"
    if field.default == ():
        return "empty"
    value = str(field.default).lower() if isinstance(field.default, bool) else field.default
    return code(round(value, 6) if isinstance(value, float) else value)


def describe(kind: Any, metadata: list[Any]) -> tuple[str, str]:
    """Return the type of a field in words, and its range."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return "section", ""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Literal:
        return TYPES[type(arguments[0])], ", ".join(map(code, arguments))
    if origin is typing.Annotated:
        return describe(arguments[0], [*metadata, *inner_metadata(arguments[1:])])
    if origin in (typing.Union, types.UnionType):
        named = [describe(argument, metadata) for argument in arguments if argument is not type(None)]
        return " or ".join(dict.fromkeys(text for text, _ in named)), named[0][1]
    if origin is dict:
        return "table", ""
    if origin is tuple:
        return "list", ""
    limits = [(sign, value) for item in metadata for sign, value in bounds_of(item)]
    return TYPES.get(kind, str(kind)), " and ".join(f"{sign} {value:,}" for sign, value in limits)


def inner_metadata(items: tuple[Any, ...]) -> list[Any]:
    """Return the constraints of an annotated type, also those within pydantic's `Field`."""
    return [inner for item in items for inner in (item.metadata if isinstance(item, FieldInfo) else [item])]


def bounds_of(constraint: object) -> Iterator[tuple[str, float]]:
    """Yield the sign and the value of a bound; nothing for other constraints."""
    for kind, sign in BOUNDS.items():
        if isinstance(constraint, kind):
            yield sign, getattr(constraint, kind.__name__.lower())
