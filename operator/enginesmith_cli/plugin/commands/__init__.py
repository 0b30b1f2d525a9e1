"""The plugin's commands: each module has `add_arguments(parser)` and `run(arguments) -> int`."""
