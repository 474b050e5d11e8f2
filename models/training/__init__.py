"""How models/pocket is trained: rendered scenes, an autoencoder, a teacher, its distillation."""
