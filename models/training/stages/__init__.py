"""The stages of training, each resumable, in the order of `recipe.py`."""
