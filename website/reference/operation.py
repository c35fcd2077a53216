"""The pages of metrics, exit codes and environment variables."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import typer

from miiii_search import environment
from miiii_search.cli import exit_codes
from miiii_search.cli.commands import app
from miiii_search.cli.environment_variables import WITHOUT_OPTION
from miiii_search.metrics import prometheus
from miiii_search.training import jax_environment
from miiii_search.worker import worker
from website.reference.markdown import code, module_docstrings, page, parse, table, wrap


def metrics() -> str:
    """Return the page of the metrics."""
    found: dict[str, tuple[str, str, list[str]]] = {}
    for process, module in (("worker", worker), ("coordinator", prometheus)):
        for name, kind, text in metrics_of(module):
            found.setdefault(name, (kind, text, []))[2].append(process)
    rows = [(code(name), kind, " and ".join(processes), text) for name, (kind, text, processes) in found.items()]
    return page(
        "Metrics",
        "Which metrics do workers and coordinators serve for Prometheus?",
        "`--metrics-port` turns them on, at `/metrics`. prometheus-client adds its own metrics of the\n"
        "process, such as `process_resident_memory_bytes`.",
        table(("metric", "type", "from", "meaning"), rows),
    )


def metrics_of(module: ModuleType) -> Iterator[tuple[str, str, str]]:
    """Yield name, type and help text of each metric that a module constructs."""
    for node in ast.walk(parse(module)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Metric":
            name, text = (read(argument, module) for argument in node.args[:2])
            is_total = any(keyword.arg == "is_total" for keyword in node.keywords)
            yield name + "_total" * is_total, "counter" if is_total else "gauge", text


def read(node: ast.expr, module: ModuleType) -> str:
    """Return the text of a literal or of a module's constant."""
    return str(getattr(module, node.id) if isinstance(node, ast.Name) else ast.literal_eval(node))


def exit_codes_page() -> str:
    """Return the page of the exit codes."""
    texts = module_docstrings(exit_codes)
    names = {"SECOND_SIGNAL": "128 + signal"}
    rows = [(code(names.get(name, getattr(exit_codes, name))), text) for name, text in texts.items()]
    return page(
        "Exit codes",
        "How does a command say whether it succeeded?",
        "A scheduler may need another code after a request to stop: `work --exit-code-on-stop` chooses it.",
        table(("code", "meaning"), rows),
    )


def environment_variables() -> str:
    """Return the page of the environment variables."""
    options: dict[str, list[tuple[str, str, str]]] = {}
    group: Any = typer.main.get_command(app)
    for name, command in group.commands.items():
        for option in command.params if not command.hidden else ():
            for variable in [option.envvar] if isinstance(option.envvar, str) else option.envvar or []:
                options.setdefault(variable, []).append((option.opts[0], option.help or "", name))
    return page(
        "Environment variables",
        "Which environment variables does the program read?",
        wrap(
            "White space around the value of a `MIIII_*` variable is removed, and control characters in it are "
            "refused. A variable that starts with `MIIII_` and is not listed here has no effect, and every command "
            "warns about it."
        ),
        "## Instead of options",
        table(
            ("variable", "option", "meaning", "commands"),
            [option_row(variable, uses) for variable, uses in sorted(options.items())],
        ),
        "## Without an option",
        table(("variable", "meaning"), [(code(name), text) for name, text in WITHOUT_OPTION.items()]),
        "## Folders",
        table(
            ("variable", "meaning"),
            [
                ("`XDG_STATE_HOME`", summary_of(environment.state_folder)),
                ("`XDG_CACHE_HOME`", summary_of(environment.cache_folder)),
            ],
        ),
        "## Variables of JAX",
        wrap(
            "Variables and flags that could change a result are removed before JAX is imported, and commands that "
            "train say so. These are kept:"
        ),
        table(
            ("kept", "which"),
            [
                ("variables", ", ".join(map(code, sorted(jax_environment.ALLOWED_JAX_VARIABLES)))),
                ("flags in `XLA_FLAGS`", ", ".join(map(code, jax_environment.ALLOWED_XLA_FLAGS))),
            ],
        ),
    )


def option_row(variable: str, uses: list[tuple[str, str, str]]) -> tuple[str, str, str, str]:
    """Return the row of a variable that replaces an option, with the text that most commands have."""
    [(text, _)] = Counter(text for _, text, _ in uses).most_common(1)
    commands = [code(command) for _, _, command in uses]
    listed = ", ".join(commands) if len(commands) <= 6 else f"{len(commands)} commands"
    return code(variable), code(uses[0][0]), text, listed


def summary_of(function: Any) -> str:
    """Return the first line of a function's docstring without its verb."""
    text: str = function.__doc__.splitlines()[0].removeprefix("Return the ")
    return text[0].upper() + text[1:]
