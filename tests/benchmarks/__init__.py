"""Timings of the job against plain Spark and against a naive job; `make bench`."""

import client  # noqa: F401  # puts what is deployed on Python's path
