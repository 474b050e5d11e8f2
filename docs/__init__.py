"""Documents, and what makes the generated part of them."""
