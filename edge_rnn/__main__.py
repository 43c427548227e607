"""`python -m edge_rnn` is the command `edge-rnn`."""

import sys

from edge_rnn.cli import main

sys.exit(main())
