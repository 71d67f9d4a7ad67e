# Two images of one server:
#   gpu (the default target)  everything; engines draw on the CUDA devices of the machine, or on its CPU.
#   api                       no torch; /readyz says that there is no engine on this machine.
#
#   docker build -t understudy-server:gpu .
#   docker build -t understudy-server:api --target api --build-arg PYTHON=slim .

# The CUDA release that the pinned torch is built for. `base` is enough: torch brings its own CUDA libraries.
ARG CUDA_IMAGE=nvidia/cuda:13.0.2-base-ubuntu24.04
ARG PYTHON_IMAGE=python:3.11-slim
# The stage that both images build on: `cuda`, or `slim` where nothing draws.
ARG PYTHON=cuda

FROM ${CUDA_IMAGE} AS cuda

# Ubuntu has no Python 3.11 of its own; this archive builds every release for it.
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends software-properties-common gpg-agent \
    && add-apt-repository -y ppa:deadsnakes/ppa \
    && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends python3.11 python3.11-venv \
    && rm -rf /var/lib/apt/lists/* \
    && python3.11 -m venv /opt/venv

ENV PATH=/opt/venv/bin:$PATH


FROM ${PYTHON_IMAGE} AS slim


FROM ${PYTHON} AS base

ENV PYTHONUNBUFFERED=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    UNDERSTUDY_HOST=0.0.0.0 \
    UNDERSTUDY_PORT=8000 \
    UNDERSTUDY_DATA=/data \
    UNDERSTUDY_WEIGHTS=/weights \
    UNDERSTUDY_MANIFEST=/app/weights.yaml

RUN useradd --uid 10001 --create-home understudy \
    && install --directory --owner understudy --group understudy /data /weights

WORKDIR /app

# Before the sources, so that a change of code does not install everything again.
COPY pyproject.toml README.md LICENSE ./
COPY server/__init__.py server/
COPY pipelines/__init__.py pipelines/

EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request; urllib.request.urlopen('http://127.0.0.1:' + os.environ['UNDERSTUDY_PORT'] + '/livez', timeout=4)"]
CMD ["understudy", "serve"]


FROM base AS api

RUN pip install -e .

COPY weights.yaml ./
COPY server server
# Of what draws, the torch-free part: it is all that the server imports.
COPY pipelines/*.py pipelines/
COPY pipelines/weights pipelines/weights
COPY pipelines/schedulers/__init__.py pipelines/schedulers/names.py pipelines/schedulers/

USER understudy
VOLUME ["/data", "/weights"]


FROM base AS gpu

RUN pip install -e '.[engine]'

COPY weights.yaml ./
COPY server server
COPY pipelines pipelines

USER understudy
VOLUME ["/data", "/weights"]
