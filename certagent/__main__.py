"""`python -m certagent`."""

from certagent.cli.main import command

command()
