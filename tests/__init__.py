"""Tests of etcetera; they mirror the package."""
