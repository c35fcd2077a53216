"""Open a study, also while workers train it, and read its trials into pandas.

To run it, type:

    python examples/study_to_pandas.py --storage sqlite:///search.db
"""

from __future__ import annotations

import argparse

import miiii_search as ms


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--storage", default="sqlite:///search.db")
    parser.add_argument("--study", help="optional if the storage holds only one study")
    arguments = parser.parse_args()

    with ms.load_study(arguments.storage, arguments.study) as study:
        print(", ".join(f"{n} {state}" for state, n in study.counts.items() if n))
        table = study.trials_dataframe()
        print(table.sort_values("value", ascending=False).to_string(index=False))
        parameters = [name for name in table.columns if name.startswith("params_")]
        for name in parameters:
            print(table.groupby(name)["value"].agg(["mean", "max", "count"]).to_string())


if __name__ == "__main__":
    main()
