"""Whether a server of the cluster answers."""

import ssl
import urllib.error
import urllib.request
from pathlib import Path

__all__ = ["answers"]

_OK = 200


def answers(url: str, *, authority: Path | None = None, any_certificate: bool = False) -> bool:
    """Return whether a GET gets 200 within two seconds.

    Args:
        url: http or https.
        authority: whose certificates to trust.
        any_certificate: trust any server that answers.
    """
    context = ssl.create_default_context(cafile=authority)
    if any_certificate:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    # A proxy of the environment knows nothing of this machine's bridges.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context))
    try:
        with opener.open(url, timeout=2) as answer:
            return bool(answer.status == _OK)
    except OSError:
        return False
