import socket

from paperflows.components import ports


def test_a_row_is_free_where_the_kernel_never_connects_from(monkeypatch):
    """Two tries in a row meet a port that is taken; the third is the answer."""
    answer = ports.free_port(row=3)
    with socket.socket() as first, socket.socket() as second:
        first.bind(("127.0.0.1", 0))
        second.bind(("127.0.0.1", 0))
        taken = [first.getsockname()[1], second.getsockname()[1] - 2]

        class Fixed:
            def sample(self, population, count):
                assert max(population) + 7 < 32_768 and count == 100
                return [*taken, answer]

        monkeypatch.setattr(ports.random, "SystemRandom", Fixed)
        assert ports.free_port(row=3) == answer
