"""The two errors a user can cause or meet; everything else is a bug."""


class InputError(ValueError):
    """Bad input: a file, a field, a key or a value. The message names it and says what was expected (exit code 2)."""


class ServiceError(RuntimeError):
    """A service or a resource outside this program is missing: endpoint, server, disk space (exit code 3).

    `passing`: another try, a little later, may find it there.
    """

    passing = True
