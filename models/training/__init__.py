"""How models/pocket was made: a drawn world, an autoencoder, a teacher and its distillation."""
