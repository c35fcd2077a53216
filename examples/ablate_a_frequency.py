"""Load a trained network and measure how much its accuracy depends on each frequency of its embedding.

To run it, type:

    miiii-search train --preset demo --out runs/demo
    python examples/ablate_a_frequency.py runs/demo
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

import miiii_search as ms


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder that `miiii-search train` wrote")
    arguments = parser.parse_args()

    run = ms.load_run(arguments.run)
    if run.weights is None:
        raise SystemExit(f"{arguments.run} holds no weights")
    ablations = ms.analyze(run).ablations[-1]  # of the final weights
    print(f"mean accuracy on held-out samples: {ablations.accuracy.mean():.3f}")
    decrease = -ablations.frequencies.mean(axis=1)  # [frequencies], mean over tasks
    for k in np.argsort(-decrease)[:5]:
        print(f"without frequency {k + 1:3d} the mean accuracy falls by {decrease[k]:.3f}")


if __name__ == "__main__":
    main()
