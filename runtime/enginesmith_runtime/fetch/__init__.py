"""A model's bytes from anywhere: resumable, digest checked, with its external weights, inside one folder."""
