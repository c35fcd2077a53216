"""Train the runs that are compared with the paper, and go on where they stopped at the next call.

    python bench/reproduce.py --minutes 600 --folder DIR [NAME ...]
    python bench/reproduce.py --list
    python bench/reproduce.py --report [--json FILE] [--reference FILE]   # from the records in the repository

The runs are trained one after the other, each to its end. A checkpoint is written every five minutes and when the
time is up. DIR/NAME is a folder that `miiii-search analyze` and `compare` read, at any time.
The records are in bench/curves/full-length, written there by --pack; the report needs no training.
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
    parser.add_argument("names", nargs="*", metavar="NAME", help="the runs to train; all of them by default")
    parser.add_argument("--minutes", type=float, default=600, help="how long to train in all (default 600)")
    parser.add_argument("--folder", type=Path, default=Path("reproduction"), help="where the runs are kept")
    parser.add_argument("--list", action="store_true", help="show the runs and how far they are, and stop")
    parser.add_argument("--pack", action="store_true", help="write the records of the runs in --folder, and stop")
    parser.add_argument("--report", action="store_true", help="print what the packed records show, and stop")
    parser.add_argument("--reference", type=Path, metavar="FILE", help="with --report: curves as `compare` takes them")
    parser.add_argument("--json", type=Path, metavar="FILE", help="with --report: write the figures here as well")
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
        parser.error(f"there is no run {', '.join(unknown)}; --list shows them")
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
    """Print a line for each run, and its mean accuracies beside those of Figure 6."""
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
            print(f"\n{name}: training differs from the reference by {run['max_train_difference']:.3f} at most")


if __name__ == "__main__":
    main()
