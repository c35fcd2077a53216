"""The command `plan`: a study's predicted time as two tables, and what the prediction assumes."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.text import Text

from miiii_search.cli.views.formatting import format_duration
from miiii_search.cli.views.tables import Column, FittedTable
from miiii_search.config.study_sections import rule_title
from miiii_search.study.plan import EpochShare, Plan

EVERYTHING = EpochShare(1.0, 1.0, 1.0)


def plan_view(plan: Plan) -> RenderableType:
    """Return the plan for a console of any width."""
    parts: list[RenderableType] = [_title(plan), Text()]
    if plan.gpu is not None:
        parts += [_widths_table(plan), Text()]
    parts += [_totals_table(plan), Text(), Text(_heading(plan), "bold")]
    return Group(*parts, *(Text(f"- {line}", overflow="fold") for line in assumptions(plan)))


def assumptions(plan: Plan) -> list[str]:
    """Return what the figures of a plan assume, one sentence or two per line."""
    lines = []
    if plan.gpu is not None:
        lines += [
            f"Speed: the roofline of the compiled programs on an {plan.gpu.name}, in {plan.precision}. It is the "
            "slowest of arithmetic, memory traffic and launches. See docs/research/performance.md.",
            "Lanes: memory as the compiler reports it. All lanes are busy until the last trial ends.",
            "Heads: their number makes no difference.",
        ]
    else:
        lines.append("Speed: what was measured holds for every trial, whatever its width.")
    if plan.shares.keys() - {"none"}:
        lines.append(
            "Pruning: the share of epochs that it left on recorded curves of smaller networks, from the least to the "
            "most pruned set. See docs/research/pruning.md."
        )
    else:
        lines.append("Pruning: without a rule, runs end when they are solved. See docs/research/pruning.md.")
    if plan.rule not in plan.shares:
        lines.append(f"The rule {rule_title(plan.rule)} has no row: it was not recorded with your settings.")
    return lines


def _title(plan: Plan) -> Text:
    name = f"Preset {plan.preset}" if plan.preset else "This study"
    where = f"{plan.gpus} × the measured speed" if plan.gpus > 1 else "the measured speed"
    if plan.gpu is not None:
        where = f"{plan.gpus} × {plan.gpu.name}"
    return Text(f"{name} on {where}: {plan.trials:,} trials of up to {plan.epochs:,} epochs", "bold")


def _heading(plan: Plan) -> str:
    if plan.gpu is None:
        return "The time is a prediction. It assumes:"
    return "These are predictions. Nothing was measured on this GPU. They assume:"


def _widths_table(plan: Plan) -> FittedTable:
    widths = plan.widths
    return FittedTable(
        [
            Column("d_model", [str(width.d_model) for width in widths]),
            Column("trials", [f"{width.trials:,}" for width in widths]),
            Column("lanes that fit", [f"{width.lanes_that_fit:,}" for width in widths]),
            Column("lanes", [f"{width.lanes:,}" for width in widths]),
            Column("epochs/s per GPU", [f"{width.lane_epochs_per_second:,.0f}" for width in widths]),
            Column("trials/h per GPU", [f"{width.trials_per_hour(plan.epochs):,.1f}" for width in widths]),
        ]
    )


def _totals_table(plan: Plan) -> FittedTable:
    names = {"none": "no pruning, runs stop when solved"}
    rows = [("every epoch of every trial", EVERYTHING)]
    rows += [(names.get(rule, f"pruned by {rule_title(rule)}"), share) for rule, share in plan.shares.items()]
    shares = [share for _, share in rows]
    hours = "GPU-hours" if plan.gpu is not None else "machine-hours"
    return FittedTable(
        [
            Column("", [name for name, _ in rows], align_left=True),
            Column("epochs", [f"{share.mean:.0%}" for share in shares]),
            Column("time", [format_duration(plan.seconds(share.mean)) for share in shares]),
            Column(hours, [f"{share.mean * plan.gpu_seconds / 3600:,.2f}" for share in shares]),
            Column("range of the time", [_range(plan, share) for share in shares], drop_order=1),
        ]
    )


def _range(plan: Plan, share: EpochShare) -> str:
    if share == EVERYTHING:
        return ""
    return f"{format_duration(plan.seconds(share.low))} to {format_duration(plan.seconds(share.high))}"
