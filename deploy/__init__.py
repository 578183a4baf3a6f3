"""The lakehouse in an AWS account."""

import client  # noqa: F401  # puts what is deployed on Python's path
