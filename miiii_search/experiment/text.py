"""Hyperparameters as text, the same in logs, tables, figures and notes."""

from __future__ import annotations

from collections.abc import Mapping

SHORT_NAMES = {
    "grokfast_lambda": "λ",
    "weight_decay": "wd",
    "learning_rate": "lr",
    "d_model": "d",
    "n_heads": "heads",
}
"""Short names of hyperparameters, after Table 1 of the paper, for tables in a terminal."""


def format_value(value: object) -> str:
    """Return a hyperparameter's value as text; a float gets four significant digits."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def format_params(params: Mapping[str, object], names: Mapping[str, str] | None = None) -> str:
    """Return hyperparameters in one line, such as `dropout 0.1, d_model 128`.

    Args:
        params: Values by name.
        names: Names to show instead, such as `SHORT_NAMES`. Other names are shown as they are.
    """
    shown = names or {}
    return ", ".join(f"{shown.get(name, name)} {format_value(value)}" for name, value in params.items())
