"""
A FastAPI application.

    prod-run --chdir examples/web fastapi_app:app
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from typing import TYPE_CHECKING

from fastapi import FastAPI, Request, WebSocket, WebSocketDisconnect
from fastapi.responses import PlainTextResponse, StreamingResponse

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@contextlib.asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    """Open and close what the application needs; it is ready when this has come to its `yield`."""
    print("opened", flush=True)
    yield
    print("closed", flush=True)


app = FastAPI(lifespan=lifespan)


@app.get("/")
async def hello() -> PlainTextResponse:
    """Say which process answers."""
    return PlainTextResponse(f"hello from {os.getpid()}\n")


@app.get("/slow")
async def slow() -> PlainTextResponse:
    """Take half a second."""
    await asyncio.sleep(0.5)
    return await hello()


@app.post("/length")
async def length(request: Request) -> PlainTextResponse:
    """Count the bytes that were sent."""
    return PlainTextResponse(f"{len(await request.body())}\n")


@app.get("/big/{mebibytes}")
async def big(mebibytes: int) -> StreamingResponse:
    """Send so much, piece by piece."""

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(16 * mebibytes):
            yield bytes(65536)

    return StreamingResponse(pieces(), media_type="application/octet-stream")


@app.websocket("/echo")
async def echo(websocket: WebSocket) -> None:
    """Send back what comes."""
    await websocket.accept()
    with contextlib.suppress(WebSocketDisconnect):
        while True:
            await websocket.send_text(await websocket.receive_text())
