# The image of ollama-auth-proxy. To make it: docker build --tag ollama-auth-proxy .
# No step needs BuildKit.

ARG PYTHON_IMAGE=python:3.12-slim-bookworm

FROM ${PYTHON_IMAGE} AS build
WORKDIR /build
# Every file of the lock with its hash checked, development's too; then only what the package asks for is
# installed, from these files and nowhere else. What the lock does not have fails here.
COPY requirements.lock .
RUN pip download --quiet --disable-pip-version-check --require-hashes --no-deps --only-binary :all: \
    --dest wheels --requirement requirements.lock
COPY pyproject.toml README.md LICENSE ./
COPY proxy proxy
RUN python3 -m venv --without-pip /opt/ollama-auth-proxy \
 && pip --python /opt/ollama-auth-proxy/bin/python3 install --quiet --disable-pip-version-check \
    --no-index --find-links wheels .


FROM ${PYTHON_IMAGE}
# Nothing is ever installed here. The bytecode of the standard library is written now, since the user below
# cannot write it, and every health check would compile it again.
RUN library=$(python3 -c 'import sysconfig; print(sysconfig.get_path("stdlib"))') \
 && rm -rf "$library"/ensurepip "$library"/site-packages/pip* /usr/local/bin/pip* \
 && python3 -m compileall -q -x '/(site-packages|test|idlelib|lib2to3|tkinter|turtledemo)/' "$library" \
 && groupadd --gid 10001 ollama-auth-proxy \
 && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /data --shell /usr/sbin/nologin ollama-auth-proxy \
 && install --directory --owner 10001 --group 10001 --mode 0700 /data
COPY --from=build /opt/ollama-auth-proxy /opt/ollama-auth-proxy
COPY deploy/docker/config /etc/ollama-auth-proxy

ENV PATH=/opt/ollama-auth-proxy/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    OLLAMA_PROXY_CONFIG=/etc/ollama-auth-proxy/config.toml
# By number, so that Kubernetes can tell that it is not root.
USER 10001:10001
WORKDIR /data
VOLUME /data
EXPOSE 8443
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=15s --timeout=5s --start-period=30s --retries=3 CMD ["ollama-auth-proxy", "health"]
ENTRYPOINT ["ollama-auth-proxy"]
CMD ["serve"]

ARG VERSION=0.1.0
ARG REVISION=
ARG SOURCE=
LABEL org.opencontainers.image.title="ollama-auth-proxy" \
      org.opencontainers.image.description="The proxy to put in front of Ollama: TLS, API keys, streaming byte for byte, metrics." \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.source="${SOURCE}"
