"""The `anomaly` topic: odd rows of a table."""
