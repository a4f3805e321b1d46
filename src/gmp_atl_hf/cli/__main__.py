"""`python -m gmp_atl_hf.cli`, also under `accelerate launch`."""

import sys

from .verbs import main

sys.exit(main())
