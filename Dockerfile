# khook's image: Debian, CPython, one virtual environment and nothing that could install more.
#
# `make docker-build` builds it; `make image-check` carries these same steps out where there is no container engine,
# and starts the result. Its reader (tests/image/dockerfile.py) knows the instructions used here and refuses others.
#
# The base is pinned by its tag, which moves with security fixes. For a build that never moves, name a digest too:
#   make docker-build PYTHON_IMAGE=python:3.13-slim-trixie@sha256:...
ARG PYTHON_IMAGE=python:3.13-slim-trixie

FROM ${PYTHON_IMAGE} AS build
# The time that stands in the wheel; the bytecode below holds none, so the environment comes out the same each time.
ARG SOURCE_DATE_EPOCH
WORKDIR /src
COPY requirements/build.lock requirements/run.lock requirements/
# pip and the build tools live in /opt/tools, which stays behind; the environment that ships never has a pip.
RUN python3 -m venv /opt/tools \
 && /opt/tools/bin/pip install --no-cache-dir --require-hashes --no-deps -r requirements/build.lock \
 && python3 -m venv --without-pip /opt/khook \
 && /opt/tools/bin/pip --python /opt/khook/bin/python install --no-cache-dir --no-compile \
      --require-hashes --no-deps --only-binary :all: -r requirements/run.lock
COPY pyproject.toml README.md LICENSE ./
COPY khook khook
COPY shards shards
RUN /opt/tools/bin/python -m hatchling build -t wheel \
 && /opt/tools/bin/pip --python /opt/khook/bin/python install --no-cache-dir --no-compile \
      --no-index --no-deps dist/khook-*.whl
# A third of the environment is the second half of the official Kubernetes client, of which nothing is imported.
RUN rm -rf /opt/khook/lib/python3.*/site-packages/kubernetes/aio
# Compiled here, because at run time the root file system is read-only: without it every process compiles all it
# imports, at each start. By hash and unchecked: the result depends on no file time, and no start looks for changes.
# (Nor is anything imported from the client's API and models, but for their names; they stay as they came.)
RUN python3 -m compileall -q -f -j 0 --invalidation-mode unchecked-hash \
      -x 'kubernetes/client/(api|models)/' /opt/khook/lib

FROM ${PYTHON_IMAGE}
# curl and date (coreutils) are for `kubectl exec`. tini is PID 1: khook in its place would not hear a SIGTERM that
# comes before its handler is set (the kernel drops it for PID 1), and would keep zombies of what `kubectl exec` left.
# Python's own library comes without bytecode in the official image; pip and ensurepip go.
RUN apt-get update \
 && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends curl tini \
 && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/cache/ldconfig/aux-cache /var/cache/debconf/*-old \
      /var/lib/dpkg/*-old /var/log/apt /var/log/dpkg.log /var/log/alternatives.log \
 && stdlib="$(python3 -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')" \
 && site="$(python3 -c 'import sysconfig; print(sysconfig.get_path("purelib"))')" \
 && rm -rf "$stdlib/ensurepip" "$site"/pip "$site"/pip-* /usr/local/bin/pip* \
 && python3 -m compileall -q -f -j 0 --invalidation-mode unchecked-hash "$stdlib"
COPY LICENSE /usr/share/doc/khook/LICENSE
COPY --from=build /opt/khook /opt/khook
ENV PATH=/opt/khook/bin:/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin
# Nothing may be written beside the code, and a traceback shall not wait in a buffer.
ENV PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.title="khook" \
      org.opencontainers.image.description="KAgent Hook Controller: asks a kagent agent to look into pods that fail" \
      org.opencontainers.image.source="https://github.com/antweiss/khook" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
# A number, so that the kubelet can see that it is not root (runAsNonRoot).
USER 65532:65532
EXPOSE 8080 8081
# -s: also where a pod shares one process namespace, and tini is not PID 1 there, it collects what is left behind.
ENTRYPOINT ["/usr/bin/tini", "-s", "--", "/opt/khook/bin/khook"]
CMD ["run"]
