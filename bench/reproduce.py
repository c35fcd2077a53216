"""Question: do the paper's claims about full-length runs hold with this code?

    python bench/reproduce.py --minutes 600 --folder DIR [NAME ...]
    python bench/reproduce.py --list
    python bench/reproduce.py --report [--json FILE] [--reference FILE]

The first command trains the runs one after the other, each to its end, and continues where it stopped. A checkpoint is
written every five minutes, and when the time is up. DIR/NAME is a folder that `miiii-search analyze` and `compare` can
read at any time. `--pack` writes the records to bench/curves/full-length; the report reads them and trains nothing.

The report has one line per run: its last epoch, the epoch at which it was solved, the number of tasks with a validation
accuracy of at least 0.99, and mean accuracies. Below are the mean accuracies at the epochs of the paper's Figure 6.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

from full_length_report import FIGURE_6, pack, report
from full_length_runs import last_epoch, read_state, runs, train

from miiii_search.analysis.reference import read_reference
from miiii_search.training.device import use_compilation_cache


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="runs to train (default: all)")
    parser.add_argument("--minutes", type=float, default=600, help="minutes of training (default %(default)s)")
    parser.add_argument(
        "--folder", type=Path, default="reproduction", help="folder of the runs (default ./%(default)s)"
    )
    parser.add_argument("--list", action="store_true", help="list the runs and their epochs, and exit")
    parser.add_argument("--pack", action="store_true", help="pack the records of the runs in --folder, and exit")
    parser.add_argument("--report", action="store_true", help="print the report, and exit")
    parser.add_argument(
        "--reference", type=Path, metavar="FILE", help="with --report: reference curves, as for `compare`"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="with --report: write the figures to this file")
    arguments = parser.parse_args()
    if arguments.pack:
        pack(arguments.folder, runs())
        return
    if arguments.report:
        found = report(runs(), arguments.reference and read_reference(arguments.reference))
        print_report(found)
        if arguments.json:
            arguments.json.write_text(json.dumps(found, indent=2) + "\n")
        return
    known = runs()
    if unknown := [name for name in arguments.names if name not in known]:
        parser.error(f"there is no run {', '.join(unknown)}; --list shows all")
    if not arguments.list:
        use_compilation_cache()
        end = time.monotonic() + 60 * arguments.minutes
        for name in arguments.names or known:
            train(name, known[name], arguments.folder, lambda: time.monotonic() > end)
    for name, run in known.items():
        state = read_state(arguments.folder / name)
        progress = f"{state['epoch']:>7,}" if state else "      -"
        print(f"{name:<20} {progress} of {last_epoch(run, arguments.folder):>6,}  {run.claim}")


def print_report(found: dict[str, dict[str, Any]]) -> None:
    """Print one line per run, and its mean accuracies below those of Figure 6."""
    print(f"{'run':<20} {'epoch':>7} {'solved':>7} {'tasks at 0.99':>13} {'training':>9} {'validation':>10}")
    for name, run in found.items():
        solved = f"{run['solved_epoch']:,}" if run["solved_epoch"] else "-" if run["ended"] else "running"
        print(
            f"{name:<20} {run['epochs']:>7,} {solved:>7} {run['tasks_at_099']:>13} "
            f"{run['train_mean']:>9.3f} {run['validation_mean']:>10.3f}"
        )
    for key, split in (("train_at", "training"), ("validation_at", "validation")):
        print(f"\n{split + ' at epoch':<20} " + " ".join(f"{epoch:>7,}" for epoch in FIGURE_6["epoch"]))
        print(f"{'Figure 6':<20} " + " ".join(f"{mean:>7.3f}" for mean in FIGURE_6[split]))
        for name, run in found.items():
            means = run.get(key, {})
            values = [f"{means[str(e)]:>7.3f}" if str(e) in means else f"{'-':>7}" for e in FIGURE_6["epoch"]]
            print(f"{name:<20} " + " ".join(values))
    for name, run in found.items():
        if "max_train_difference" in run:
            difference = run["max_train_difference"]
            print(f"\n{name}: the training accuracy differs from the reference by {difference:.3f} at most")


if __name__ == "__main__":
    main()
