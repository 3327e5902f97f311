"""What a person did that cannot work: what is wrong, what to do, and an exit code."""

INTERNAL, USAGE, PARTIAL, WEIGHTS, INTERRUPTED = 1, 2, 3, 4, 75


class UserError(Exception):
    """what: what is wrong.  remedy: what to do.  code: the command's exit code."""

    def __init__(self, what, remedy, code=USAGE):
        super().__init__(f"{what}\n{remedy}")
        self.what, self.remedy, self.code = what, remedy, code
