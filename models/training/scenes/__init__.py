"""Scenes drawn by a program: what they show, how each style renders them, their captions."""
