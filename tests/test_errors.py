import inspect

from inverse_set import cli, errors


def test_an_error_says_what_and_what_to_do():
    error = errors.UserError("no such unit", "name another", errors.WEIGHTS)
    assert str(error) == "no such unit\nname another"
    assert (error.what, error.remedy, error.code) == ("no such unit", "name another", 4)
    assert errors.UserError("a", "b").code == errors.USAGE


def test_exit_codes_are_distinct_and_documented():
    codes = {v for k, v in vars(errors).items() if k.isupper() and isinstance(v, int)}
    assert codes == {1, 2, 3, 4, 75}
    assert all(str(code) in inspect.getdoc(cli) for code in codes)
