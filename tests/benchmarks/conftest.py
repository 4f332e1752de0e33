import os

import jax
import pytest


@pytest.fixture(autouse=True, scope="module")
def optimised():
    """Speed is that of code as users have it, which other tests do without."""
    jax.config.update("jax_disable_most_optimizations", False)
    os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "0"
    jax.clear_caches()
    yield
    jax.config.update("jax_disable_most_optimizations", True)
    os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"
    jax.clear_caches()
