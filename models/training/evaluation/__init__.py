"""The metrics of models/pocket, the classifier that they rely on, and the contact sheet."""
