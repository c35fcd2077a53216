"""Hyperparameters as text."""

from __future__ import annotations

import pytest

from miiii_search.experiment.text import SHORT_NAMES, format_params, format_value


@pytest.mark.parametrize(
    ("value", "text"),
    [(12345, "12345"), (1 / 3, "0.3333"), (0.0003, "0.0003"), (3e-05, "3e-05"), (128, "128"), ("batch", "batch")],
)
def test_integers_are_whole_and_floats_have_four_digits(value: object, text: str) -> None:
    assert format_value(value) == text


def test_names_may_be_short() -> None:
    params = {"grokfast_lambda": 0.5, "d_model": 128, "dropout": 0.1}
    assert format_params(params) == "grokfast_lambda 0.5, d_model 128, dropout 0.1"
    assert format_params(params, SHORT_NAMES) == "λ 0.5, d 128, dropout 0.1"
