"""The controller: watches fill a store, a queue of keys drives one idempotent reconcile for each."""
