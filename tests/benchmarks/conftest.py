import os
import re

import jax
import pytest


@pytest.fixture(autouse=True, scope="module")
def optimised():
    """Compile with all optimisations, as for users. Other tests turn most of them off."""
    jax.config.update("jax_disable_most_optimizations", False)
    os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "0"
    # XLA reads its flags when it starts: at the first benchmark, unless other tests ran before it in the same process.
    flags = os.environ["XLA_FLAGS"]
    quick = r"--xla_cpu_(use_fusion_emitters=false|parallel_codegen_split_count=1)"
    os.environ["XLA_FLAGS"] = re.sub(quick, "", flags).strip()
    jax.clear_caches()
    yield
    jax.config.update("jax_disable_most_optimizations", True)
    os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"
    os.environ["XLA_FLAGS"] = flags
    jax.clear_caches()
