"""Question: does a study survive faults at random times, and how much work do they cost?

    python bench/faults.py --minutes 60 --seed 1 --json faults.json

Studies are trained one after the other by two workers, two coordinators and one PostgreSQL server, all real processes.
Each worker has a disk and a network of its own. Faults are injected at random times: processes are killed, stopped and
paused; connections are cut, silent, half-closed and slow. The database is stopped and crashed, checkpoints are
truncated and damaged, and a disk disappears. Every trial is compared with the same trial of a study without faults: the
SHA-256 of its weights, and all its reports.

The output counts the faults of each kind, the trials that were resumed or started again, and the epochs trained twice.
The last line must have zeros only; otherwise the script ends with an error.
"""

from __future__ import annotations

import json
import random
import sys
import tempfile
import time
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from miiii_search.testing.fault_study import EPOCHS, run_without_faults
from miiii_search.testing.faults import FAULTS, run_with_faults
from miiii_search.testing.faulty_cluster import FaultReport

TRIALS = 24
"""Number of trials of a study."""


def main() -> None:
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    minutes_help = "start no study after this time (default %(default)s)"
    parser.add_argument("--minutes", type=float, default=60.0, help=minutes_help)
    parser.add_argument("--seed", type=int, help="seed of the faults and their times (default: a random seed)")
    parser.add_argument("--quick", action="store_true", help="stop after three minutes")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to this file")
    arguments = parser.parse_args()
    minutes = 3.0 if arguments.quick else arguments.minutes
    seed = random.SystemRandom().randrange(10**6) if arguments.seed is None else arguments.seed
    print(f"seed {seed}, {minutes:g} minutes, studies of {TRIALS} trials of {EPOCHS:,} epochs", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        total = run_studies(Path(folder), minutes, random.Random(seed))
    print(format_table(total))
    if arguments.json:
        arguments.json.write_text(json.dumps(to_json(total, seed), indent=2) + "\n")
    if not total.is_intact:
        sys.exit("the faults lost or changed results")


def run_studies(folder: Path, minutes: float, generator: random.Random) -> FaultReport:
    """Train studies with faults one after the other, and return the sum of their reports."""
    reference = run_without_faults(folder / "without-faults", TRIALS)
    began, total, studies = time.monotonic(), FaultReport(), 0
    while time.monotonic() - began < 60 * minutes:
        studies += 1
        # Below and above the duration of a lease, and above the time after which a connection counts as lost.
        max_outage = generator.choice([6.0, 12.0, 45.0])
        faults = endless_faults(generator)
        report = run_with_faults(folder / f"study-{studies}", reference, TRIALS, faults, generator, max_outage)
        add(total, report)
        print(f"study {studies}: {report.seconds:.0f} s, {report.faults.total()} faults, {losses(report)}", flush=True)
    return total


def endless_faults(generator: random.Random) -> Iterator[str]:
    """Yield random faults, each kind with the same probability."""
    while True:
        yield generator.choice(list(FAULTS))


def add(total: FaultReport, report: FaultReport) -> None:
    """Add a report to the total."""
    total.faults += report.faults
    total.resumed += report.resumed
    for name in (*LOSSES, "trials", "restarted", "retrained_epochs", "seconds"):
        setattr(total, name, getattr(total, name) + getattr(report, name))


LOSSES = ("lost", "duplicated", "reports_lost", "different")
"""Fields of a report that are 0 if nothing was lost."""


def losses(report: FaultReport) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {getattr(report, name)}" for name in LOSSES)


def format_table(total: FaultReport) -> str:
    rows = [f"{fault:<26}{count:>6}" for fault, count in sorted(total.faults.items())]
    trained = total.trials * EPOCHS
    rows += [
        f"{'all faults':<26}{total.faults.total():>6}",
        "",
        f"{total.trials} trials in {total.seconds / 60:.0f} min; resumed above epoch 0: {len(total.resumed)} times, "
        f"restarted at epoch 0: {total.restarted} times",
        f"epochs trained twice: {total.retrained_epochs:,} of {trained:,} "
        f"({total.retrained_epochs / max(trained, 1):.1%})",
        losses(total),
    ]
    return "\n".join(rows)


def to_json(total: FaultReport, seed: int) -> dict[str, Any]:
    values = asdict(total)
    resumed = values.pop("resumed")
    return {"seed": seed, **values, "faults": dict(total.faults), "resumed": len(resumed), "epochs": EPOCHS}


if __name__ == "__main__":
    main()
