"""The product on one machine."""

import tools  # noqa: F401  # puts what is deployed on Python's path
