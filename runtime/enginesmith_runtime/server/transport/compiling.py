"""What compiled modules are: the same sources as extension modules (see runtime/compile), where there are any.

mypyc's decorators are in a package that only compiling takes.
"""

import sys
from typing import TYPE_CHECKING

__all__ = ["is_compiled", "mypyc_attr"]

if TYPE_CHECKING:
    from mypy_extensions import mypyc_attr
else:

    def mypyc_attr(**_said: object) -> object:
        """Return a decorator that changes nothing."""
        return lambda decorated: decorated


def is_compiled(one: type) -> bool:
    """Whether a class comes from a compiled module."""
    return not str(sys.modules[one.__module__].__file__).endswith(".py")
