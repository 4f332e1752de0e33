"""Random matrices are small: with several threads, linear algebra would wait more than work."""

import pytest

from ssntk.threads import one_blas_thread


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    with one_blas_thread():
        yield
