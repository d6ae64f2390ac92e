"""The command line: parse, call, print, exit status.

``interruption`` decides what a signal does, ``run`` starts a command and turns what it raises into
an exit status, ``app`` holds the commands, ``options`` what all of them accept. Only modules of
this package know Typer and rich, and none of them imports what a command may not need: ``etc ls``
has to be there at once.
"""

from etcetera.cli.interruption import main

__all__ = ["main"]
