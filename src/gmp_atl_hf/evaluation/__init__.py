"""Metrics, statistics and calibration; knows plain arrays and plain dictionaries only."""
