"""The benchmarks: statedb beside what a user would pick instead. ``python tests/benchmarks``."""
