"""Generations from Python: for a project's own views, tasks and commands. `generation` has it."""
