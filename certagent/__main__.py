"""`python -m certagent`."""

import sys

from certagent.cli.main import main

sys.exit(main())
