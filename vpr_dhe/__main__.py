"""`python -m vpr_dhe` is `vpr-dhe`."""

from vpr_dhe.cli import main

main()
