"""Metrics, statistics, calibration and reports; knows plain arrays and plain dictionaries only."""
