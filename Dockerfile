# Two images: coordinator (also runs the dashboard; no JAX) and worker (JAX for CUDA, or for the CPU with DEVICE=cpu).
#   docker build --target coordinator --tag miiii-search-coordinator .
#   docker build --target worker --build-arg DEVICE=cpu --tag miiii-search-worker:cpu .
ARG PYTHON_IMAGE=python:3.13-slim-trixie
ARG DEVICE=cuda

FROM ${PYTHON_IMAGE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_COMPILE=1 PYTHONDONTWRITEBYTECODE=1
WORKDIR /src
RUN python3 -m venv --without-pip /opt/miiii

# Build the package as a wheel with the locked build tools.
FROM build AS wheel
COPY requirements/build.lock requirements/build.lock
RUN python3 -m venv /opt/build && /opt/build/bin/pip install --require-hashes --requirement requirements/build.lock
COPY pyproject.toml README.md LICENSE ./
COPY miiii_search miiii_search
RUN /opt/build/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /dist .

FROM build AS coordinator-packages
COPY requirements/coordinator.lock requirements/coordinator.lock
RUN --mount=type=cache,target=/root/.cache/pip \
    python3 -m pip --python /opt/miiii install --require-hashes --only-binary :all: -r requirements/coordinator.lock
COPY --from=wheel /dist /dist
RUN python3 -m pip --python /opt/miiii install --no-deps --no-index /dist/*.whl && \
    /opt/miiii/bin/python -m compileall -q /opt/miiii

# If Compose asks for the check, a machine without a GPU fails here, before CUDA's packages are downloaded.
FROM ${PYTHON_IMAGE} AS device
ARG DEVICE
ARG CHECK_GPU=no
COPY compose/check-gpu.sh /check-gpu.sh
RUN if [ "$DEVICE" = cuda ] && [ "$CHECK_GPU" != no ]; then sh /check-gpu.sh; fi && touch /checked

FROM build AS worker-packages
ARG DEVICE
COPY --from=device /checked /tmp/checked
COPY requirements/run.lock requirements/cpu.lock
COPY requirements/cuda.lock requirements/cuda.lock
RUN --mount=type=cache,target=/root/.cache/pip \
    python3 -m pip --python /opt/miiii install --require-hashes --only-binary :all: -r requirements/${DEVICE}.lock
COPY --from=wheel /dist /dist
RUN python3 -m pip --python /opt/miiii install --no-deps --no-index /dist/*.whl && \
    /opt/miiii/bin/python -m compileall -q /opt/miiii

# Base of both images: an unprivileged user, a state folder for a volume, and a healthcheck by the liveness file.
FROM ${PYTHON_IMAGE} AS base
RUN rm -rf /usr/local/bin/pip* /usr/local/lib/python3*/site-packages/pip* /usr/local/lib/python3*/ensurepip && \
    groupadd --gid 10001 miiii && useradd --uid 10001 --gid miiii --home-dir /var/lib/miiii --no-create-home miiii && \
    install --directory --owner miiii --group miiii /var/lib/miiii /run/miiii/keys /run/miiii/access
ENV PATH=/opt/miiii/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    HOME=/var/lib/miiii XDG_STATE_HOME=/var/lib/miiii/state XDG_CACHE_HOME=/var/lib/miiii/cache \
    JAX_COMPILATION_CACHE_DIR=/var/lib/miiii/jax MIIII_LIVENESS_FILE=/tmp/pulse
ARG GIT_COMMIT=
ENV MIIII_GIT_COMMIT=${GIT_COMMIT}
LABEL org.opencontainers.image.title="miiii-search" \
    org.opencontainers.image.description="Hyperparameter search for networks that grok families of modular tasks" \
    org.opencontainers.image.licenses="MIT" \
    org.opencontainers.image.revision="${GIT_COMMIT}"
HEALTHCHECK --interval=15s --timeout=5s --start-period=120s --start-interval=1s --retries=4 \
    CMD ["python3", "-ISc", "import os, time; raise SystemExit(time.time() - os.stat('/tmp/pulse').st_mtime > 30)"]
USER 10001:10001
WORKDIR /var/lib/miiii
ENTRYPOINT ["miiii-search"]

FROM base AS coordinator
COPY --from=coordinator-packages /opt/miiii /opt/miiii
CMD ["coordinate"]

# Compose builds this at each `up`, before it stops anything, so that a wrong setting ends the build.
FROM coordinator AS check
ARG MIIII_DEVICE MIIII_STUDY MIIII_PRESET MIIII_TRIALS MIIII_SET MIIII_ARTIFACTS MIIII_LANES MIIII_ANY_VERSION \
    MIIII_METRICS_PORT MIIII_METRICS_HOST MIIII_DASHBOARD MIIII_DASHBOARD_PASSWORD
RUN miiii-search check-settings 2>&1
CMD ["check-settings"]

FROM base AS worker
ARG DEVICE
ENV MIIII_DEVICE=${DEVICE}
COPY --from=worker-packages /opt/miiii /opt/miiii
CMD ["work"]
