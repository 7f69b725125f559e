"""The app as ASGI, for uvicorn and granian.  Must never do more than hand `shop`'s answer over."""

from __future__ import annotations

import shop


async def app(scope, receive, send):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Answer one request, or go through the lifespan protocol."""
    if scope["type"] == "lifespan":
        await live(receive, send)
        return
    body = shop.answer(scope["path"])
    headers = [(b"content-type", b"text/plain"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def live(receive, send):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Report the start of serving."""
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
        shop.begin()
