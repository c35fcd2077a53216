"""Studies and configurations with a name."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from miiii_search.config.study_spec import Pruning, StudySpec, suggest
from miiii_search.errors import MiiiiSearchError
from miiii_search.experiment.spec import Annealing, Experiment, Hyperparameters, LinearDecay

TABLE_1: dict[str, Any] = {
    "dropout": (0.0, 1 / 2, 1 / 5, 1 / 10),
    "grokfast_lambda": (0.0, 1 / 2, 2.0),
    "weight_decay": (0.0, 1 / 10, 1 / 2, 1.0),
    "d_model": (128, 256),
    "learning_rate": (3e-4, 1e-4),
    "n_heads": (4, 8),
}
"""The paper's search space: 4·3·4·2·2·2 = 384 configurations."""

TABLE_2 = Hyperparameters(
    dropout=1 / 10, grokfast_lambda=1 / 2, weight_decay=1 / 3, d_model=256, learning_rate=3e-4, n_heads=4
)
"""The paper's best. Its weight decay is not in Table 1, so it is a configuration of its own."""

AUTHORS_RUN = TABLE_2.model_copy(update={"weight_decay": 0.33})
"""Table 2 as the authors' configuration file has it (public code, commit d201562)."""

AUTHORS_EXPERIMENT = Experiment(
    train_fraction=0.5,
    validation_samples=5385,  # that code validates on all 6,385 that are left; here 1,000 of them are the test split
    dropout_mask="batch",
    initialisation="public-code",
    grokfast_start="zero",
    loss_reduction="mean",
)
"""What the paper's figures were made with, as far as its public code at commit d201562 tells."""


FAST = Hyperparameters(dropout=0.2, grokfast_lambda=2.0, weight_decay=1.0, d_model=256, learning_rate=1e-3, n_heads=4)
"""All 29 tasks on two cores; docs/reproduction.md tells how it was found."""


@dataclass(frozen=True)
class Preset:
    """A study, and single configurations to train; the first is the default one."""

    summary: str
    spec: StudySpec
    configurations: dict[str, Hyperparameters] = field(default_factory=dict)


PRESETS: dict[str, Preset] = {
    "demo": Preset(
        "nanda at p = 31: 12 configurations, minutes on a laptop, and some of them grok",
        StudySpec(
            preset="demo",
            experiment=Experiment(p=31, task="nanda", train_fraction=0.6, validation_samples=200, epochs=3072),
            hyperparameters=Hyperparameters(d_model=128, n_heads=4, learning_rate=1e-3),
            space={"dropout": (0.0, 0.1), "grokfast_lambda": (0.0, 0.5, 2.0), "weight_decay": (0.5, 1.0)},
        ),
        {
            "demo-best": Hyperparameters(
                dropout=0.1, grokfast_lambda=0.5, weight_decay=1.0, d_model=128, learning_rate=1e-3, n_heads=4
            )
        },
    ),
    "paper": Preset(
        "Table 1 on miiii at p = 113: 384 configurations of 65,536 epochs",
        StudySpec(preset="paper", space=TABLE_1),
        {"paper-best": TABLE_2},
    ),
    "fast": Preset(
        "miiii at p = 113, solved on two cores in 44 minutes: 90 % of the samples, and dropout that falls",
        StudySpec(
            preset="fast",
            experiment=Experiment(
                train_fraction=0.9,
                validation_samples=600,
                epochs=12288,
                annealing=Annealing(
                    dropout=LinearDecay(start=2048, end=6144, share=0.25),
                    learning_rate=LinearDecay(start=9216, end=11264, share=0.1),
                ),
            ),
            hyperparameters=FAST,
            space={"dropout": (FAST.dropout,)},
            pruning=Pruning(rule="none"),
        ),
        {"fast-best": FAST},
    ),
    "narrow": Preset(
        "miiii at p = 113 for two cores: narrow networks that generalise before they memorise, though not on all tasks",
        StudySpec(
            preset="narrow",
            experiment=Experiment(train_fraction=0.7, epochs=8192),
            hyperparameters=Hyperparameters(weight_decay=1.0, learning_rate=1e-3),
            space={"dropout": (0.1, 0.2), "d_model": (128, 192), "weight_decay": (0.5, 1.0)},
        ),
        {"narrow-best": Hyperparameters(dropout=0.2, weight_decay=1.0, d_model=192, learning_rate=1e-3)},
    ),
    "authors-code": Preset(
        "Table 1 as the paper's authors ran it: their share, masks, initialisation, filter and loss",
        StudySpec(preset="authors-code", experiment=AUTHORS_EXPERIMENT, space=TABLE_1),
        {"paper-best": AUTHORS_RUN},
    ),
}


def get_preset(name: str) -> Preset:
    """The preset of this name. Raises `MiiiiSearchError`."""
    if name not in PRESETS:
        raise MiiiiSearchError(f"there is no preset `{name}`{suggest(name, list(PRESETS))}")
    return PRESETS[name]


def get_configuration(preset: str, name: str | None) -> tuple[Experiment, Hyperparameters]:
    """A named configuration of a preset, or its default one. Raises `MiiiiSearchError`."""
    chosen = get_preset(preset)
    if name is None:
        name = next(iter(chosen.configurations))
    if name not in chosen.configurations:
        raise MiiiiSearchError(
            f"preset {preset} has no configuration `{name}`{suggest(name, list(chosen.configurations))}"
        )
    return chosen.spec.experiment, chosen.configurations[name]
