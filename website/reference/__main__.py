"""Writes the pages of docs/reference/ that are made from the code."""

from __future__ import annotations

from website.reference.pages import FOLDER, PAGES

for name, write in PAGES.items():
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / name).write_text(write(), encoding="utf-8")
