"""A module for each page; `show` builds the page."""
