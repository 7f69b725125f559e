"""The app as WSGI, for gunicorn and uWSGI.  Must never do more than hand `shop`'s answer over."""

from __future__ import annotations

import shop

try:
    import uwsgi  # type: ignore[import-not-found]  # only inside uWSGI
except ImportError:
    uwsgi = None

if uwsgi is not None:
    if uwsgi.opt.get("lazy-apps"):
        shop.begin()  # each worker imports for itself
    else:
        uwsgi.post_fork_hook = shop.begin


def app(environ, start_response):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Answer one request."""
    body = shop.answer(environ["PATH_INFO"])
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]
