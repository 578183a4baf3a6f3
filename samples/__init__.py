"""Made-up exports of a shop."""
