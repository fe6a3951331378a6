# The API, and the migrations it needs: no torch, no GPU. Also the image of `migrate`.
# The Python is the one the tests run on; `make pins` names its image by digest.
FROM python:3.11.15-slim-trixie AS build
WORKDIR /build
RUN python -m venv /venv && /venv/bin/pip install --no-cache-dir pip==26.3
COPY pyproject.toml constraints.txt ./
RUN /venv/bin/pip install --no-cache-dir -c constraints.txt --group api

FROM python:3.11.15-slim-trixie
ENV PATH=/venv/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
# A new volume takes its owner from the directory it is mounted on. Set it here too, although the
# volume is only read: this container may be the first to mount it.
RUN useradd --system --uid 10001 --no-create-home lethe && install -d -o lethe /var/lib/lethe
WORKDIR /app
COPY --from=build /venv /venv
COPY alembic.ini ./
COPY migrations/ migrations/
COPY domain/ domain/
COPY evidence/ evidence/
COPY service/ service/
COPY verifier/predicate.schema.json verifier/
# The build fails if a module that the API needs is missing, or one that must be absent is
# installed.
RUN python -c "import service.app" \
 && python -c "from importlib.util import find_spec as f; exit(any(map(f, ('torch', 'worker'))))"
USER 10001
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s --start-interval=1s \
  CMD ["python", "-c", \
       "from urllib.request import urlopen; urlopen('http://127.0.0.1:8000/livez', timeout=4)"]
CMD ["python", "-m", "uvicorn", "--factory", "service.app:from_environment", \
     "--http=service.connections:Connection", "--ws=none", "--no-server-header", \
     "--host=0.0.0.0", "--port=8000", "--no-access-log"]
