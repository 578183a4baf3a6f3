"""A module for each page; `show` builds it."""
