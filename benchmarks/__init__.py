"""Measurements: each prints a table and ends in one line of JSON; rows are committed as CSV."""
