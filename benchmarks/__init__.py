"""Timings of the job against plain Spark and against a naive job; `make bench`."""
