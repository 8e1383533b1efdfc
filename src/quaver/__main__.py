"""`python -m quaver`, where the command itself is not on the path."""

from quaver.cli.main import main

main()
