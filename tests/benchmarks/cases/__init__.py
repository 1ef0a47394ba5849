"""What is measured: each module is a kind of case, and gives its results as they come."""
