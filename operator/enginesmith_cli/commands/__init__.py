"""One module a command; `main` imports a command's module only when that command runs."""
