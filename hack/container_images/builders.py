"""The programs that build images: docker, podman and buildah."""

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from development_cluster.commands import attempt, run
from development_cluster.errors import ClusterError

__all__ = ["PROGRAMS", "Builder", "find_program"]

# The first that works. Only docker needs a daemon, so that its presence says little.
_PROBES: Final[Mapping[str, Sequence[str]]] = {
    "docker": ("docker", "info"),
    "podman": ("podman", "info"),
    "buildah": ("buildah", "info"),
}
PROGRAMS: Final = tuple(_PROBES)
_AUTHORITIES: Final = Path("/etc/ssl/certs/ca-certificates.crt")


@dataclass(frozen=True, kw_only=True)
class Builder:
    """A program that builds images, and how it is called here.

    Attributes:
        program: one of PROGRAMS.
        options: in front of the command, such as where images are stored.
        environment: variables in addition to this process's own.
        log: takes what it says.
        plain_http: whether registries are asked without TLS.
    """

    program: str
    options: tuple[str | Path, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    log: Path
    plain_http: bool = False

    def build(self, reference: str, *, dockerfile: Path, context: Path, arguments: Mapping[str, str]) -> None:
        """Build an image, from cached layers where nothing below them changed.

        Args:
            reference: registry, name and tag.
            dockerfile: what to build.
            context: the folder that COPY copies from.
            arguments: build arguments.
        """
        own: list[str] = []
        if self.program != "docker":
            own += ["--layers", "--force-rm", "--format=oci", *self._tls()]
            # Whom this machine trusts, the build's downloads trust too.
            own += [f"--volume={_AUTHORITIES}:{_AUTHORITIES}:ro"] if _AUTHORITIES.exists() else []
        given = [f"--build-arg={name}={value}" for name, value in arguments.items()]
        self._run("build", *own, "--tag", reference, "--file", dockerfile, *given, context)

    def pull(self, reference: str) -> str:
        """Pull an image; return its reference by digest."""
        self._run("pull", *([] if self.program == "docker" else self._tls()), reference)
        return self._by_digest(reference)

    def push(self, reference: str) -> str:
        """Push an image to its registry; return its reference by digest."""
        if self.program == "docker":
            self._run("push", reference)
            return self._by_digest(reference)
        return self._copy(reference, *self._tls(), reference)

    def archive(self, reference: str, file: Path) -> str:
        """Write an image to a file, as an OCI archive; return its reference by digest.

        Raises:
            ClusterError: docker writes no archive whose digest is that of the image.
        """
        if self.program == "docker":
            raise ClusterError(
                "docker does not say under which digest a saved image will be known",
                remedy="push to a registry (--push REGISTRY), or use podman or buildah (--builder buildah)",
            )
        file.unlink(missing_ok=True)
        return self._copy(reference, reference, f"oci-archive:{file}:{reference}")

    def _copy(self, reference: str, *arguments: str) -> str:
        with TemporaryDirectory(prefix="enginesmith-digest-") as folder:
            digest = Path(folder) / "digest"
            self._run("push", "--digestfile", digest, *arguments)
            return f"{_untagged(reference)}@{digest.read_text().strip()}"

    def has(self, reference: str) -> bool:
        """Return whether the image is among those that the program keeps."""
        return attempt([self.program, *self.options, "inspect", "--type=image", reference])

    def _by_digest(self, reference: str) -> str:
        if self.program == "buildah":
            said = run([self.program, *self.options, "images", "--json", reference], environment=self.environment)
            digest = json.loads(said)[0]["digest"]
        else:
            # A list of name@digest, where docker shortens the names of Docker Hub.
            inspect = ["inspect", "--type=image", "--format={{json .RepoDigests}}", reference]
            said = run([self.program, *self.options, *inspect], environment=self.environment)
            name = _untagged(reference).rpartition("/")[2]
            digests = (one.rpartition("@") for one in json.loads(said))
            digest = next(found for place, _, found in digests if place.rpartition("/")[2] == name)
        return f"{_untagged(reference)}@{digest}"

    def _tls(self) -> list[str]:
        return ["--tls-verify=false"] if self.plain_http else []

    def _run(self, *arguments: str | Path) -> None:
        run([self.program, *self.options, *arguments], environment=self.environment, log=self.log)


def find_program(wanted: str | None) -> str:
    """Return the first of docker, podman and buildah that works here, or the one that is wanted.

    Raises:
        ClusterError: none does.
    """
    for program in [wanted] if wanted else PROGRAMS:
        if shutil.which(program) and attempt(_PROBES[program]):
            return program
    tried = wanted or "docker, podman, buildah"
    raise ClusterError(
        f"no program that builds images works here (tried: {tried})",
        remedy="start the Docker daemon, or install podman or buildah (apt-get install buildah)",
    )


def _untagged(reference: str) -> str:
    head, slash, name = reference.rpartition("/")
    return f"{head}{slash}{name.partition(':')[0]}"
