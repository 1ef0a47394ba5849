"""``python -m statedb demo``: what statedb promises, shown with three processes on one database."""
