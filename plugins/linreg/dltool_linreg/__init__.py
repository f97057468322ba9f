"""The `linreg` topic: linear models on tables, and how optimisation works."""
