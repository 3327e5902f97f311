"""What a person did that cannot work: what is wrong, what to do, and an exit code."""

CODES = INTERNAL, USAGE, PARTIAL, WEIGHTS, INTERRUPTED = 1, 2, 3, 4, 75


def shown(text):
    """The text for a terminal: whatever is not printable, which could steer it, as an escape."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text))


class UserError(Exception):
    """what: what is wrong.  remedy: what to do.  code: the command's exit code."""

    def __init__(self, what, remedy, code=USAGE):
        super().__init__(f"{what}\n{remedy}")
        self.what, self.remedy, self.code = what, remedy, code


class WeightError(UserError):
    """A weight file that cannot be used; says where: the layer and the byte offset, if known."""

    def __init__(self, path, wrong, layer=None, offset=None, remedy=None):
        place = f", layer {layer}" if layer is not None else ""
        place += f", byte {offset}" if offset is not None else ""
        remedy = remedy or "download the file again, or check that it is the one you mean"
        super().__init__(f"{path}{place}: {wrong}", remedy, WEIGHTS)
        self.path, self.wrong, self.layer, self.offset = path, wrong, layer, offset


class ResultsError(UserError):
    """A run's folder or a file in it that cannot be used."""
