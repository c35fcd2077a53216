"""Studies under faults of all kinds, for as long as you like: what was survived, what it cost, what was lost.

Two workers with disks and networks of their own, two coordinators, one PostgreSQL; one study after the other, each
struck at random moments: SIGKILL, SIGTERM, SIGSTOP, cut, silent, half-closed and slow connections, a database stopped
and crashed, coordinators killed, checkpoints truncated and flipped, a disk that is gone. Every trial is compared with
the one of a study without faults: its weights by SHA-256, and all its reports.

Example: python bench/faults.py --minutes 60 --seed 1 --json faults.json
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

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from miiii_search.testing.faults import EPOCHS, FAULTS, Result, run, unbroken

TRIALS = 24
"""Of a study."""


def main() -> None:
    options = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    options.add_argument("--minutes", type=float, default=60.0, help="no study is begun after them")
    options.add_argument("--seed", type=int, default=None, help="of the faults and their moments; unset: any")
    options.add_argument("--quick", action="store_true", help="three minutes")
    options.add_argument("--json", type=Path, help="where to write the figures")
    arguments = options.parse_args()
    minutes = 3.0 if arguments.quick else arguments.minutes
    seed = random.SystemRandom().randrange(10**6) if arguments.seed is None else arguments.seed
    print(f"seed {seed}, {minutes:g} minutes, studies of {TRIALS} trials of {EPOCHS:,} epochs", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        total = soak(Path(folder), minutes, random.Random(seed))
    print(table(total))
    if arguments.json:
        arguments.json.write_text(json.dumps(figures(total, seed), indent=2) + "\n")
    if total.lost or total.doubled or total.reports_lost or total.different:
        sys.exit("something was lost")


def soak(folder: Path, minutes: float, chance: random.Random) -> Result:
    """One study after the other."""
    reference = unbroken(folder / "unbroken", TRIALS)
    began, total, studies = time.monotonic(), Result(), 0
    while time.monotonic() - began < 60 * minutes:
        studies += 1
        longest = chance.choice([6.0, 12.0, 45.0])  # below and above a lease, and above what counts as silence
        result = run(folder / f"study-{studies}", reference, TRIALS, endless(chance), chance, longest)
        add(total, result)
        print(f"study {studies}: {result.seconds:.0f} s, {result.faults.total()} faults, {broken(result)}", flush=True)
    return total


def endless(chance: random.Random) -> Iterator[str]:
    """Faults until the study ends; each kind as likely as any other."""
    while True:
        yield chance.choice(list(FAULTS))


def add(total: Result, result: Result) -> None:
    """Sums up."""
    total.faults += result.faults
    total.resumed += result.resumed
    for name in ("trials", "restarted", "redone", "lost", "doubled", "reports_lost", "different", "seconds"):
        setattr(total, name, getattr(total, name) + getattr(result, name))


def broken(result: Result) -> str:
    return (
        f"lost {result.lost}, doubled {result.doubled}, reports lost {result.reports_lost}, "
        f"different {result.different}"
    )


def table(total: Result) -> str:
    rows = [f"{fault:<26}{count:>6}" for fault, count in sorted(total.faults.items())]
    trained = total.trials * EPOCHS
    rows += [
        f"{'faults in all':<26}{total.faults.total():>6}",
        "",
        f"{total.trials} trials in {total.seconds / 60:.0f} min; resumed above epoch 0: {len(total.resumed)} times, "
        f"begun anew: {total.restarted}",
        f"epochs redone: {total.redone:,} of {trained:,} ({total.redone / max(trained, 1):.1%})",
        broken(total),
    ]
    return "\n".join(rows)


def figures(total: Result, seed: int) -> dict[str, Any]:
    values = asdict(total)
    resumed = values.pop("resumed")
    return {"seed": seed, **values, "faults": dict(total.faults), "resumed": len(resumed), "epochs": EPOCHS}


if __name__ == "__main__":
    main()
