"""One engine from a stored preparation: built in a child process, verified, stored."""
