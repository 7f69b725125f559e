"""
A Django application in one file, for both interfaces.

    prod-run --chdir examples/web django_app:wsgi
    prod-run --chdir examples/web django_app:asgi
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from django.conf import settings
from django.core.asgi import get_asgi_application
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.urls import path

if TYPE_CHECKING:
    from collections.abc import Iterator

settings.configure(
    ROOT_URLCONF=__name__,
    ALLOWED_HOSTS=["*"],
    SECRET_KEY=os.environ.get("SECRET_KEY", "only for this example"),
    LOGGING_CONFIG=None,
)


def hello(_: HttpRequest) -> HttpResponse:
    """Say which process answers."""
    return HttpResponse(f"hello from {os.getpid()}\n", content_type="text/plain")


def slow(request: HttpRequest) -> HttpResponse:
    """Take half a second."""
    time.sleep(0.5)
    return hello(request)


def length(request: HttpRequest) -> HttpResponse:
    """Count the bytes that were sent."""
    return HttpResponse(f"{len(request.body)}\n", content_type="text/plain")


def big(_: HttpRequest, mebibytes: int) -> StreamingHttpResponse:
    """Send so much, piece by piece."""

    def pieces() -> Iterator[bytes]:
        for _ in range(16 * mebibytes):
            yield bytes(65536)

    return StreamingHttpResponse(pieces(), content_type="application/octet-stream")


urlpatterns = [path("", hello), path("slow", slow), path("length", length), path("big/<int:mebibytes>", big)]

wsgi = get_wsgi_application()
asgi = get_asgi_application()
