"""Scores, calibration, statistics, explanations, predictions, and the page of one evaluation."""
