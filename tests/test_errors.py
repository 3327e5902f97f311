import inspect

from inverse_set import cli, errors


def test_an_error_says_what_and_what_to_do():
    error = errors.UserError("no such unit", "name another", errors.WEIGHTS)
    assert str(error) == "no such unit\nname another"
    assert (error.what, error.remedy, error.code) == ("no such unit", "name another", 4)
    assert errors.UserError("a", "b").code == errors.USAGE


def test_exit_codes_are_distinct_and_documented():
    """The command's own description names each with its meaning, and no other."""
    assert errors.CODES == (1, 2, 3, 4, 75)
    said = inspect.getdoc(cli).split("Exit codes: ")[1].split(".")[0]
    told = [int(part.split()[0]) for part in said.split(";")]
    assert told == [0, *errors.CODES]
