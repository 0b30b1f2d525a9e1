"""Turns this process into a server: the same pid, so that signals and supervisors need to know nothing.

The request travels in an unlinked file that the new program inherits; nothing is left on disk.
"""

import argparse
import os
import signal
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from enginesmith_cli.home import default_store_uri, state_folder
from enginesmith_cli.options import http_address, metrics_address, tls_files, tokens_folder
from enginesmith_contract.serve_request import ClientLimits, ServedModel, ServeRequest
from enginesmith_operator.api.inference_engine import InferenceEngine

__all__ = ["become_server", "largest_message", "secrets_note", "serve_request"]


def largest_message(engines: Iterable[InferenceEngine]) -> int:
    """Return the maximum message size of a server for these documents, in bytes."""
    return max((int(engine.spec.serving.max_message_bytes) for engine in engines), default=0)


def secrets_note(engines: Iterable[InferenceEngine], arguments: argparse.Namespace) -> str:
    """Return the fields of documents that need Secrets, which this machine does not have; empty: none."""
    serving = [engine.spec.serving for engine in engines]
    missing = [
        f"serving.{field} names a Secret, which only a cluster has: {without}; give {options}"
        for field, is_asked, without, options in (
            (
                "tls",
                any(one.tls for one in serving) and not arguments.tls_cert,
                "this server speaks plaintext",
                "--tls-cert and --tls-key",
            ),
            ("auth", any(one.auth for one in serving) and not arguments.tokens, "calls need no token", "--tokens"),
        )
        if is_asked
    ]
    return "\n".join(missing)


def serve_request(chosen: Sequence[tuple[InferenceEngine, str, str]], arguments: argparse.Namespace) -> ServeRequest:
    """Return the request for one server of all documents.

    Args:
        chosen: document, name of its target and engine key. Of limits that the documents set differently, the
            largest holds: they share the process.
        arguments: with the options of `add_server_options` and `add_home_options`.
    """
    store = arguments.store or default_store_uri(state_folder(arguments.home))
    serving = [engine.spec.serving for engine, _, _ in chosen]
    return ServeRequest(
        models=tuple(
            ServedModel(
                name=engine.metadata.name,
                target=target,
                engine_key=key,
                store=store,
                instances=arguments.instances or engine.spec.serving.instances,
                backend_options=_backend_options(engine, target),
                batching=engine.spec.serving.batching.options,
                queue=engine.spec.serving.queue.options,
                response_cache_bytes=engine.spec.serving.response_cache_bytes,
                max_queued=engine.spec.serving.max_queued if arguments.max_queued is None else arguments.max_queued,
            )
            for engine, target, key in chosen
        ),
        address=arguments.address,
        metrics_address=metrics_address(arguments),
        http_address=http_address(arguments, enabled=any(one.http.enabled for one in serving)),
        drain_delay_seconds=max(one.drain_delay_seconds for one in serving),
        grace_seconds=max(one.grace_period_seconds for one in serving),
        max_message_bytes=largest_message(engine for engine, _, _ in chosen),
        max_streams=arguments.max_streams or max(one.max_streams for one in serving),
        shared_memory=arguments.shared_memory,
        front_ends=arguments.front_ends or max(one.front_ends for one in serving),
        transport=arguments.transport or next((one.chosen_transport for one in serving if one.chosen_transport), None),
        tls=tls_files(arguments),
        tokens=tokens_folder(arguments),
        client_limits=_client_limits([one.client_limits.limits if one.client_limits else None for one in serving]),
    )


def _client_limits(limits: Sequence[ClientLimits | None]) -> ClientLimits | None:
    """Return the largest limits: a document without one has none."""
    known = [one for one in limits if one is not None]
    if len(known) < len(limits):
        return None
    in_flight = [one.max_in_flight for one in known]
    rates = [one.requests_per_second for one in known]
    return ClientLimits(
        max_in_flight=None if None in in_flight else max(one for one in in_flight if one is not None),
        requests_per_second=None if None in rates else max(one for one in rates if one is not None),
    )


def _backend_options(engine: InferenceEngine, target: str) -> Mapping[str, str]:
    return next(one.backend_options for one in engine.spec.targets if one.name == target)


def become_server(request: ServeRequest) -> NoReturn:
    """Replace this process by `python -m enginesmith_runtime.server`."""
    descriptor, path = tempfile.mkstemp(prefix="enginesmith-serve-")
    Path(path).unlink()
    os.write(descriptor, request.to_json())
    os.lseek(descriptor, 0, os.SEEK_SET)
    os.set_inheritable(descriptor, True)
    sys.stdout.flush()
    sys.stderr.flush()
    # The new program inherits the mask, and so do the threads that libraries start while it imports them: a stop that
    # comes before the server listens waits for it instead of killing it. It lets them in once it hears them.
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGINT))
    # -P: the user's folder may hold a module with the name of a library.
    words = [sys.executable, "-P", "-m", "enginesmith_runtime.server", "--request", f"/dev/fd/{descriptor}"]
    os.execv(sys.executable, words)  # noqa: S606 - this very interpreter, no shell
