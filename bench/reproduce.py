"""Train the runs that are compared with the paper, and go on where they stopped at the next call.

    python bench/reproduce.py --minutes 600 --folder DIR [NAME ...]
    python bench/reproduce.py --list

The runs are trained one after the other, each to its end. A checkpoint is written every five minutes and when the
time is up. DIR/NAME is a folder that `miiii-search analyze` and `compare` read, at any time.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from full_length_runs import last_epoch, read_state, runs, train

from miiii_search.experiment.device import use_compilation_cache


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="the runs to train; all of them by default")
    parser.add_argument("--minutes", type=float, default=600, help="how long to train in all (default 600)")
    parser.add_argument("--folder", type=Path, default=Path("reproduction"), help="where the runs are kept")
    parser.add_argument("--list", action="store_true", help="show the runs and how far they are, and stop")
    arguments = parser.parse_args()
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


if __name__ == "__main__":
    main()
