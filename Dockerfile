# The converter as a container:
#   docker run --rm -v "$PWD/in:/data:ro" -v "$PWD/out:/store" robozarr convert /data --store /store/libero.zarr

FROM python:3.11-slim-bookworm AS build
ARG EXTRAS="convert dashboard s3"
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /src
# What it depends on comes first: a change of the code builds none of these wheels again, and the image has a small layer for it.
COPY pyproject.toml constraints.txt ./
RUN python -c "import sys, tomllib; project = tomllib.load(open('pyproject.toml', 'rb'))['project']; \
    extras = [need for extra in sys.argv[1].split() for need in project['optional-dependencies'][extra]]; \
    print(*project['dependencies'], *extras, sep='\n')" "$EXTRAS" > requirements.txt \
 && pip wheel -q --wheel-dir /wheels -c constraints.txt -r requirements.txt
# Other packages' tests go, and the scripts that Dask's dashboard has in a minified form too. Their compiled bytecode stays: on a read-only root every process would compile again, for 2 s each.
RUN python -m venv --without-pip /opt/robozarr \
 && pip --python /opt/robozarr/bin/python install -q --no-index --find-links /wheels -r requirements.txt \
 && find /opt/robozarr -path '*/tests/*' -name 'test_*' -type f -delete \
 && find /opt/robozarr -path '*/bokeh/server/static/js/*.js' ! -name '*.min.js' -delete
COPY . .
RUN pip wheel -q --no-deps --wheel-dir /wheel . \
 && pip --python /opt/robozarr/bin/python install -q --no-deps --no-index --prefix /code /wheel/*.whl

FROM python:3.11-slim-bookworm
COPY --from=build /opt/robozarr /opt/robozarr
COPY --from=build /code /opt/robozarr
# Nothing is written but to the mounts and to /tmp, so that any user will do (--user), and a read-only root (--read-only --tmpfs /tmp).
ENV PATH=/opt/robozarr/bin:$PATH HOME=/tmp PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
# made by root: without a mount nothing is written there, and lost with the container
WORKDIR /data
USER 1000:1000
# `make image` fills these in; they come last, because they change with every build
ARG VERSION="" REVISION="" SOURCE=""
LABEL org.opencontainers.image.title="robozarr" \
      org.opencontainers.image.description="LIBERO robot demonstrations: from HDF5 into verified Zarr stores" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.source="$SOURCE" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION"
ENTRYPOINT ["robozarr"]
CMD ["--help"]
