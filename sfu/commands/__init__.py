"""The commands of `sfu`, one module each; a new command is a module and its entry in COMMANDS of `__main__`.

A module has NAME, HELP and DESCRIPTION, `add_arguments(parser)`, and `run(config, options)`, which returns the exit
status (None is 0) and raises ConfigError or a Refusal. It imports what takes long (the database, the server) inside
functions: `sfu --help` need not wait.
"""
