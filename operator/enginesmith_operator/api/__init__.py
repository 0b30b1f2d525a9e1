"""`InferenceEngine` as a user writes it: types, loading, and the translation to the contract."""
