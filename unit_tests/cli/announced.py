"""`langchain-eft` that says when it comes to a function."""

import signal
import sys
from pkgutil import resolve_name

from langchain_eft.cli import app


def announced(owner, name):
    """Run the command line; print "now" when a function is called."""
    owner = resolve_name(owner)
    original = getattr(owner, name)

    def announcing(*args, **kwargs):
        sys.stdout.write("now\n")
        sys.stdout.flush()
        return original(*args, **kwargs)

    setattr(owner, name, announcing)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a process in the background ignores it
    app()
