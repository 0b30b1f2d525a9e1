"""The controller: watches fill a cache, and a queue of keys starts an idempotent reconcile for each key."""
