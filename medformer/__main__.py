"""``python -m medformer``: the same as the ``medformer`` command."""

import sys

from medformer.cli import main

sys.exit(main())
