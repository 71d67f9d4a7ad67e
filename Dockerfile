# Three images of one server, each an ordinary user's, with everything compiled and nothing to build left in it:
#   gpu (the default target)  draws on the CUDA devices of the machine, whose driver the container's runtime brings.
#   cpu                       draws the demo on any machine; whatever else it is told to draw, too, and slowly.
#   api                       accounts, HTTP, queue and storage. Without torch: /readyz says that nothing draws here.
#
#   docker build -t understudy-server:gpu .
#   docker build -t understudy-server:cpu --target cpu .
#   docker build -t understudy-server:api --target api .
#
# `podman build` takes the same words. The requirements and the project are layers of their own, so that a change of
# code builds and pushes the last one alone.

# Torch brings its own CUDA libraries: no image needs another ground than Python's own.
ARG PYTHON_IMAGE=python:3.12-slim

FROM ${PYTHON_IMAGE} AS python

ENV PYTHONUNBUFFERED=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_ROOT_USER_ACTION=ignore


# The requirements of the core and of what draws, as lists; torch's own, since they may come from another index.
FROM python AS requirements

WORKDIR /requirements
COPY pyproject.toml ./
RUN python -c "import pathlib, tomllib; project = tomllib.loads(pathlib.Path('pyproject.toml').read_text())['project']; engine = project['optional-dependencies']['engine']; lists = {'core': project['dependencies'], 'engine': engine, 'torch': [line for line in engine if line.startswith('torch')]}; [pathlib.Path(name + '.txt').write_text('\n'.join(lines) + '\n') for name, lines in lists.items()]"


FROM python AS wheel

WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY server server
COPY pipelines pipelines
RUN --mount=type=cache,target=/root/.cache/pip pip wheel --no-deps --wheel-dir /wheel .


FROM python AS core

LABEL org.opencontainers.image.title="understudy-server" \
      org.opencontainers.image.description="A self-hosted inference server that stands in for hosted image-generation APIs." \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="0.1.0"

# Programs that keep something beside the data do so below it: the rest of an image may be read-only.
ENV HOME=/data \
    UNDERSTUDY_HOST=0.0.0.0 \
    UNDERSTUDY_PORT=8000 \
    UNDERSTUDY_DATA=/data \
    UNDERSTUDY_WEIGHTS=/weights \
    UNDERSTUDY_MANIFEST=/app/weights.yaml

RUN useradd --uid 10001 --home-dir /data --no-create-home understudy \
    && install --directory --owner 10001 --group 10001 /data /weights

RUN --mount=type=cache,target=/root/.cache/pip \
    --mount=type=bind,from=requirements,source=/requirements,target=/requirements \
    pip install --compile --requirement /requirements/core.txt

WORKDIR /app
COPY weights.yaml ./

EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=120s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request; urllib.request.urlopen('http://127.0.0.1:' + os.environ['UNDERSTUDY_PORT'] + '/livez', timeout=4)"]
CMD ["understudy", "serve"]


FROM core AS api

RUN --mount=type=bind,from=wheel,source=/wheel,target=/wheel pip install --compile --no-deps /wheel/*.whl
USER 10001:10001


# A machine without a GPU needs no CUDA libraries, which are most of torch. PyTorch has an index of builds for the CPU,
# whose address its installation page shows: give it as TORCH_INDEX. Without it the ordinary builds are taken, which
# draw on a CPU as well, from an image that is larger by some gigabytes.
FROM core AS cpu

ARG TORCH_INDEX=
RUN --mount=type=cache,target=/root/.cache/pip \
    --mount=type=bind,from=requirements,source=/requirements,target=/requirements \
    pip install --compile ${TORCH_INDEX:+--index-url "${TORCH_INDEX}"} --requirement /requirements/torch.txt \
    && pip install --compile --requirement /requirements/engine.txt
RUN --mount=type=bind,from=wheel,source=/wheel,target=/wheel pip install --compile --no-deps /wheel/*.whl
ENV UNDERSTUDY_DEVICES=cpu
USER 10001:10001
CMD ["understudy", "demo"]


FROM core AS gpu

RUN --mount=type=cache,target=/root/.cache/pip \
    --mount=type=bind,from=requirements,source=/requirements,target=/requirements \
    pip install --compile --requirement /requirements/engine.txt
RUN --mount=type=bind,from=wheel,source=/wheel,target=/wheel pip install --compile --no-deps /wheel/*.whl
# What the container's runtime hands in of the machine's driver.
ENV NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER 10001:10001
