"""Mistakes planted on purpose in small worlds: for the tour, the tests and the benchmark."""
