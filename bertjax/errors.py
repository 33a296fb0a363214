"""The one exception for what a user can get wrong."""


class UserError(Exception):
    """A mistake in the input: one line naming the file, field or tensor, what was found and expected.

    The command line prints the message alone and exits with status 2. Any
    other exception is a bug and shows its traceback.
    """


def check(condition: bool, where: str, found: object, expected: str) -> None:
    """Raise `UserError` in the house's one form unless `condition` holds."""
    if not condition:
        raise UserError(f"{where}: found {found}, expected {expected}")
