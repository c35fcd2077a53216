"""Checks of what is installed. The coordinator's image has neither JAX nor the libraries that draw figures."""

from __future__ import annotations

import functools
from collections.abc import Callable
from importlib.util import find_spec
from typing import ParamSpec, TypeVar

from miiii_search.errors import MiiiiSearchError

P = ParamSpec("P")
T = TypeVar("T")

JAX = ("jax", "jaxlib", "flax", "optax")
FIGURES = ("matplotlib", "scipy", "safetensors", "threadpoolctl")
"""Modules that draw figures and write weights."""
TRAINING = (*JAX, *FIGURES)
"""Modules that training needs. An installation that only coordinates has none of them."""


def missing_modules(modules: tuple[str, ...]) -> list[str]:
    """Return those of the modules that are not installed, without importing any."""
    return [name for name in modules if find_spec(name) is None]


def is_coordinator_install() -> bool:
    """Return whether this installation has only what the coordinator and the dashboard need."""
    return len(missing_modules(JAX)) == len(JAX)


def requires(modules: tuple[str, ...], command: Callable[P, T]) -> Callable[P, T]:
    """Wrap a command so that it fails at once if modules that it needs are not installed.

    Args:
        modules: The modules that the command needs.
        command: The command's function.

    Returns:
        The command. It raises `MiiiiSearchError`, which says where the command can be run, if a module is missing.
    """
    name = command.__name__.strip("_").replace("_", "-")

    @functools.wraps(command)
    def checked(*args: P.args, **kwargs: P.kwargs) -> T:
        if missing := missing_modules(modules):
            raise MiiiiSearchError(explain_missing(name, missing))
        return command(*args, **kwargs)

    return checked


def explain_missing(command: str, missing: list[str]) -> str:
    """Return one line that says why a command cannot run here, and where it can."""
    return (
        f"`{command}` cannot run here: {', '.join(missing)} {'is' if len(missing) == 1 else 'are'} not installed"
        f"{', as in the image of the coordinator' * is_coordinator_install()}; in an installation of containers, type "
        f"docker compose exec worker miiii-search {command} ..., elsewhere pip install miiii-search"
    )
