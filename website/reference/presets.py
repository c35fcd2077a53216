"""The page of the presets: their studies, search spaces and configurations."""

from __future__ import annotations

from collections.abc import Iterator

from miiii_search.config.overrides import flatten, to_tree
from miiii_search.config.presets import PRESETS, Preset
from miiii_search.config.search_space import Range
from miiii_search.config.study_spec import StudySpec
from miiii_search.experiment.spec import Experiment, Hyperparameters
from website.reference.markdown import code, page, table, wrap


def presets() -> str:
    """Return the page."""
    overview = [
        (f"[`{name}`](#{name})", preset.summary, f"{preset.spec.n_trials:,}", f"{preset.spec.experiment.epochs:,}")
        for name, preset in PRESETS.items()
    ]
    parts = [table(("preset", "study", "trials", "epochs"), overview)]
    for name, preset in PRESETS.items():
        parts += describe(name, preset)
    return page(
        "Presets",
        "Which studies and configurations come with the package?",
        "`--preset NAME` chooses one. The commands `up`, `create` and `coordinate` search its space;\n"
        "`train` trains one of its configurations. What is not listed here has the default of the\n"
        "[configuration](configuration.md).",
        *parts,
    )


def describe(name: str, preset: Preset) -> Iterator[str]:
    """Yield the section of a preset: what it changes, its space, and its configurations."""
    spec = preset.spec
    yield f"## `{name}`"
    yield wrap(f"{preset.summary}.")
    yield f"    miiii-search up --preset {name}"
    if changed := list(changes(spec)):
        yield table(("field", "value"), changed)
    yield table(("searched", "values"), [(code(key), values(dimension)) for key, dimension in spec.space.items()])
    # Options that are off are left out of the data.
    names = list(dict.fromkeys(name for one in preset.configurations.values() for name in one.model_dump()))
    rows = [
        (code(key), *(number(getattr(one, field)) for field in names)) for key, one in preset.configurations.items()
    ]
    if rows:
        yield table(("configuration", *map(code, names)), rows)


def changes(spec: StudySpec) -> Iterator[tuple[str, str]]:
    """Yield the fields with other values than by default, except the space and the preset's name."""
    standard = {
        **{f"experiment.{key}": value for key, value in flatten(to_tree(Experiment()))},
        **{f"hyperparameters.{key}": value for key, value in flatten(to_tree(Hyperparameters()))},
        **dict(flatten(to_tree(StudySpec(space={"dropout": (0.1,)})))),
    }
    for key, value in flatten(to_tree(spec)):
        if key.split(".")[0] not in ("space", "preset") and value != {} and standard.get(key) != value:
            yield code(key), number(value)


def values(dimension: object) -> str:
    """Return the values of a dimension."""
    assert not isinstance(dimension, Range)
    return ", ".join(map(number, dimension))  # type: ignore[call-overload]


def number(value: object) -> str:
    """Return a value in code font, rounded to four digits."""
    return code(f"{value:.4g}" if isinstance(value, float) else value)
