"""`python -m pixeltraj` is `pixeltraj`."""

import sys

from pixeltraj.cli import main

sys.exit(main())
