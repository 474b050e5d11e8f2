"""Measurements. Each command prints tables, keeps its rows as CSV and ends in a line of JSON."""
