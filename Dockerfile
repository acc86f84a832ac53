# certagent's image: Python, certagent, the libraries that both load, and nothing else.
#
#   docker build -t registry.example.com/certagent:0.1.0 .
#
# The last stage has one layer and no shell, package manager, compiler or pip: `kubectl exec` finds
# nothing to run but certagent and Python. BASE is where Python and the libraries are taken from: any
# image with glibc, Python 3.11 or newer, and its venv module. A private index comes as a secret, and
# so into no layer: `--secret id=pip.conf,src=pip.conf`.
ARG BASE=docker.io/library/python:3.11.14-slim-bookworm

FROM ${BASE} AS build
WORKDIR /build
COPY .ci/image/build.lock .ci/image/requirements.lock ./
# Each file is held to the hash in its lock, and none is built here: there is no compiler.
RUN --mount=type=secret,id=pip.conf,target=/etc/pip.conf \
    python3 -m venv tools \
 && tools/bin/pip install --no-cache-dir --require-hashes --only-binary :all: \
    --requirement build.lock \
 && tools/bin/pip wheel --no-cache-dir --require-hashes --only-binary :all: --wheel-dir wheels \
    --requirement requirements.lock
COPY LICENSE README.md pyproject.toml ./
COPY certagent certagent
RUN tools/bin/pip wheel --no-index --no-deps --no-build-isolation --wheel-dir wheels . \
 && python3 -m venv --without-pip /opt/certagent \
 && tools/bin/pip --python /opt/certagent/bin/python install --no-index --no-deps --no-compile \
    wheels/*.whl
COPY .ci/image/rootfs.py ./
RUN python3 rootfs.py /rootfs /opt/certagent

FROM scratch
ARG BASE
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="certagent" \
      org.opencontainers.image.description="Brings an Istio mesh's CA, and its gateways' TLS material, from Vault or Azure Key Vault: verified, in one swap, kept fresh." \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.base.name="${BASE}"
COPY --from=build /rootfs /
# OpenSSL's authorities are at this path whatever the base calls its own; byte code is there already.
ENV PATH=/opt/certagent/bin \
    LANG=C.UTF-8 \
    SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt \
    PYTHONDONTWRITEBYTECODE=1
USER 1337:1337
ENTRYPOINT ["certagent"]
