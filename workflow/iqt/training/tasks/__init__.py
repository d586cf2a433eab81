"""What networks that enhance are trained for, one module a kind of training."""
