"""gunicorn's hook for reports.  Must never set anything that changes how gunicorn works."""


def post_worker_init(worker):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Report a worker that has loaded the app and is about to serve."""
    import shop  # imported by the app already

    shop.begin()
