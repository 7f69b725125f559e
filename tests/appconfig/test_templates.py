"""`--template SRC:DEST[:MODE]` and `--template-check COMMAND`, as people write them."""

from __future__ import annotations

import pytest

from launcher.appconfig.templates import Template, check_command, clashes, template
from launcher.quantities import BadValueError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a.tmpl:b", Template("a.tmpl", "b")),
        ("/etc/a.j2:/run/a.conf:0640", Template("/etc/a.j2", "/run/a.conf", 0o640)),
        ("a:b:600", Template("a", "b", 0o600)),
        ("a:/run/a-{generation}.conf", Template("a", "/run/a-{generation}.conf")),
        ("a:/run/{generation}/a", Template("a", "/run/{generation}/a")),
    ],
)
def test_every_form_is_understood(text: str, expected: Template) -> None:
    """A mode that is not given is not a mode of 0."""
    assert template(text) == expected


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "'' is not a template|Write SRC:DEST"),
        ("a", "'a' is not a template|Write SRC:DEST"),
        ("a:", "'a:' is not a template|"),
        (":b", "':b' is not a template|"),
        ("a:b:", "'a:b:' is not a template|"),
        ("a:b:0600:c", "is not a template|a path with a colon"),
        ("a:b:c", "'c' is not a mode|in octal"),
        ("a:b:0888", "'0888' is not a mode|in octal"),
        ("a:b:4755", "'4755' is not a mode|in octal"),
        ("a:b:-1", "'-1' is not a mode|in octal"),
        ("a:/run/", "'/run/' has no file name|Name the file"),
        ("a/:b", "'a/' has no file name|Name the file"),
        ("a:..", "'..' has no file name|Name the file"),
        ("a:b{gen}", "'b{gen}' holds braces|Only {generation}"),
        ("x/../a:./a", "would overwrite the template itself|Name another DEST"),
        ("a:b\0", "holds a NUL byte|"),
    ],
)
def test_a_bad_one_is_refused_with_what_to_write(text: str, sentence: str) -> None:
    """The text, what is wrong with it, what to write instead."""
    with pytest.raises(BadValueError) as caught:
        template(text)

    reason, remedy = sentence.split("|")
    assert reason in caught.value.reason
    assert remedy in caught.value.remedy


def test_names_and_dialects_follow_the_file() -> None:
    """A worker asks for `nginx.conf`, whatever made it; only `.j2` is Jinja's."""
    sources = ["/t/nginx.conf.j2", "nginx.conf.tmpl", "a/nginx.conf.template", "nginx.conf", ".j2"]
    found = [template(f"{source}:d") for source in sources]

    assert [item.name for item in found] == ["nginx.conf"] * 4 + [".j2"]
    assert [item.variable for item in found][:2] == ["PROD_RUN_TEMPLATE_NGINX_CONF"] * 2
    assert [item.is_jinja for item in found] == [True, False, False, False, True]


def test_a_private_destination_is_another_one_for_each_generation() -> None:
    """`{generation}` is a number in the path; without it there is one file for all."""
    private, fixed = template("a:/run/a-{generation}"), template("a:/run/a")

    assert (private.is_private, private.path(3)) == (True, "/run/a-3")
    assert (fixed.is_private, fixed.path(3)) == (False, "/run/a")


def test_what_cannot_be_told_apart_is_refused() -> None:
    """One file made twice; or one name, where a worker looks its file up by it."""

    def reasons(*texts: str) -> list[str]:
        return [f"{name} {reason}" for name, reason, _ in clashes(tuple(map(template, texts)))]

    assert reasons("a:/x", "b:/y", "c:/z") == []
    assert reasons("a:/x", "b:/y/../x") == ["/y/../x is the DEST of two templates, a and b"]
    assert reasons("1/app.j2:/x", "2/app.tmpl:/y") == []
    assert reasons("1/app-x.j2:/x", "2/app.x.j2:/y{generation}") == [
        "2/app.x.j2 is called PROD_RUN_TEMPLATE_APP_X in a worker, as 1/app-x.j2 is"
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("nginx -t -c {src}", ("nginx", "-t", "-c", "{src}")),
        ("check --file={src} 'a b'", ("check", "--file={src}", "a b")),
        ("nginx -t", "has no {src} among its arguments"),
        ("{src}", "has no {src} among its arguments"),
        ("", "has no {src} among its arguments"),
        ("nginx 'x {src}", "cannot be split into words"),
    ],
)
def test_a_check_is_words_for_no_shell(text: str, expected: tuple[str, ...] | str) -> None:
    """A command that does not look at the file would say good to every one."""
    if isinstance(expected, tuple):
        assert check_command(text) == expected
    else:
        with pytest.raises(BadValueError, match=expected):
            check_command(text)
