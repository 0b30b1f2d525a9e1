"""The kinds as a user writes them: pydantic types, units, and errors that name field, value and nearest valid value."""
