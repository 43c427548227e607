"""`python -m firmware_export`: the same as `edge-rnn export`."""

import sys

from edge_rnn.cli import main

sys.exit(main(["export", *sys.argv[1:]]))
