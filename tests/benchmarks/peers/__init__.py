"""The sides of each comparison: statedb, the bare driver, and what a user would pick instead."""
