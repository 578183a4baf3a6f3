"""The product on one machine."""

import client  # noqa: F401  # puts what is deployed on Python's path
