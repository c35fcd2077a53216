"""Writes the output of the demo into README.md: `python -m website.readme`.

It runs the demo as `make demo` does, in an empty folder, for some minutes.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

README = Path(__file__).resolve().parents[1] / "README.md"
BLOCK = re.compile(r"(<!-- The output of the demo.*? -->\n```\n)(.*?)(```\n<!-- end -->)", re.DOTALL)
ROWS = 4
"""Rows of the table that the README shows."""


def shown() -> str:
    """Return the output of the demo in the README.

    Raises:
        ValueError: The README has no such block.
    """
    match = BLOCK.search(README.read_text(encoding="utf-8"))
    if match is None:
        raise ValueError("README.md has no block for the output of the demo")
    return match[2]


def shorten(printed: str) -> str:
    """Return the first rows of the table that the demo printed last, without the times of a machine."""
    table = printed[printed.rindex("Study demo:") :].splitlines()
    first = next(number for number, line in enumerate(table) if re.match(r"\s*\d+\s+\d+\s", line))
    head = table[first - 2]
    begin, end = head.index("epochs") + len("epochs"), head.index("time") + len("time")
    lines = [table[0], "", *(line[:begin] + line[end:] for line in table[first - 2 : first + ROWS])]
    return "\n".join([*(line.rstrip() for line in lines), "  …"]) + "\n"


def main() -> None:
    """Run the demo and write its output."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MIIII_")}
    command = [sys.executable, "-m", "miiii_search", "up", "--preset", "demo", "--no-dashboard"]
    with tempfile.TemporaryDirectory() as folder:
        environment = {**kept, "COLUMNS": "92", "XDG_STATE_HOME": folder}
        done = subprocess.run(command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    text = README.read_text(encoding="utf-8")
    README.write_text(BLOCK.sub(lambda match: match[1] + shorten(done.stdout) + match[3], text), encoding="utf-8")


if __name__ == "__main__":
    main()
