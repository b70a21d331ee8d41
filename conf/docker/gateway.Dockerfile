# The gateway alone, for Flows whose executors run elsewhere: what `gatewayd export` runs as "gateway".
#
#   docker build -f conf/docker/gateway.Dockerfile -t gatewayd:0.1 .
#
# What a Flow file needs besides is named by --build-arg EXTRAS=redis (gateway.rates_store), or
# EXTRAS=redis,tracing (gateway.tracing and metrics, too).
#
# The base is named by version; pin it to the digest that you have tested, with --build-arg BASE=python@sha256:...
ARG BASE=python:3.12.8-slim-bookworm

FROM ${BASE} AS build
WORKDIR /src
COPY setup.py pyproject.toml constraints.txt README.md LICENSE ./
COPY conf conf
COPY examples examples
COPY twisted twisted
COPY gatewayd gatewayd
ARG EXTRAS=
RUN python -m venv /opt/gatewayd \
    && PIP_CONSTRAINT=/src/constraints.txt /opt/gatewayd/bin/pip install --no-cache-dir ".${EXTRAS:+[$EXTRAS]}"

FROM ${BASE}
RUN groupadd --gid 10001 gatewayd \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /tmp gatewayd \
    && install -d -o 10001 -g 10001 /app
COPY --from=build /opt/gatewayd /opt/gatewayd
ENV PATH=/opt/gatewayd/bin:$PATH PYTHONPATH=/app PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
WORKDIR /app
USER 10001:10001
# The port of metrics (gateway.monitoring), as exports set it. Kubernetes and Compose have probes of their own.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:9090/readyz', timeout=4)"]
CMD ["gatewayd", "serve", "/etc/gatewayd/flow.yml"]
