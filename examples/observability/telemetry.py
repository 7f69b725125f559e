"""
OpenTelemetry in a pre-forked app: the SDK is started in each worker, after the fork.

    prod-run --chdir examples/observability --workers 2 telemetry:main

It wants `pip install 'prod-run[otel]'`, and a collector: $OTEL_EXPORTER_OTLP_ENDPOINT, else http://localhost:4318.
The SDK exports from threads of its own: started at import they would be lost with the fork, and prod-run would say
so and not preload.  `lifespan` is for ASGI (`FastAPI(lifespan=telemetry.lifespan)`); in a WSGI application the place
for `start(instance(Worker.current()))` is the first request.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import TYPE_CHECKING

from opentelemetry import metrics, trace
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from launcher import Worker

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

# The API may be used at import: it does nothing until the SDK is there.
tracer = trace.get_tracer("shop")
paid = metrics.get_meter("shop").create_counter("shop.paid", description="Orders paid.")


def instance(worker: Worker) -> str:
    """Name a worker; in a reload two have one slot, and no two living ones may have one id."""
    return f"{socket.gethostname()}-{worker.slot}-{worker.generation}"


def start(name: str) -> Callable[[], None]:
    """Start the SDK in this process; return what sends the rest and ends it."""
    resource = Resource.create({"service.name": "shop", "service.instance.id": name})
    traces = TracerProvider(resource=resource, shutdown_on_exit=False)
    traces.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    meters = MeterProvider(
        [PeriodicExportingMetricReader(OTLPMetricExporter())], resource=resource, shutdown_on_exit=False
    )
    trace.set_tracer_provider(traces)
    metrics.set_meter_provider(meters)

    def end() -> None:
        traces.shutdown()
        meters.shutdown()

    return end


@contextlib.asynccontextmanager
async def lifespan(_: object) -> AsyncIterator[None]:
    """Begin and end with an ASGI application."""
    end = start(instance(Worker.current()))
    yield
    await asyncio.to_thread(end)


def pay() -> None:
    """Pay one order."""
    with tracer.start_as_current_span("pay"):
        paid.add(1, {"currency": "eur"})


def main(worker: Worker) -> None:
    """Pay, then wait for the end."""
    end = start(instance(worker))
    pay()
    worker.ready()
    worker.stopping.wait()
    end()  # within --drain-timeout: what was measured last is worth waiting for
