"""The command line's verbs, one file each: `add_arguments(parser)` and `run(args) -> exit code`."""
