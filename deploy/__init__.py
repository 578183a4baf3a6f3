"""The lakehouse in an AWS account."""

import tools  # noqa: F401  # puts what is deployed on Python's path
