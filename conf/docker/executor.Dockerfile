# Executors of one project: its folder lies at /app. The gateway runs in it as well.
#
#   docker build -f conf/docker/executor.Dockerfile --build-context project=path/of/flow -t my-flow:1 .
#
# The base is named by version; pin it to the digest that you have tested, with --build-arg BASE=python@sha256:...
# EXTRA is docarray2 for executors with docarray 0.40 and later.
ARG BASE=python:3.12.8-slim-bookworm

FROM ${BASE} AS build
ARG EXTRA=executor
WORKDIR /src
COPY setup.py pyproject.toml constraints.txt README.md LICENSE ./
COPY conf conf
COPY examples examples
COPY twisted twisted
COPY gatewayd gatewayd
# constraints.txt has docarray 0.21.
RUN grep -v '^docarray==' constraints.txt > limits.txt \
    && python -m venv /opt/gatewayd \
    && PIP_CONSTRAINT=/src/limits.txt /opt/gatewayd/bin/pip install --no-cache-dir ".[${EXTRA}]"
# What the project's own code needs; the folder may be without this file.
# hadolint ignore=DL3022
COPY --from=project . /project
RUN touch /project/requirements.txt \
    && /opt/gatewayd/bin/pip install --no-cache-dir -r /project/requirements.txt

FROM ${BASE}
RUN groupadd --gid 10001 gatewayd \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /tmp gatewayd
COPY --from=build /opt/gatewayd /opt/gatewayd
# hadolint ignore=DL3022
COPY --from=project . /app
ENV PATH=/opt/gatewayd/bin:$PATH PYTHONPATH=/app PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
WORKDIR /app
USER 10001:10001
HEALTHCHECK --interval=10s --timeout=10s --start-period=600s \
    CMD ["gatewayd", "ping", "-q", "grpc://127.0.0.1:8080"]
CMD ["gatewayd", "executor", "--flow", "/etc/gatewayd/flow.yml"]
