"""Sweeps that take too long for every day: make test-long."""
