from .conditional import (
    check_conditions,
    conditional_dimensions,
    count_points,
    describe_condition,
    enumerate_points,
    used_part,
)
from .overrides import apply_settings, describe_differences, read_config_file, to_tree, validate
from .presets import PRESETS, Preset, get_configuration, get_preset
from .search_space import Dimension, Point, PointKey, Range, Value, point_key
from .study_sections import Budget, Pruning, Replicates, rule_title
from .study_spec import StudySpec, rungs
from .suggestions import suggest

__all__ = [
    "PRESETS",
    "Budget",
    "Dimension",
    "Point",
    "PointKey",
    "Preset",
    "Pruning",
    "Range",
    "Replicates",
    "StudySpec",
    "Value",
    "apply_settings",
    "check_conditions",
    "conditional_dimensions",
    "count_points",
    "describe_condition",
    "describe_differences",
    "enumerate_points",
    "get_configuration",
    "get_preset",
    "point_key",
    "read_config_file",
    "rule_title",
    "rungs",
    "suggest",
    "to_tree",
    "used_part",
    "validate",
]
