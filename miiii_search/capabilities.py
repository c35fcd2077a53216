"""What an installation can do: the coordinator's image has neither JAX nor what draws figures."""

from __future__ import annotations

import functools
from collections.abc import Callable
from importlib.util import find_spec
from typing import ParamSpec, TypeVar

from miiii_search.errors import MiiiiSearchError

P = ParamSpec("P")
T = TypeVar("T")

FIGURES = ("matplotlib", "scipy", "safetensors", "threadpoolctl")
TRAINING = ("jax", "jaxlib", "flax", "optax", *FIGURES)
"""Modules that are installed where trials are trained, and not where a study is only coordinated."""


def missing_modules(modules: tuple[str, ...]) -> list[str]:
    """The modules that are not installed. Imports none of them."""
    return [name for name in modules if find_spec(name) is None]


def is_coordinator_install() -> bool:
    """Whether this is an installation for coordinator and dashboard alone."""
    return len(missing_modules(TRAINING[:4])) == 4


def requires(modules: tuple[str, ...], command: Callable[P, T]) -> Callable[P, T]:
    """Make a command refuse, before it does anything, where modules are missing that it works with."""
    name = command.__name__.strip("_").replace("_", "-")

    @functools.wraps(command)
    def checked(*args: P.args, **kwargs: P.kwargs) -> T:
        if lacking := missing_modules(modules):
            raise MiiiiSearchError(explain_missing(name, lacking))
        return command(*args, **kwargs)

    return checked


def explain_missing(command: str, lacking: list[str]) -> str:
    """The line for a command that cannot run here."""
    return (
        f"`{command}` cannot run here: {', '.join(lacking)} {'is' if len(lacking) == 1 else 'are'} not installed"
        f"{', as in the image of the coordinator' * is_coordinator_install()}; in an installation of containers, type "
        f"docker compose exec worker miiii-search {command} ..., elsewhere pip install miiii-search"
    )
