# The worker that unlearns, and beat. A slim Python is enough for the GPU: torch brings its CUDA
# libraries as packages, and the NVIDIA Container Toolkit adds the host's driver at run time.
# The Python is the one the tests run on; `make pins` names its image by digest.
FROM python:3.11.15-slim-trixie AS build
WORKDIR /build
RUN python -m venv /venv && /venv/bin/pip install --no-cache-dir pip==26.3
COPY pyproject.toml constraints.txt ./
# The CPU build of torch would go unnoticed and be slow forever, so fail here.
RUN /venv/bin/pip install --no-cache-dir -c constraints.txt --group worker \
 && /venv/bin/python -c "import torch; exit(torch.version.cuda is None)"

FROM python:3.11.15-slim-trixie
ENV PATH=/venv/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 HOME=/tmp
# A new volume takes its owner from the directory it is mounted on.
RUN useradd --system --uid 10001 --no-create-home lethe \
 && install -d -o lethe /var/lib/lethe /var/lib/lethe-anchors /var/lib/lethe-suppressions
WORKDIR /app
COPY --from=build /venv /venv
COPY docker/worker_alive.py ./
COPY domain/ domain/
COPY evidence/ evidence/
COPY worker/ worker/
# The build fails if a module needs a package that is not installed.
RUN python -c "import worker.child, worker.delivery.webhooks, worker.evidence.certificates, worker.restore.__main__"
USER 10001
HEALTHCHECK --interval=30s --timeout=10s --start-period=30s --start-interval=2s \
  CMD ["python", "worker_alive.py"]
CMD ["python", "-m", "celery", "--quiet", "--app", "worker.tasks", "worker", \
     "--pool=threads", "--concurrency=1", "--queues=lethe.jobs", \
     "--hostname=worker@%h", "--without-gossip", "--without-mingle"]
