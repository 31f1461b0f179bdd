"""The CPU's tests of backend "cuda" once more, with the kernels on a device."""

import pytest

from tests.wkv import test_gradients, test_integration, test_properties, test_values

pytestmark = pytest.mark.usefixtures("cpu_tensors_on_the_device")

for _module in (test_gradients, test_integration, test_properties, test_values):
    for _name, _test in vars(_module).items():
        if _name.startswith("test_"):
            assert _name not in globals(), f"two tests are called {_name}"
            globals()[_name] = _test
