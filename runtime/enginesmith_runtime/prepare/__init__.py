"""Everything that a CPU can check of a model before a GPU is used, and the model made ready for every build."""
