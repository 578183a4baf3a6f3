"""What `python -m local COMMAND` runs."""
