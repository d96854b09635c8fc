"""Addresses at which no Ray cluster answers; one that answers is in tests/e2e/test_ray.py."""

import pytest

from paperflows.components.errors import InputError, ServiceError
from paperflows.components.ports import free_port
from paperflows.tasks.runner import runner


@pytest.mark.parametrize("address", ["nonsense", "host:port", "ray://"])
def test_what_is_no_address_is_refused(address):
    with pytest.raises(InputError, match=r"ray.address: .* is not HOST:PORT"):
        runner(address)


@pytest.mark.parametrize("form", ["127.0.0.1:{}", "ray://127.0.0.1:{}"])
def test_nobody_there_is_said_at_once(form):
    with pytest.raises(ServiceError, match=r"Ray at .* cannot be reached: .*refused"):
        runner(form.format(free_port("127.0.0.1")))
