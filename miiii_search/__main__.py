"""The command line as `python -m miiii_search`, for when `miiii-search` is not on the path."""

from miiii_search.cli import main

main()
