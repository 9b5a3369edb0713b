"""`python -m clipper`: the command line, where no `clipper` is on the path."""

import sys

from clipper.cli.main import entry

if __name__ == "__main__":
    sys.argv[0] = "clipper"  # run folders keep the command, not the name of this file
    entry()
