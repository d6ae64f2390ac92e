"""Whole transfers through a proxy that breaks what a script says."""
