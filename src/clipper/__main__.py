"""`python -m clipper`: the command line, where no `clipper` is on the path."""

from clipper.cli.main import main

raise SystemExit(main())
