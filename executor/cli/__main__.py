"""``python -m executor.cli``: the same program as ``remit``."""

from executor.cli.app import main

main()
