"""Bifurcations of recurrent networks, and what they do to learning.

Importing this changes no global configuration. Kernels near a bifurcation need double precision:
`jax.config.update("jax_enable_x64", True)`.
"""

import importlib.metadata

import lazy_loader

# The public names are listed in __init__.pyi, and imported when they are first used. So the command line can configure JAX
# before it is imported, and a program that draws nothing does not wait for pyplot.
_getattr, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)


def __getattr__(name: str) -> object:
    try:
        return _getattr(name)
    except AttributeError as error:
        if name.startswith("_") or name in __all__:
            raise
        from ssntk.hints import missing

        raise AttributeError(missing(name, __all__), name=name) from error


__version__ = importlib.metadata.version("ssntk")
