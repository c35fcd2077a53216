"""The output of the commands: tables, live views, progress bars, and the longer commands with their output.

`console` holds the Rich console, `tables` the tables that adapt to the terminal, `formatting` texts for single values.
Other modules are named for a command, or for what they show.
"""
