"""The networks of models/pocket, their tokenizer, and the maths of the noise."""
