"""A study as data: its specification, the presets, and settings that override single keys.

Nothing in here needs JAX or a database.
"""

from miiii_search.config.overrides import apply_settings, read_config_file, to_tree, validate
from miiii_search.config.presets import PRESETS, Preset, get_configuration, get_preset
from miiii_search.config.search_space import Dimension, Point, Range, Value
from miiii_search.config.study_sections import Budget, Pruning, Replicates
from miiii_search.config.study_spec import StudySpec, rungs

__all__ = [
    "PRESETS",
    "Budget",
    "Dimension",
    "Point",
    "Preset",
    "Pruning",
    "Range",
    "Replicates",
    "StudySpec",
    "Value",
    "apply_settings",
    "get_configuration",
    "get_preset",
    "read_config_file",
    "rungs",
    "to_tree",
    "validate",
]
