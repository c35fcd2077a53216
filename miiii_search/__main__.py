"""`python -m miiii_search`, for where the command is not on the path."""

from miiii_search.cli import main

main()
